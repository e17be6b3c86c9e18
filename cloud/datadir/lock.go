// Package datadir is the platform's data directory as a whole: one platform at a time has it, and it can be removed.
//
// What is in it belongs to the rooms that keep it there.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"giggle/fault"
)

// lockName is the file whose lock says that a platform runs on the data directory. It holds the platform's pid.
const lockName = "lock"

// Lock makes a data directory and takes its lock, until release. It fails with FailedPrecondition, and the pid, when
// another platform has it. The kernel frees the lock of a process that was killed.
func Lock(data string) (release func() error, err error) {
	// Others may pass through to the socket and to their own shell directory; everything else below is closed to them.
	if err := os.MkdirAll(data, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(data, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", data, err)
		}
		return nil, fault.New(fault.FailedPrecondition,
			"A platform runs on %s already (pid %s). Stop it, or use another --data and --address.",
			data, strings.TrimSpace(string(pid)))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
