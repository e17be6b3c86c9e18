package engine

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// gpuLocks is where each GPU that is in use has a file that is locked: for all engines of the machine.
const gpuLocks = "/run/giggle-gpus"

// lockGPUs takes the GPUs for the instance. It fails with ResourceExhausted when another instance has one of them, of
// this engine or of another platform's: callers share GPUs out, but platforms know nothing of each other.
func (i *Instance) lockGPUs(gpus []GPU) error {
	if err := os.MkdirAll(gpuLocks, 0o700); err != nil {
		return err
	}
	for _, g := range gpus {
		if !gpuUUID.MatchString(g.UUID) {
			return fault.Invalid("gpus", "%.60q is not a GPU's UUID.", g.UUID)
		}
		// Not removed at the end: who waits for a file that is gone waits for nothing. They are few and empty.
		f, err := os.OpenFile(filepath.Join(gpuLocks, g.UUID), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		i.gpus = append(i.gpus, f)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return &fault.Error{
				Code:   fault.ResourceExhausted,
				Reason: "ResourcesUnavailable",
				Message: "The GPU " + g.UUID + " (" + g.Model +
					") is in use by an instance of another platform on this machine.",
			}
		}
		if err != nil {
			return os.NewSyscallError("flock", err)
		}
	}
	return nil
}

// freeGPUs gives the locks back.
func (i *Instance) freeGPUs() {
	for _, f := range i.gpus {
		f.Close()
	}
	i.gpus = nil
}
