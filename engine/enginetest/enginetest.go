// Package enginetest is an engine without containers, for the tests of those that use one.
//
// An instance is an HTTP handler in this process. It has the methods of engine.Instance, so that an interface which
// the consumer declares is met by both. It isolates nothing and enforces no limit.
package enginetest

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// Engine makes instances.
type Engine struct {
	// App returns the application for a spec. It listens on the port that Port names, once the instance has started.
	App  func(engine.Spec) http.Handler
	Port int // 0 means 8080

	// Refuse, if set, is asked before each Prepare; its error is Prepare's.
	Refuse func(engine.Spec) error

	mu        sync.Mutex
	instances map[string]*Instance
}

// Prepare makes an instance, as engine.Engine does.
func (e *Engine) Prepare(ctx context.Context, s engine.Spec) (*Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if e.Refuse != nil {
		if err := e.Refuse(s); err != nil {
			return nil, err
		}
	}
	port := e.Port
	if port == 0 {
		port = 8080
	}
	i := &Instance{
		Spec:    s,
		e:       e,
		port:    port,
		cpu:     s.CPU,
		conns:   make(chan net.Conn),
		started: make(chan struct{}),
		done:    make(chan struct{}),
	}
	i.server.Handler = e.App(s)

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.instances[s.ID] != nil {
		return nil, fault.New(fault.AlreadyExists, "Instance %q exists already.", s.ID)
	}
	if e.instances == nil {
		e.instances = map[string]*Instance{}
	}
	e.instances[s.ID] = i
	return i, nil
}

// Instances lists those that have not ended.
func (e *Engine) Instances() []*Instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*Instance
	for _, i := range e.instances {
		out = append(out, i)
	}
	return out
}

// Instance is one instance.
type Instance struct {
	Spec engine.Spec

	e      *Engine
	port   int
	server http.Server
	conns  chan net.Conn

	start   sync.Once
	end     sync.Once
	started chan struct{}
	done    chan struct{}

	mu    sync.Mutex
	cpu   int64
	usage engine.Usage
	exit  engine.Exit
}

// Start starts the handler. Only the first call does anything.
func (i *Instance) Start(ctx context.Context) error {
	if err := i.ended(); err != nil {
		return err
	}
	i.start.Do(func() {
		close(i.started)
		go i.server.Serve(listener{i})
	})
	return nil
}

// Dial connects to the handler.
func (i *Instance) Dial(ctx context.Context, port int) (net.Conn, error) {
	if err := i.ended(); err != nil {
		return nil, err
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
	if !i.Started() || port != i.port {
		return nil, refused
	}
	ours, theirs := net.Pipe()
	select {
	case i.conns <- theirs:
		return ours, nil
	case <-i.done:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Listening lists the handler's port, once it has started.
func (i *Instance) Listening() ([]netip.AddrPort, error) {
	if err := i.ended(); err != nil || !i.Started() {
		return nil, err
	}
	return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(i.port))}, nil
}

// Done is closed when the instance has ended.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Exit tells how the instance ended; it is zero until then.
func (i *Instance) Exit() engine.Exit {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exit
}

// Stop ends the instance: at once, since a handler hears no signals.
func (i *Instance) Stop(ctx context.Context, grace time.Duration) error {
	i.Kill(engine.Exit{})
	return nil
}

// SetCPU changes the limit that CPU tells.
func (i *Instance) SetCPU(millicores int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cpu = millicores
	return nil
}

// Usage tells what SetUsage said.
func (i *Instance) Usage() (engine.Usage, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.usage, nil
}

// PID is 0: there is no process.
func (i *Instance) PID() int { return 0 }

// Kill ends the instance as if its process had: what a test does to see how a crash is taken.
func (i *Instance) Kill(exit engine.Exit) {
	i.end.Do(func() {
		i.mu.Lock()
		i.exit = exit
		i.mu.Unlock()
		i.e.mu.Lock()
		delete(i.e.instances, i.Spec.ID)
		i.e.mu.Unlock()
		close(i.done)
		i.server.Close()
	})
}

// Say writes a line as if the process had.
func (i *Instance) Say(at time.Time, stream, text string) {
	if i.Spec.Output != nil {
		i.Spec.Output(engine.Line{Time: at, Stream: stream, Text: text})
	}
}

// Started reports whether Start was called.
func (i *Instance) Started() bool {
	select {
	case <-i.started:
		return true
	default:
		return false
	}
}

// CPU is the present limit, in millicores.
func (i *Instance) CPU() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cpu
}

// SetUsage says what Usage will tell.
func (i *Instance) SetUsage(u engine.Usage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.usage = u
}

func (i *Instance) ended() error {
	select {
	case <-i.done:
		return fault.New(fault.Unavailable, "Instance %q has ended.", i.Spec.ID)
	default:
		return nil
	}
}
