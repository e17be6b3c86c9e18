package engine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUserNamespace(t *testing.T) {
	s, err := newSlots(1 << 29)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ns, err := newUserns(s.maker, s.base+slotSize)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	// A process that enters it sees its mapping.
	cmd := exec.Command("nsenter", fmt.Sprintf("--user=/proc/%d/fd/%d", os.Getpid(), ns.Fd()), "--setuid=0",
		"--setgid=0", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0 %d %d", 1<<29+slotSize, slotSize)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || strings.Join(strings.Fields(lines[0]), " ") != want ||
		strings.Join(strings.Fields(lines[1]), " ") != want {
		t.Errorf("the mappings are %q; want twice %q", lines, want)
	}
}

// A kernel that makes no user namespace is an error, not a namespace without a mapping.
func TestNoUserNamespace(t *testing.T) {
	text := elf(probeText[runtime.GOARCH])
	fd, err := unix.MemfdCreate("none", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "none")
	defer f.Close()
	if _, err := f.Write(text); err != nil { // a program that ends without a word, as the maker does then
		t.Fatal(err)
	}
	if ns, err := newUserns(f, 1<<29); err == nil {
		ns.Close()
		t.Error("there is a namespace")
	}
}

// The time that a user namespace takes a process with as much memory as a platform has under load, the faults that
// follow included. "child" is the usual way, a child process in a new namespace.
func BenchmarkUserns(b *testing.B) {
	s, err := newSlots(1 << 29)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	ballast := make([]byte, 128<<20)
	write := func() {
		for i := 0; i < len(ballast); i += os.Getpagesize() {
			ballast[i]++
		}
	}
	b.Run("program", func(b *testing.B) {
		for b.Loop() {
			write()
			ns, err := newUserns(s.maker, s.base)
			if err != nil {
				b.Fatal(err)
			}
			ns.Close()
		}
	})
	b.Run("child", func(b *testing.B) {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(s.base), Size: slotSize}}
		for b.Loop() {
			write()
			cmd := exec.Command("/proc/self/exe")
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER,
				UidMappings: ids,
				GidMappings: ids,
				Ptrace:      true,
			}
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			if err := cmd.Process.Kill(); err != nil {
				b.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
		}
	})
}
