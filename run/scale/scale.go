// Package scale keeps as many instances of each revision as its requests need: none when there are none, one more
// when all are at their concurrency.
//
// The gateway acquires a Lease for each request; the run reconciler has a new revision checked here. How an instance
// comes to be is its Backend's business. It decides from what it sees at the moment of a request only; windows, CPU
// and panic mode (the autoscaler proper) come later behind the same Acquire.
package scale

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// Backend makes instances.
type Backend interface {
	// Prepare makes everything ready for an instance of the revision, short of starting the user's process.
	Prepare(ctx context.Context, rev run.Revision) (Instance, error)
}

// Instance is one container of a revision.
type Instance interface {
	ID() string
	Start(ctx context.Context) error
	// Dial connects to a port of the container, as a request from outside would.
	Dial(ctx context.Context, port int) (net.Conn, error)
	// Done is closed when the container's process has ended.
	Done() <-chan struct{}
	// Diagnosis says in words what is known of a container that does not answer: how it ended, where it listens, its
	// last log lines.
	Diagnosis(port int) string
	// Stop ends the container: SIGTERM, the grace period, SIGKILL. It returns when nothing is left of it.
	Stop(ctx context.Context, grace time.Duration) error
}

// Config is what New needs.
type Config struct {
	Backend  Backend
	Max      int           // instances of one revision that sets no maximum; Cloud Run's default is 100
	Prepared int           // prepared instances kept for revisions at zero, in all
	Idle     time.Duration // how long an instance without requests stays
	Starts   int           // instances that may be starting at once
	// Transport returns what sends requests to one instance, at most concurrency at once, over connections that dial
	// opens; h2c: HTTP/2 without TLS. Nil stands for net/http's. Its CloseIdleConnections is called if it has one.
	Transport func(dial func(ctx context.Context) (net.Conn, error), h2c bool, concurrency int) http.RoundTripper
	Now       func() time.Time
	Log       *slog.Logger
}

// maxWaiting bounds the requests that wait for an instance of one revision.
const maxWaiting = 1000

// grace is the time between SIGTERM and SIGKILL, 10 s as Cloud Run's container contract says.
const grace = 10 * time.Second

// Scaler is the instances of all revisions on this machine.
type Scaler struct {
	cfg    Config
	starts chan struct{}
	ctx    context.Context // ends when the scaler is closed
	cancel context.CancelFunc
	tasks  sync.WaitGroup // everything that runs in the background

	mu     sync.Mutex
	pools  map[string]*pool                   // by revision name
	routed map[string]map[string]run.Revision // by service, then revision name: what has a route
	closed bool
}

var _ run.Instances = (*Scaler)(nil)

// New returns a scaler without instances.
func New(cfg Config) *Scaler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Scaler{
		cfg: cfg, starts: make(chan struct{}, max(cfg.Starts, 1)), ctx: ctx, cancel: cancel,
		pools: make(map[string]*pool), routed: make(map[string]map[string]run.Revision),
	}
	s.tasks.Go(s.sweep)
	return s
}

// pool returns the pool of a revision, a new one for a revision that is not known yet.
func (s *Scaler) pool(rev run.Revision) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "The platform is stopping.")
	}
	key := rev.Name.String()
	p := s.pools[key]
	if p == nil {
		p = &pool{s: s, rev: rev}
		s.pools[key] = p
	}
	return p, nil
}

// Lease is the right to send one request to one instance.
type Lease struct {
	Instance  string            // its id
	Transport http.RoundTripper // sends to the instance, whatever host the request names
	Cold      bool              // the request waited for an instance to start
	Started   time.Duration     // what the instance's start took, until its startup probe succeeded
	release   func()
}

// NewLease returns a lease, for those who stand in for a Scaler.
func NewLease(instance string, transport http.RoundTripper, cold bool, release func()) *Lease {
	return &Lease{Instance: instance, Transport: transport, Cold: cold, release: release}
}

// Release gives the slot back. It is called once.
func (l *Lease) Release() { l.release() }

// Acquire returns a slot in a ready instance of the revision, and starts an instance if all are taken. It fails with
// ResourceExhausted when too many wait already, and with Unavailable when an instance could not be started.
func (s *Scaler) Acquire(ctx context.Context, rev run.Revision) (*Lease, error) {
	p, err := s.pool(rev)
	if err != nil {
		return nil, err
	}
	return p.acquire(ctx)
}

// Check starts an instance of the revision, unless one is ready, and returns nil once its startup probe succeeds.
func (s *Scaler) Check(ctx context.Context, rev run.Revision) error {
	p, err := s.pool(rev)
	if err != nil {
		return err
	}
	lease, err := p.acquire(ctx)
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
	p := s.pools[name.String()]
	delete(s.pools, name.String())
	s.mu.Unlock()
	if p != nil {
		p.retire()
	}
}

// Publish tells which revisions a service's route leads to: those get what they need to start fast, the others lose
// it. It has the form of run.Routes.
func (s *Scaler) Publish(r run.Route) {
	now := make(map[string]run.Revision)
	for _, t := range r.Targets {
		now[t.Name.String()] = t.Revision
	}
	for _, rev := range r.Tags {
		now[rev.Name.String()] = rev
	}
	s.route(r.Service.String(), now)
}

// Remove tells that a service is gone. Its revisions are dropped by themselves.
func (s *Scaler) Remove(service resource.Child) { s.route(service.String(), nil) }

func (s *Scaler) route(service string, now map[string]run.Revision) {
	s.mu.Lock()
	before := s.routed[service]
	if now == nil {
		delete(s.routed, service)
	} else {
		s.routed[service] = now
	}
	s.mu.Unlock()
	for name := range before {
		if _, still := now[name]; still {
			continue
		}
		s.mu.Lock()
		p := s.pools[name]
		s.mu.Unlock()
		if p != nil {
			p.unroute()
		}
	}
	s.tend() // at once: a revision with a minimum should not wait for the next sweep
}

// sweep stops what has been idle too long and prepares what is at zero, about once a second.
func (s *Scaler) sweep() {
	tick := time.NewTicker(max(min(s.cfg.Idle/4, time.Second), 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.tend()
		case <-s.ctx.Done():
			return
		}
	}
}

// tend does for every revision what its state asks for.
func (s *Scaler) tend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	prepared := 0
	for _, p := range s.pools {
		prepared += p.preparedCount()
	}
	for _, revs := range s.routed {
		for name, rev := range revs {
			p := s.pools[name]
			if p == nil {
				p = &pool{s: s, rev: rev}
				s.pools[name] = p
			}
			if p.keepMinimum() {
				continue
			}
			if prepared < s.cfg.Prepared && p.prepare() {
				prepared++
			}
		}
	}
	for _, p := range s.pools {
		p.stopIdle()
	}
}

// Instances returns how many instances are ready, starting and prepared, over all revisions.
func (s *Scaler) Instances() (ready, starting, prepared int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		p.mu.Lock()
		ready += len(p.ready)
		starting += p.starting
		if p.prepared != nil {
			prepared++
		}
		p.mu.Unlock()
	}
	return ready, starting, prepared
}

// Close stops every instance, after its requests or when ctx ends, and returns when none is left.
func (s *Scaler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	pools := s.pools
	s.pools = make(map[string]*pool)
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
