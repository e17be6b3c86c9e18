package engine

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewTerminal makes a pseudoterminal of the given size (pty(7)): the end that a person's side reads and writes, and the
// end for Spec.Terminal. The caller closes both; the process keeps its own copies of the second.
func NewTerminal(rows, columns uint16) (person, process *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("open /dev/ptmx", err)
	}
	person = os.NewFile(uintptr(fd), "terminal")
	defer func() {
		if err != nil {
			_ = person.Close()
		}
	}()
	var unlocked int32
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPTLCK,
		uintptr(unsafe.Pointer(&unlocked))); e != 0 {
		return nil, nil, os.NewSyscallError("unlock a terminal", e)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		return nil, nil, os.NewSyscallError("set a terminal's size", err)
	}
	// By its number from the other end, not by its path: /dev/pts may be another's here.
	peer, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return nil, nil, os.NewSyscallError("open a terminal's other end", e)
	}
	return person, os.NewFile(peer, "terminal"), nil
}
