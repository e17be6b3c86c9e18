package cloud

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"giggle/fault"
)

// lockName is the file whose lock says that a platform runs on the data directory. It holds the platform's pid.
const lockName = "lock"

// lockData makes the data directory and takes its lock. It fails with FailedPrecondition, and the pid, when another
// platform has it. The kernel frees the lock of a process that was killed.
func (c *Cloud) lockData() error {
	// Others may pass through to the socket and to their own shell directory; everything else below is closed to them.
	if err := os.MkdirAll(c.cfg.Data, 0o711); err != nil {
		return err
	}
	f, err := os.OpenFile(c.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", c.cfg.Data, err)
		}
		return fault.New(fault.FailedPrecondition, "A platform runs on %s already (pid %s). Stop it, or use another --data and --address.",
			c.cfg.Data, strings.TrimSpace(string(pid)))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return errors.Join(err, f.Close())
	}
	c.onClose(f.Close)
	return nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
