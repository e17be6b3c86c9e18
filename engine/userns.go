package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A user namespace is made together with a process, or by one that has a single thread. Were it a child of ours in the
// making, the kernel would copy this process's page tables for it, and each page that we write to afterwards: under
// load that is a large part of a container's start. So a program of a few instructions does it, which is executed like
// any other.

// makerText is its machine code: unshare(CLONE_NEWUSER), write(1, sp, 1), read(0, sp, 1), exit(0). It says by one byte
// that the namespace is there, and ends with its standard input.
var makerText = map[string][]byte{
	"amd64": {
		0xb8, 0x10, 0x01, 0, 0 /* mov eax, SYS_unshare */, 0xbf, 0, 0, 0, 0x10 /* mov edi, CLONE_NEWUSER */, 0x0f,
		0x05,                                     /* syscall */
		0x85, 0xc0 /* test eax, eax */, 0x75, 26, /* jnz exit */
		0xb8, 1, 0, 0, 0 /* mov eax, SYS_write */, 0xbf, 1, 0, 0, 0 /* mov edi, 1 */, 0x48, 0x89,
		0xe6,                                          /* mov rsi, rsp */
		0xba, 1, 0, 0, 0 /* mov edx, 1 */, 0x0f, 0x05, /* syscall */
		0x31, 0xc0 /* xor eax, eax: SYS_read */, 0x31, 0xff /* xor edi, edi */, 0x0f, 0x05, /* syscall */
		0xb8, 60, 0, 0, 0 /* exit: mov eax, SYS_exit */, 0x31, 0xff /* xor edi, edi */, 0x0f, 0x05, /* syscall */
	},
	"arm64": {
		0x00, 0x00, 0xa2, 0xd2, // mov x0, CLONE_NEWUSER
		0x28, 0x0c, 0x80, 0xd2, // mov x8, #97 (unshare)
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0x20, 0x01, 0x00, 0xb5, // cbnz x0, exit
		0x20, 0x00, 0x80, 0xd2, // mov x0, #1
		0xe1, 0x03, 0x00, 0x91, // mov x1, sp
		0x22, 0x00, 0x80, 0xd2, // mov x2, #1
		0x08, 0x08, 0x80, 0xd2, // mov x8, #64 (write)
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0x00, 0x00, 0x80, 0xd2, // mov x0, #0
		0xe8, 0x07, 0x80, 0xd2, // mov x8, #63 (read)
		0x01, 0x00, 0x00, 0xd4, // svc #0
		0x00, 0x00, 0x80, 0xd2, // exit: mov x0, #0
		0xa8, 0x0b, 0x80, 0xd2, // mov x8, #93 (exit)
		0x01, 0x00, 0x00, 0xd4, // svc #0
	},
}

// newMaker returns the program, in memory.
func newMaker() (*os.File, error) {
	text, ok := makerText[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("user namespaces can't be made on %s", runtime.GOARCH)
	}
	fd, err := unix.MemfdCreate("userns", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "userns")
	if _, err := f.Write(elf(text)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// newUserns makes a user namespace in which 0 to slotSize-1 are base and the following on the host, for users and
// groups.
func newUserns(maker *os.File, base uint32) (_ *os.File, err error) {
	// resolved in the child, before the descriptor closes on exec
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", maker.Fd()))
	cmd.Env = []string{}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stdin.Close(), cmd.Wait()) }()
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("the kernel makes none: %w", err)
	}
	process := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	ids := fmt.Appendf(nil, "0 %d %d\n", base, slotSize)
	for _, file := range []string{"/uid_map", "/gid_map"} {
		if err := os.WriteFile(process+file, ids, 0); err != nil {
			return nil, err
		}
	}
	return os.Open(process + "/ns/user")
}
