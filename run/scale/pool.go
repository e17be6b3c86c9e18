package scale

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"giggle/fault"
	"giggle/run"
)

// pool is the instances of one revision.
type pool struct {
	s   *Scaler
	rev run.Revision

	mu        sync.Mutex
	ready     []*running
	starting  int
	waiting   []chan grant // first come, first served
	prepared  Instance
	preparing bool
	unrouted  bool // it had a route and has none any more: what is idle may go at once
	retired   bool
}

// running is a ready instance.
type running struct {
	Instance
	transport http.RoundTripper
	started   time.Duration // what its start took
	inflight  int
	idle      time.Time // since when it has had no request
	leaving   bool      // it gets no new request
}

// grant is the answer to a waiting request.
type grant struct {
	to  *running
	err error
}

func (p *pool) max() int {
	if m := p.rev.Template.Scaling.Max; m > 0 {
		return m
	}
	return p.s.cfg.Max
}

// acquire takes a slot, at once or after an instance has started.
func (p *pool) acquire(ctx context.Context) (*Lease, error) {
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "The revision is gone.")
	}
	if r := p.free(); r != nil {
		r.inflight++
		p.mu.Unlock()
		return p.lease(r, false), nil
	}
	if len(p.waiting) >= maxWaiting {
		p.mu.Unlock()
		return nil, fault.New(fault.ResourceExhausted, "Rate exceeded.")
	}
	turn := make(chan grant, 1)
	p.waiting = append(p.waiting, turn)
	p.startForWaiting()
	p.mu.Unlock()

	select {
	case g := <-turn:
		if g.err != nil {
			return nil, g.err
		}
		return p.lease(g.to, true), nil
	case <-ctx.Done():
		p.leave(turn)
		return nil, ctx.Err()
	}
}

// free returns the ready instance with the fewest requests that can take one more, or nil. p.mu is held.
func (p *pool) free() *running {
	var best *running
	for _, r := range p.ready {
		if !r.leaving && r.inflight < p.rev.Template.Concurrency && (best == nil || r.inflight < best.inflight) {
			best = r
		}
	}
	return best
}

// startForWaiting starts as many instances as the waiting requests fill, within the maximum. p.mu is held.
func (p *pool) startForWaiting() {
	for p.starting*p.rev.Template.Concurrency < len(p.waiting) && p.starting+len(p.ready) < p.max() {
		p.startOne()
	}
}

// startOne starts an instance in the background. p.mu is held.
func (p *pool) startOne() {
	p.starting++
	inst := p.prepared
	p.prepared = nil
	p.s.tasks.Go(func() { p.start(inst) })
}

// leave takes a request that no longer waits out of the queue; a slot that it was granted meanwhile goes on.
func (p *pool) leave(turn chan grant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.waiting {
		if w == turn {
			p.waiting = append(p.waiting[:i:i], p.waiting[i+1:]...)
			return
		}
	}
	if g := <-turn; g.to != nil {
		p.giveBack(g.to)
	}
}

func (p *pool) lease(r *running, cold bool) *Lease {
	l := NewLease(r.ID(), r.transport, cold, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.giveBack(r)
	})
	l.Started = r.started
	return l
}

// giveBack ends one request on an instance and hands the slot on. p.mu is held.
func (p *pool) giveBack(r *running) {
	r.inflight--
	p.serveWaiting()
	if r.inflight == 0 {
		r.idle = p.s.cfg.Now()
		if r.leaving {
			p.stop(r)
		}
	}
}

// serveWaiting grants free slots to waiting requests. p.mu is held.
func (p *pool) serveWaiting() {
	for len(p.waiting) > 0 {
		r := p.free()
		if r == nil {
			return
		}
		r.inflight++
		p.waiting[0] <- grant{to: r}
		p.waiting = p.waiting[1:]
	}
}

// start brings one instance up, from a prepared one if there is one, and puts it to work.
func (p *pool) start(inst Instance) {
	err := p.s.admit()
	begin := p.s.cfg.Now()
	if err == nil {
		inst, err = p.up(inst)
		<-p.s.starts
	} else if inst != nil {
		p.discard(inst)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting--
	if err != nil {
		if p.starting == 0 && len(p.ready) == 0 { // nobody else will serve those who wait
			for _, w := range p.waiting {
				w <- grant{err: err}
			}
			p.waiting = nil
		}
		return
	}
	r := &running{Instance: inst, transport: p.transport(inst), idle: p.s.cfg.Now()}
	r.started = r.idle.Sub(begin)
	p.ready = append(p.ready, r)
	p.s.tasks.Go(func() { p.watch(r) })
	if p.retired {
		p.stop(r)
		return
	}
	p.serveWaiting()
}

// admit waits for a place among those that start at once.
func (s *Scaler) admit() error {
	select {
	case s.starts <- struct{}{}:
		return nil
	case <-s.ctx.Done():
		return fault.New(fault.Unavailable, "The platform is stopping.")
	}
}

// up prepares an instance where none is prepared, starts it and waits for its startup probe.
func (p *pool) up(inst Instance) (Instance, error) {
	ctx := p.s.ctx
	if inst == nil {
		var err error
		if inst, err = p.s.cfg.Backend.Prepare(ctx, p.rev); err != nil {
			return nil, err
		}
	}
	err := inst.Start(ctx)
	if err == nil {
		err = p.probe(ctx, inst)
	}
	if err != nil {
		p.discard(inst)
		return nil, err
	}
	return inst, nil
}

// discard stops an instance that serves nobody, in the background.
func (p *pool) discard(inst Instance) {
	p.s.tasks.Go(func() {
		if err := inst.Stop(context.Background(), 0); err != nil {
			p.s.cfg.Log.Error("stop instance", "instance", inst.ID(), "err", err)
		}
	})
}

// transport sends requests to one instance: HTTP/1.1, or HTTP/2 without TLS when the port is named h2c.
func (p *pool) transport(inst Instance) http.RoundTripper {
	port, h2c := p.rev.Template.Containers[0].Port, p.rev.Template.Containers[0].PortName == "h2c"
	if p.s.cfg.Transport != nil {
		return p.s.cfg.Transport(func(ctx context.Context) (net.Conn, error) { return inst.Dial(ctx, port) }, h2c, p.rev.Template.Concurrency)
	}
	t := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return inst.Dial(ctx, port) },
		MaxIdleConnsPerHost: p.rev.Template.Concurrency,
		DisableCompression:  true,
		// An app may take as long as the request's own timeout; ours are in the gateway.
		IdleConnTimeout: p.s.cfg.Idle,
	}
	if h2c {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

// watch takes an instance that ends by itself out of the pool. As long as there is an instance, Close waits here.
func (p *pool) watch(r *running) {
	<-r.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.leaving {
		p.s.cfg.Log.Warn("instance ended", "revision", p.rev.Name.ID, "instance", r.ID(), "why", r.Diagnosis(p.rev.Template.Containers[0].Port))
		p.stop(r)
	}
	p.startForWaiting()
}

// stop takes an instance out of the pool and ends it in the background. p.mu is held.
func (p *pool) stop(r *running) {
	r.leaving = true
	for i, x := range p.ready {
		if x == r {
			p.ready = append(p.ready[:i:i], p.ready[i+1:]...)
			p.s.tasks.Go(func() {
				if t, ok := r.transport.(interface{ CloseIdleConnections() }); ok {
					t.CloseIdleConnections()
				}
				if err := r.Stop(context.Background(), grace); err != nil {
					p.s.cfg.Log.Error("stop instance", "instance", r.ID(), "err", err)
				}
			})
			return
		}
	}
}

// stopIdle stops the instances above the minimum that have been idle too long.
func (p *pool) stopIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, least := p.s.cfg.Now().Add(-p.s.cfg.Idle), p.rev.Template.Scaling.Min
	if p.unrouted {
		before, least = p.s.cfg.Now(), 0
	}
	for _, r := range append([]*running(nil), p.ready...) {
		if len(p.ready) > least && r.inflight == 0 && r.idle.Before(before) {
			p.stop(r)
		}
	}
}

// keepMinimum starts what is missing to the minimum of a revision with a route, and reports whether it has or needs one
// at all.
func (p *pool) keepMinimum() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unrouted = false
	for !p.retired && len(p.ready)+p.starting < p.rev.Template.Scaling.Min {
		p.startOne()
	}
	return len(p.ready)+p.starting > 0
}

// prepare prepares an instance for a revision at zero, in the background. It reports whether it began one.
func (p *pool) prepare() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.preparing || p.prepared != nil || len(p.ready)+p.starting > 0 {
		return false
	}
	p.preparing = true
	p.s.tasks.Go(func() {
		inst, err := p.s.cfg.Backend.Prepare(p.s.ctx, p.rev)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.preparing = false
		switch {
		case err != nil:
			p.s.cfg.Log.Warn("prepare instance", "revision", p.rev.Name.ID, "err", err)
		case p.retired || p.prepared != nil:
			p.discard(inst)
		default:
			p.prepared = inst
		}
	})
	return true
}

func (p *pool) preparedCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prepared != nil || p.preparing {
		return 1
	}
	return 0
}

// unroute notes that no route leads to the revision any more. Requests that were on their way still get in.
func (p *pool) unroute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unrouted = true
	p.unprepare()
}

// unprepare gives up the prepared instance. p.mu is held.
func (p *pool) unprepare() {
	if p.prepared != nil {
		p.discard(p.prepared)
		p.prepared = nil
	}
}

// retire ends the pool: nobody new gets in, and instances go when their requests have ended.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unprepare()
	p.retired = true
	for _, w := range p.waiting {
		w <- grant{err: fault.New(fault.Unavailable, "The revision is gone.")}
	}
	p.waiting = nil
	for _, r := range append([]*running(nil), p.ready...) {
		r.leaving = true
		if r.inflight == 0 {
			p.stop(r)
		}
	}
}
