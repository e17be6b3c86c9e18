package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A created container waits at a FIFO in the runtime's state directory. All that the runtime's own start does, for a
// container without hooks, is to open that gate, and starting a process for that takes more than half the time to
// the first byte. So the engine opens it itself, where the probe at Open has shown that this works with the runtime
// as installed; else, and whenever the gate is not as expected, the runtime does it.

// gates holds how each runtime's gate opens.
var gates = map[string]func(fifo string) error{"crun": openByWriting, "runc": openByReading}

// start starts a created container.
func (e *Engine) start(ctx context.Context, i *Instance) error {
	if e.runtime.open != nil {
		fifo := filepath.Join(e.state(), i.name, "exec.fifo")
		err := e.runtime.open(fifo)
		if err == nil {
			os.Remove(fifo) // which is how the runtimes tell that it runs
			return nil
		}
		e.log.Warn("open a container's gate; the runtime will", "instance", i.id, "err", err)
	}
	return e.call(ctx, i, nil, "start")
}

// openByWriting is for crun, whose container reads one byte.
func openByWriting(fifo string) error {
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: fifo, Err: err}
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte{0})
	return err
}

// openByReading is for runc, whose container writes one byte and goes on when it is read.
func openByReading(fifo string) error {
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: fifo, Err: err}
	}
	defer unix.Close(fd)
	// The container may still be on its way to the gate.
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
	for err == unix.EINTR { // by a signal, such as that of a child's end
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
	}
	if n == 0 || err != nil {
		return errors.Join(errors.New("nobody came to the gate"), err)
	}
	if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
		return fmt.Errorf("read %d bytes at the gate: %v", n, err)
	}
	return nil
}
