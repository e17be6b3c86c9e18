// Package scale keeps as many instances of each revision as its requests need: none when there are none, one more when
// all are at their concurrency, more or fewer as package autoscale decides from what they did in the last minute.
//
// The gateway acquires a Lease for each request; the run reconciler has a new revision checked here. How an instance
// comes to be is its Backend's business, how HTTP gets there that of package gateway. One pool looks after the
// instances of one revision (pool.go); in it, slots.go has the places for requests and the queue for them, life.go what
// starts, ends and fails, spare.go the prepared instance. Starts are made in starts.go, running.go is a ready instance,
// cpu.go its throttling, probe.go and health.go its probes, keep.go what there should be. The Scaler looks after what
// pools share: places to start (gate.go), memory (memory.go), GPUs (gpu.go), prepared instances.
package scale

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// Backend makes instances.
type Backend interface {
	// Prepare makes everything ready for an instance of the revision, short of starting the user's process. Gpu is the
	// one that the instance has to itself, or nil.
	Prepare(ctx context.Context, rev run.Revision, gpu *run.GPU) (Instance, error)
}

// Instance is one container of a revision.
type Instance interface {
	ID() string
	Start(ctx context.Context) error
	// Dial connects to a port of the container, as a request from outside would.
	Dial(ctx context.Context, port int) (net.Conn, error)
	// Done is closed when the container's process has ended.
	Done() <-chan struct{}
	// OOM reports, once Done is closed, whether the kernel killed it for its memory.
	OOM() bool
	// Diagnosis says in words what is known of a container that does not answer: how it ended, where it listens, its
	// last log lines.
	Diagnosis(port int) string
	// Say writes a line of the platform's own into its log.
	Say(text string)
	// SetCPU changes the CPU limit, in millicores.
	SetCPU(millicores int64) error
	// Usage tells what it uses; after Done, what it used at its end.
	Usage() (Usage, error)
	// Stop ends the container: SIGTERM, the grace period, SIGKILL. It returns when nothing is left of it.
	Stop(ctx context.Context, grace time.Duration) error
}

// Usage is what an instance uses.
type Usage struct {
	Memory int64         // bytes now, without what can be dropped at once
	CPU    time.Duration // since it was made
}

// Config is what New needs.
type Config struct {
	Backend  Backend
	Max      int           // instances of one revision that sets no maximum; Cloud Run's default is 100
	Prepared int           // prepared instances kept for revisions at zero, in all: for those that had a request last
	Idle     time.Duration // how long an instance without requests stays; Cloud Run's is up to 15 min
	Starts   int           // instances that may be starting at once
	Memory   int64         // bytes that all instances may use together, by measure; 0 sets no bound
	GPUs     run.GPUs      // what revisions that want one get
	// Free returns the machine's available and whole memory in bytes; nil where it isn't known. When little is
	// available, idle instances and prepared ones go early.
	Free func() (available, whole int64, err error)
	// Transport returns what sends requests to one instance, at most concurrency at once, over connections that dial
	// opens; h2c: HTTP/2 without TLS. Nil where nobody sends any.
	Transport func(dial func(ctx context.Context) (net.Conn, error), h2c bool, concurrency int) Transport
	// Probe makes one attempt of a probe by HTTP or gRPC, which has its defaults, at ports that dial connects to.
	Probe func(ctx context.Context, dial func(ctx context.Context, port int) (net.Conn, error), probe run.Probe) error
	Now   func() time.Time
	Log   *slog.Logger
}

// stopGrace is the time between SIGTERM and SIGKILL, 10 s as Cloud Run's container contract says.
const stopGrace = 10 * time.Second

// maxPreparing bounds the instances that are being prepared for later at once.
const maxPreparing = 2

// Scaler is the instances of all revisions on this machine.
type Scaler struct {
	cfg       Config
	gate      *gate
	memory    *memory
	gpus      *gpus
	short     atomic.Bool   // memory is, as of the last look
	rounds    atomic.Uint64 // of measurements
	refill    atomic.Bool   // what is prepared may not be what should be
	kick      chan struct{} // the sweep looks at refill at once
	preparing chan struct{}
	ctx       context.Context // ends when the scaler is closed
	cancel    context.CancelFunc
	tasks     sync.WaitGroup // everything that runs in the background
	ending    atomic.Int64   // instances that are being stopped

	mu     sync.RWMutex
	pools  map[resource.Revision]*pool
	routed map[resource.Child][]resource.Revision // by service: what has a route
	closed bool
}

var _ run.Instances = (*Scaler)(nil)

// New returns a scaler without instances.
func New(cfg Config) *Scaler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Scaler{
		cfg:       cfg,
		gate:      newGate(cfg.Starts),
		ctx:       ctx,
		cancel:    cancel,
		kick:      make(chan struct{}, 1),
		preparing: make(chan struct{}, maxPreparing),
		memory:    &memory{budget: cfg.Memory, free: cfg.Free, reserved: make(map[*pool]*reservation)},
		gpus:      &gpus{all: cfg.GPUs, held: make(map[string]resource.Revision)},
		pools:     make(map[resource.Revision]*pool),
		routed:    make(map[resource.Child][]resource.Revision),
	}
	s.tasks.Go(s.sweep)
	return s
}

// pool returns the pool of a revision, a new one for a revision that is not known yet.
func (s *Scaler) pool(rev *run.Revision) (*pool, error) {
	s.mu.RLock()
	p := s.pools[rev.Name]
	s.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "The platform is stopping.")
	}
	if p = s.pools[rev.Name]; p == nil {
		p = newPool(s, *rev)
		s.pools[rev.Name] = p
	}
	return p, nil
}

// all returns the pools of now.
func (s *Scaler) all() []*pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*pool, 0, len(s.pools))
	for _, p := range s.pools {
		out = append(out, p)
	}
	return out
}

// Acquire returns a slot in a ready instance of the revision, and starts an instance if all are taken. It fails with
// ResourceExhausted when too many wait already, or when it has waited long at the maximum of instances, and with
// Unavailable or FailedPrecondition when an instance could not be started.
func (s *Scaler) Acquire(ctx context.Context, rev run.Revision) (*Lease, error) {
	p, err := s.pool(&rev)
	if err != nil {
		return nil, err
	}
	return p.acquire(ctx, false)
}

// EnsureInstance starts an instance of the revision, unless one is ready, and returns nil once its startup probe
// succeeds.
func (s *Scaler) EnsureInstance(ctx context.Context, rev run.Revision) error {
	p, err := s.pool(&rev)
	if err != nil {
		return err
	}
	lease, err := p.acquire(ctx, true)
	if err != nil {
		s.Drop(rev.Name) // nothing is kept of a revision that can't start
		return err
	}
	lease.Release()
	return nil
}

// Drop stops all instances of a revision. It returns at once; requests in flight end first.
func (s *Scaler) Drop(name resource.Revision) {
	s.mu.Lock()
	p := s.pools[name]
	delete(s.pools, name)
	s.mu.Unlock()
	if p != nil {
		p.retire()
		s.lookAgain()
	}
}

// lookAgain has the sweep see to prepared instances at once.
func (s *Scaler) lookAgain() {
	s.refill.Store(true)
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Publish tells which revisions a service's route leads to, and the bounds of the whole service: those revisions get
// what they need to start fast, the others lose it. It has the form of run.Routes.
func (s *Scaler) Publish(r run.Route) {
	var revs []*run.Revision
	var percents []int
	at := make(map[resource.Revision]int)
	add := func(rev *run.Revision, percent int) {
		i, ok := at[rev.Name]
		if !ok {
			i = len(revs)
			at[rev.Name] = i
			revs, percents = append(revs, rev), append(percents, 0)
		}
		percents[i] += percent
	}
	for i := range r.Targets {
		add(&r.Targets[i].Revision, r.Targets[i].Percent)
	}
	for _, tag := range slices.Sorted(maps.Keys(r.Tags)) {
		rev := r.Tags[tag]
		add(&rev, 0)
	}
	names := make([]resource.Revision, len(revs))
	for i, b := range shares(r.Scaling, percents) {
		names[i] = revs[i].Name
		if p, err := s.pool(revs[i]); err == nil { // else it is closing
			p.route(b)
		}
	}
	s.route(r.Service, names)
}

// Remove tells that a service is gone. Its revisions are dropped by themselves.
func (s *Scaler) Remove(service resource.Child) { s.route(service, nil) }

func (s *Scaler) route(service resource.Child, now []resource.Revision) {
	s.mu.Lock()
	before := s.routed[service]
	until := s.cfg.Now().Add(rollbackWindow)
	if now == nil {
		until = time.Time{} // the service is gone
		delete(s.routed, service)
	} else {
		s.routed[service] = now
	}
	var pools []*pool
	for _, name := range before {
		if p := s.pools[name]; p != nil && !slices.Contains(now, name) {
			p.unroute(until)
			pools = append(pools, p)
		}
	}
	for _, name := range now {
		if p := s.pools[name]; p != nil {
			pools = append(pools, p)
		}
	}
	s.mu.Unlock()
	for _, p := range pools { // at once: a revision with a minimum should not wait for the next sweep
		p.tend(s.cfg.Now(), s.short.Load())
	}
	s.lookAgain()
}

// route notes that a route leads to the revision, with its share of its service's bounds.
func (p *pool) route(share bounds) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routed, p.unrouted, p.share = true, false, share
}

// unroute notes that no route leads to the revision any more, and how long its idle instances stay. Requests that were
// on their way still get in.
func (p *pool) unroute(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routed, p.unrouted, p.stay, p.share = false, true, until, bounds{}
	p.unprepareLocked()
}

// Close stops every instance, after its requests or when ctx ends, and returns when none is left.
func (s *Scaler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	pools := s.pools
	s.pools = make(map[resource.Revision]*pool)
	s.mu.Unlock()
	s.cancel()
	for _, p := range pools {
		p.retire()
	}
	done := make(chan struct{})
	go func() { s.tasks.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
