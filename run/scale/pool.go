package scale

import (
	"context"
	"math"
	"sync"
	"time"

	"giggle/fault"
	"giggle/run"
	"giggle/run/scale/autoscale"
)

// pool is the instances of one revision.
type pool struct {
	s     *Scaler
	rev   run.Revision
	most  int // requests at once in one instance
	limit int64
	kind  string // of the GPU that each instance has, "" for none
	lack  error  // why there can be no instance: there is no such GPU

	mu        sync.Mutex
	share     bounds    // of its service's bounds
	routed    bool      // a route leads to it
	unrouted  bool      // it had a route and has none any more: what is idle may go
	stay      time.Time // until when the idle instances of an unrouted one stay
	retired   bool
	ready     []*running
	ending    []*running // being stopped
	preferred int        // as many of ready, from the first on, get requests as long as they have slots
	next      int        // where the search for a slot begins among many
	inflight  int
	starting  int
	waiting   queue
	flow      flow
	looking   bool      // a look at those who wait is due
	used      time.Time // when the last request ended, or the route came
	load      *load     // while there are instances

	gpus         map[string]*meter // the GPUs that its instances have, by UUID, and since when
	prepared     Instance
	preparing    bool
	prepareAfter time.Time // when to try again

	startTime time.Duration // average of the starts so far
	footprint int64         // the most memory that an instance was seen to use
	failures  int           // starts and instances that failed in a row
	failedAt  time.Time
	failure   error
	count     counters
}

// load is what was sampled of a pool's instances.
type load struct {
	requests, cpu autoscale.Window
	state         autoscale.State
	spent         time.Duration // CPU time since spentAt
	spentAt       time.Time
}

// counters add up over the life of a pool.
type counters struct {
	starts, failures, ooms int
	billed                 time.Duration // of instances that have ended
	cpu                    time.Duration
	gpu                    time.Duration // of GPUs that were given back
}

// maxWaiting bounds the requests that wait for an instance of one revision.
const maxWaiting = 1000

// leastWait is how long a request waits for a slot at least, where there is none to be had.
const leastWait = 10 * time.Second

func newPool(s *Scaler, rev run.Revision) *pool {
	p := &pool{s: s, rev: rev, most: max(rev.Template.Concurrency, 1), limit: limitOf(rev.Template), preferred: math.MaxInt, used: s.cfg.Now()}
	if kind := rev.Template.GPU(); kind != "" && !s.cfg.GPUs.Emulated(kind) {
		p.kind, p.lack, p.gpus = kind, s.cfg.GPUs.Missing(kind), make(map[string]*meter)
	}
	return p
}

// bounds are what holds for the revision now. p.mu is held.
func (p *pool) bounds() bounds {
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
	if r := p.free(); r != nil {
		p.take(r)
		p.mu.Unlock()
		r.cpu.restore()
		return r.warm, nil
	}
	w, err := p.enqueue(insist)
	wait := max(leastWait, p.startTime*7/2)
	if insist && p.kind != "" {
		wait = max(wait, deployPatience)
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

// enqueue puts a request into the queue and starts what it needs. p.mu is held.
func (p *pool) enqueue(insist bool) (*waiter, error) {
	switch {
	case p.retired:
		return nil, gone()
	case p.lack != nil:
		return nil, p.lack
	case p.waiting.n >= maxWaiting:
		return nil, fault.New(fault.ResourceExhausted, "Rate exceeded.")
	case !insist && len(p.ready)+p.starting == 0 && p.s.cfg.Now().Before(p.retryAt(demandDelay)):
		return nil, p.failure // a start would fail again
	}
	w := p.waiting.push()
	p.startForWaiting()
	return w, nil
}

// tooMany is what a request hears that got no slot, and with insist the deploy of a revision.
func (p *pool) tooMany(insist bool) error {
	if insist && p.kind != "" {
		e := fault.New(fault.ResourceExhausted, "No GPU became free for a first instance within %s: this machine has %d for %s, and other instances use them all.",
			deployPatience, p.s.cfg.GPUs.Count(p.kind), p.kind)
		e.Reason = "ResourcesUnavailable"
		return e
	}
	return fault.New(fault.ResourceExhausted, "Rate exceeded.")
}

// free returns a ready instance with a free slot, or nil: of few the one with the fewest requests, of many the better of
// two. Those beyond the preferred ones get a request only when the others are full, so that they become idle. p.mu is
// held.
func (p *pool) free() *running {
	n := min(len(p.ready), p.preferred)
	if n > 8 {
		p.next++
		a, b := p.ready[p.next%n], p.ready[(p.next+n/2)%n]
		if b.inflight < a.inflight {
			a = b
		}
		if a.takes(p.most) {
			return a
		}
	}
	if r := least(p.ready[:n], p.most); r != nil {
		return r
	}
	return least(p.ready[n:], p.most)
}

func least(among []*running, most int) (best *running) {
	for _, r := range among {
		if r.takes(most) && (best == nil || r.inflight < best.inflight) {
			best = r
		}
	}
	return best
}

// take gives a request to an instance. p.mu is held.
//
// The clock is looked at only after a pause: on some machines that costs more than all the rest of a request here.
func (p *pool) take(r *running) {
	p.inflight++
	if r.inflight++; !r.always && r.billed.since.IsZero() {
		r.billed.begin(p.s.cfg.Now())
	}
}

// release ends one request on an instance.
func (p *pool) release(r *running) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveBack(r)
}

// giveBack ends one request on an instance and hands the slot on. p.mu is held.
func (p *pool) giveBack(r *running) {
	p.inflight--
	r.inflight--
	p.flow.ended++
	if p.waiting.n > 0 {
		p.serveWaiting()
	}
	if r.inflight > 0 {
		return
	}
	r.uses++
	p.rest(r)
	if r.leaving {
		p.stop(r, grace)
	}
}

// serveWaiting grants free slots to waiting requests. p.mu is held.
func (p *pool) serveWaiting() {
	for p.waiting.n > 0 {
		r := p.free()
		if r == nil {
			return
		}
		p.take(r)
		p.waiting.grant(grant{to: r})
	}
}

// leave takes a request that no longer waits out of the queue; a slot that it was granted meanwhile goes on.
func (p *pool) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.remove(w) {
		return
	}
	if g := <-w.turn; g.to != nil {
		p.giveBack(g.to)
	}
}

// giveUp takes a request that has waited its time out of the queue, unless an instance is starting or it was granted a
// slot just now.
func (p *pool) giveUp(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starting == 0 && p.waiting.remove(w)
}
