package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// peer is a network namespace that holds lo only, as an instance's, and who asks the app in it. It owns an operating
// system thread, which ends with it.
type peer struct {
	ns  *os.File
	ask chan func()
}

// answered is when the first byte came.
type answered struct {
	time time.Time
	err  error
}

func newPeer() (*peer, error) {
	p := &peer{ask: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is of no other use
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		if err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
		for do := range p.ask {
			do()
		}
	}()
	err := <-made
	if err != nil {
		close(p.ask)
	}
	return p, err
}

// loopbackUp sets lo of the calling thread's namespace up (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// netns is a path to the namespace, for the runtime.
func (p *peer) netns() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns.Fd()) }

func (p *peer) close() {
	close(p.ask)
	_ = p.ns.Close()
}

// firstByte asks the app on port 8080, again and again until it listens, and tells when the first byte of its answer
// came.
func (p *peer) firstByte(ctx context.Context, every time.Duration) <-chan answered {
	out := make(chan answered, 1)
	p.ask <- func() {
		for {
			err := get()
			if err == nil {
				out <- answered{time.Now(), nil}
				return
			}
			if ctx.Err() != nil {
				out <- answered{err: fmt.Errorf("the container does not answer: %w", err)}
				return
			}
			time.Sleep(every) // connect is refused until it listens: look again
		}
	}
	return out
}

// get reads one byte of an answer. It runs on the peer's thread: a socket belongs to the namespace it is made in.
func get() error {
	c, err := net.Dial("tcp4", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}
