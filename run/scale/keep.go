package scale

import (
	"math"
	"slices"
	"time"

	"giggle/run/scale/autoscale"
)

const (
	// measureEvery is the time between two looks at what instances use.
	measureEvery = 2 * time.Second
	// rollbackWindow is how long the instances of a revision that has lost its route stay: a rollback finds them, and
	// they don't end while the next revision's instances start.
	rollbackWindow = 10 * time.Second
	// idleWhenShort is how long an instance without requests stays while memory is short.
	idleWhenShort = 5 * time.Second
	// prepareRestFactor bounds the share of a core that preparing takes while there are requests: a twenty-fifth for
	// each that may be at it.
	prepareRestFactor = 24
	// recentRequest is when the last request ended where there still are some.
	recentRequest = 100 * time.Millisecond
	// prepareRetryDelay is when a revision is prepared again after that failed.
	prepareRetryDelay = 30 * time.Second
)

// spend adds CPU time that instances used since the last look.
func (l *load) spend(d time.Duration) { l.spent += max(d, 0) }

// sweep tends to all pools about once a second.
func (s *Scaler) sweep() {
	tick := time.NewTicker(max(min(s.cfg.Idle/4, time.Second), 10*time.Millisecond))
	defer tick.Stop()
	var measured time.Time
	for {
		select {
		case <-tick.C:
		case <-s.kick:
			if !s.short.Load() && s.refill.Swap(false) {
				s.keepPrepared(s.cfg.Now())
			}
			continue
		case <-s.ctx.Done():
			return
		}
		if now := s.cfg.Now(); now.Sub(measured) >= measureEvery {
			measured = now
			s.measure()
			s.short.Store(s.memory.pressure())
		}
		s.tend()
	}
}

// tend does for every revision what its state asks for.
func (s *Scaler) tend() {
	now, short := s.cfg.Now(), s.short.Load()
	for _, p := range s.all() {
		p.tend(now, short)
	}
	s.makeGPURoom()
	switch {
	case short:
		s.dropPrepared()
	case s.refill.Swap(false):
		s.keepPrepared(now)
	}
}

// tend samples the pool's load, starts what is missing and stops what is idle.
func (p *pool) tend(now time.Time, short bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.boundsLocked()
	if p.retired || len(p.slots.ready)+p.life.starting+p.slots.waiting.n == 0 && b.min == 0 {
		p.load, p.slots.preferred = nil, math.MaxInt
		return
	}
	desired := p.decideLocked(now, b)
	if p.slots.waiting.n > 0 && now.After(p.life.retryAt(demandDelay)) {
		p.startForWaitingLocked()
	}
	for p.life.starting+len(p.slots.ready) < min(desired, b.max) && now.After(p.life.retryAt(minimumDelay)) {
		if !p.startOneLocked() {
			break
		}
	}
	p.stopIdleLocked(now, b, desired, short)
}

// decideLocked samples the pool and asks the autoscaler.
func (p *pool) decideLocked(now time.Time, b bounds) int {
	if p.load == nil {
		p.load = &load{}
	}
	l := p.load
	ready, free := p.slots.serving()
	in := autoscale.Samples{
		Queued:      p.slots.unserved(p.life.startTime),
		Concurrency: p.slots.most,
		Ready:       ready,
		Free:        free + p.life.starting*p.slots.most,
		Unreachable: p.unrouted,
	}
	l.requests.Record(now, float64(p.slots.busy()))
	if span := now.Sub(l.spentAt); span >= time.Second {
		if !l.spentAt.IsZero() {
			l.cpu.Record(now, l.spent.Seconds()/span.Seconds())
		}
		l.spent, l.spentAt = 0, now
	}
	stable := min(p.s.cfg.Idle, time.Minute)
	in.Stable, in.Panic = l.requests.Average(now, stable), l.requests.Average(now, stable/10)
	in.CPU = l.cpu.Whole(now, stable)

	set := autoscale.Defaults(p.slots.most, float64(p.limit)/1000)
	set.Stable = stable
	// Cloud Run aims higher than 60 % where there are few instances, without saying how much. Here it is all of one
	// instance, 80 % of two, 70 % of four: a single one is full before there is a second.
	set.Target = float64(p.slots.most) * (0.6 + 0.4/max(float64(in.Ready), 1))
	set.Min, set.Max = b.min, b.max
	var desired int
	desired, l.state = autoscale.Decide(now, in, set, l.state)
	p.slots.preferred = max(desired, 1)
	return desired
}

// stopIdleLocked stops the instances that are more than wanted and have been idle too long, longest first; and all that
// are more than the minimum when none has had a request for that long.
func (p *pool) stopIdleLocked(now time.Time, b bounds, desired int, short bool) {
	idle := p.s.cfg.Idle
	if short {
		idle = min(idle, idleWhenShort)
	}
	quiet := p.slots.busy() == 0
	before := now.Add(-idle)
	if p.unrouted && (short || !now.Before(p.stay)) {
		before = now.Add(time.Nanosecond)
	}
	for _, r := range p.slots.ready {
		quiet = quiet && r.idleBefore(before)
	}
	least := max(b.min, desired)
	if quiet || p.unrouted {
		least = b.min
	}
	for _, r := range slices.Backward(slices.Clone(p.slots.ready)) { // the preferred ones last
		if len(p.slots.ready) > least && r.idleBefore(before) {
			p.stopLocked(r, stopGrace)
		}
	}
}

// retire ends the pool: nobody new gets in, and instances go when their requests have ended.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unprepareLocked()
	p.retired = true
	p.slots.waiting.fail(gone())
	for _, r := range slices.Clone(p.slots.ready) {
		r.leaving = true
		if r.inflight == 0 {
			p.stopLocked(r, stopGrace)
		}
	}
}
