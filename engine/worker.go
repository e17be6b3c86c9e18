package engine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// worker is one OS thread in a mount namespace of its own. All mounts are made there, and the runtime is started from
// there: nothing shows on the host, and when the process dies, in whatever way, the mounts die with it.
type worker struct {
	jobs chan func()
}

// startWorker starts the thread. It is never the process's main thread, whose namespaces /proc/self shows.
func startWorker() (*worker, error) {
	w := &worker{jobs: make(chan func())}
	up := make(chan error)
	go w.thread(up)
	return w, <-up
}

func (w *worker) thread(up chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Hold the main thread until another goroutine has taken another one.
		held := make(chan error)
		go w.thread(held)
		err := <-held
		runtime.UnlockOSThread()
		up <- err
		return
	}
	// Never unlocked: the thread ends with this goroutine.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		up <- fmt.Errorf("unshare the mount namespace (root is needed): %w", err)
		return
	}
	// What the host mounts later shows here; what is mounted here never shows on the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		up <- fmt.Errorf("make mounts private: %w", err)
		return
	}
	up <- nil
	for job := range w.jobs {
		job()
	}
}

// do runs fn on the thread. Keep it short: everything else waits.
func (w *worker) do(fn func() error) error {
	done := make(chan error, 1)
	w.jobs <- func() { done <- fn() }
	return <-done
}

// stop ends the thread. No do may follow.
func (w *worker) stop() { close(w.jobs) }
