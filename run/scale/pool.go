package scale

import (
	"context"
	"sync"
	"time"

	"giggle/fault"
	"giggle/run"
	"giggle/run/scale/autoscale"
)

// pool is the instances of one revision.
//
// Its lock guards all that changes: what stands below mu here, and what changes in its slots, its life and its running
// instances, which have no locks of their own. Methods named …Locked are called with it held. The order of locks is
// Scaler.mu, one pool's mu, gpus.mu; nobody holds two pools' locks at once, and cpu.mu, memory.mu and gate.mu are taken
// with none of these held.
type pool struct {
	s     *Scaler
	rev   run.Revision
	limit int64  // of an instance's CPU, in millicores
	kind  string // of the GPU that each instance has, "" for none
	lack  error  // why there can be no instance: there is no such GPU

	mu       sync.Mutex
	slots    slots
	life     life
	spare    spare
	share    bounds    // of its service's bounds
	routed   bool      // a route leads to it
	unrouted bool      // it had a route and has none any more: what is idle may go
	stay     time.Time // until when the idle instances of an unrouted one stay
	retired  bool      // it gets no new request
	looking  bool      // a look at those who wait is due
	used     time.Time // when the last request ended, or the route came
	load     *load     // while there are instances

	gpus      map[string]*meter // the GPUs that its instances have, by UUID, and since when
	footprint int64             // the most memory that an instance was seen to use
}

// load is what was sampled of a pool's instances.
type load struct {
	requests, cpu autoscale.Window
	state         autoscale.State
	spent         time.Duration // CPU time since spentAt
	spentAt       time.Time
}

// maxWaiting bounds the requests that wait for an instance of one revision.
const maxWaiting = 1000

// minQueueWait is how long a request waits for a slot at least, where there is none to be had.
const minQueueWait = 10 * time.Second

func newPool(s *Scaler, rev run.Revision) *pool {
	p := &pool{
		s:     s,
		rev:   rev,
		limit: limitOf(rev.Template),
		slots: newSlots(max(rev.Template.Concurrency, 1), s.cfg.Now),
		used:  s.cfg.Now(),
	}
	if kind := rev.Template.GPU(); kind != "" && !s.cfg.GPUs.Emulated(kind) {
		p.kind, p.lack, p.gpus = kind, s.cfg.GPUs.Missing(kind), make(map[string]*meter)
	}
	return p
}

// boundsLocked are what holds for the revision now.
func (p *pool) boundsLocked() bounds {
	most := p.s.cfg.Max
	if p.kind != "" {
		most = p.s.cfg.GPUs.Count(p.kind)
	}
	b := combine(p.rev.Template.Scaling, p.share, most)
	if !p.routed {
		b.min = 0 // what nobody can reach need not wait for requests
	}
	return b
}

func gone() error { return fault.New(fault.Unavailable, "The revision is gone.") }

// acquire takes a slot, at once or after an instance has started. Insist tries a start also where starts have failed.
func (p *pool) acquire(ctx context.Context, insist bool) (*Lease, error) {
	p.mu.Lock()
	if r := p.slots.acquire(); r != nil {
		p.mu.Unlock()
		r.cpu.restore()
		return r.warm, nil
	}
	w, err := p.enqueueLocked(insist)
	wait := max(minQueueWait, p.life.startTime*7/2)
	if insist && p.kind != "" {
		wait = max(wait, gpuPatience)
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case g := <-w.turn:
			if g.err != nil {
				return nil, g.err
			}
			g.to.cpu.restore()
			l := *g.to.warm
			l.Cold = true
			return &l, nil
		case <-ctx.Done():
			p.leave(w)
			return nil, ctx.Err()
		case <-timer.C:
			if p.giveUp(w) {
				return nil, p.tooMany(insist)
			}
			timer.Reset(time.Second)
		}
	}
}

// enqueueLocked puts a request into the queue and starts what it needs.
func (p *pool) enqueueLocked(insist bool) (*waiter, error) {
	switch {
	case p.retired:
		return nil, gone()
	case p.lack != nil:
		return nil, p.lack
	case p.slots.waiting.n >= maxWaiting:
		return nil, fault.New(fault.ResourceExhausted, "Rate exceeded.")
	case !insist && len(p.slots.ready)+p.life.starting == 0 && p.s.cfg.Now().Before(p.life.retryAt(demandDelay)):
		return nil, p.life.failure // a start would fail again
	}
	w := p.slots.waiting.push()
	p.startForWaitingLocked()
	return w, nil
}

// tooMany is what a request hears that got no slot, and with insist the deploy of a revision.
func (p *pool) tooMany(insist bool) error {
	if insist && p.kind != "" {
		e := fault.New(fault.ResourceExhausted,
			"No GPU became free for a first instance within %s: this machine has %d for %s, and other instances use them all.",
			gpuPatience, p.s.cfg.GPUs.Count(p.kind), p.kind)
		e.Reason = "ResourcesUnavailable"
		return e
	}
	return fault.New(fault.ResourceExhausted, "Rate exceeded.")
}

// release ends one request on an instance.
func (p *pool) release(r *running) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(r)
}

// releaseLocked ends one request on an instance and sees to what runs out of them.
func (p *pool) releaseLocked(r *running) {
	if p.slots.release(r); r.inflight > 0 {
		return
	}
	r.uses++
	p.restLocked(r)
	if r.leaving {
		p.stopLocked(r, stopGrace)
	}
}

// leave takes a request that no longer waits out of the queue; a slot that it was granted meanwhile goes on.
func (p *pool) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots.waiting.remove(w) {
		return
	}
	if g := <-w.turn; g.to != nil {
		p.releaseLocked(g.to)
	}
}

// giveUp takes a request that has waited its time out of the queue, unless an instance is starting or it was granted a
// slot just now.
func (p *pool) giveUp(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life.starting == 0 && p.slots.waiting.remove(w)
}
