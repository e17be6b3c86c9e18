package local

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"giggle/engine"
	"giggle/run/scale"
)

// instance is one container of a revision.
type instance struct {
	id       string
	inner    *engine.Instance
	log      func(engine.Line)
	now      func() time.Time
	memory   int64
	tail     tail
	stopping atomic.Bool
	end      func() // of what it had besides its container; may be nil
}

var _ scale.Instance = (*instance)(nil)

func (i *instance) ID() string { return i.id }

func (i *instance) Start(ctx context.Context) error { return i.inner.Start(ctx) }

func (i *instance) Dial(ctx context.Context, port int) (net.Conn, error) {
	return i.inner.Dial(ctx, port)
}

func (i *instance) Done() <-chan struct{} { return i.inner.Done() }

func (i *instance) OOM() bool { return i.inner.Exit().OOM }

func (i *instance) SetCPU(millicores int64) error { return i.inner.SetCPU(millicores) }

// Usage tells what the container uses. One of which the kernel has killed a process for its memory ends here as a
// whole, as on Cloud Run: what is left of it may be anything.
func (i *instance) Usage() (scale.Usage, error) {
	u, err := i.inner.Usage()
	if err == nil && u.OOMKills > 0 && !i.stopping.Load() {
		go func() { _ = i.inner.Stop(context.Background(), 0) }() // it may have ended; its end is watched
	}
	return scale.Usage{Memory: u.MemoryBytes, CPU: u.CPUTime}, err
}

func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	i.stopping.Store(true)
	return i.inner.Stop(ctx, grace)
}

// Say writes a line of the platform's own into the container's log.
func (i *instance) Say(text string) {
	i.log(engine.Line{Time: i.now(), Stream: engine.Platform, Text: text})
}

// Warn is Say for what the user may have to mend.
func (i *instance) Warn(text string) {
	i.log(engine.Line{Time: i.now(), Stream: engine.PlatformWarnings, Text: text})
}

// sayEnd says in the log how the container ended, unless it was told to.
func (i *instance) sayEnd() {
	<-i.inner.Done()
	if i.end != nil {
		i.end()
	}
	switch e := i.inner.Exit(); {
	case e.OOM:
		i.log(engine.Line{Time: i.now(), Stream: engine.PlatformErrors, Text: i.outOfMemory()})
	case i.stopping.Load():
	case e.Signal != 0:
		i.Say(fmt.Sprintf("Container terminated on signal %d.", e.Signal))
	default:
		i.Say(fmt.Sprintf("Container called exit(%d).", e.Code))
	}
}

// outOfMemory is Cloud Run's line for a container that the kernel killed for its memory.
func (i *instance) outOfMemory() string {
	u, _ := i.inner.Usage() // what it was at the end
	return fmt.Sprintf("Memory limit of %d MiB exceeded with %d MiB used. Consider increasing the memory limit, see https://cloud.google.com/run/docs/configuring/memory-limits",
		i.memory>>20, max(u.PeakBytes, i.memory)>>20)
}

// Diagnosis says how the container ended, or where it listens if that is not the port; what to do, and its last lines.
// Port 0 is for one that listens where it should.
func (i *instance) Diagnosis(port int) string {
	var out []string
	select {
	case <-i.inner.Done():
		out = append(out, i.ending())
	default:
		if port != 0 {
			out = append(out, i.listening(port))
		}
	}
	if lines := i.tail.lines(); len(lines) > 0 {
		out = append(out, "Its last log lines:\n  "+strings.Join(lines, "\n  "))
	} else {
		out = append(out, "It wrote no log.")
	}
	return strings.Join(out, " ")
}

func (i *instance) ending() string {
	switch e := i.inner.Exit(); {
	case e.OOM:
		return i.outOfMemory() + " (--memory)."
	case e.Signal != 0:
		return fmt.Sprintf("The container was ended by signal %d.", e.Signal)
	case e.Code == 0:
		return "The container exited with code 0: its program ended by itself. A service is a server, which goes on listening on the port in the PORT variable; check the start command."
	default:
		return fmt.Sprintf("The container exited with code %d.", e.Code)
	}
}

func (i *instance) listening(port int) string {
	at, err := i.inner.Listening()
	if err != nil {
		return ""
	}
	var other []string
	for _, a := range at {
		if int(a.Port()) == port && a.Addr().IsLoopback() {
			return fmt.Sprintf("The container listens on %s, which can't be reached from outside it: listen on 0.0.0.0:%d.", a, port)
		}
		other = append(other, fmt.Sprint(a.Port()))
	}
	if len(other) > 0 {
		return fmt.Sprintf("The container listens on port %s, not on %d: make it listen on the port in the PORT variable, or deploy with --port %s.",
			strings.Join(other, ", "), port, other[0])
	}
	return "The container runs, but listens on no port."
}

// tailLines is how many of a container's last lines are kept for its diagnosis.
const tailLines = 10

// tail is the last lines of a container.
type tail struct {
	mu   sync.Mutex
	last []string
}

func (t *tail) add(l engine.Line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := l.Text
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	t.last = append(t.last, text)
	if len(t.last) > tailLines {
		t.last = t.last[1:]
	}
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.last...)
}
