package scale

import (
	"slices"
	"time"

	"giggle/run/scale/autoscale"
)

const (
	// measureEvery is the time between two looks at what instances use.
	measureEvery = 2 * time.Second
	// wayBack is how long the instances of a revision that has lost its route stay: a rollback finds them, and they don't end while
	// the next revision's instances start.
	wayBack = 10 * time.Second
	// pressedIdle is how long an instance without requests stays while memory is short.
	pressedIdle = 5 * time.Second
	// restFactor bounds the share of a core that preparing takes while there are requests: a twenty-fifth for each that may be at it.
	restFactor = 24
	// servedLately is when the last request ended where there still are some.
	servedLately = 100 * time.Millisecond
	// again is when a revision is prepared anew after that failed.
	again = 30 * time.Second
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
	b := p.bounds()
	if p.retired || len(p.ready)+p.starting+p.waiting.n == 0 && b.min == 0 {
		p.load, p.preferred = nil, 1<<30
		return
	}
	desired := p.decide(now, b)
	if p.waiting.n > 0 && now.After(p.retryAt(demandDelay)) {
		p.startForWaiting()
	}
	for p.starting+len(p.ready) < min(desired, b.max) && now.After(p.retryAt(minimumDelay)) {
		if !p.startOne() {
			break
		}
	}
	p.stopIdle(now, b, desired, short)
}

// decide samples the pool and asks the autoscaler. p.mu is held.
func (p *pool) decide(now time.Time, b bounds) int {
	if p.load == nil {
		p.load = &load{}
	}
	l := p.load
	in := autoscale.Samples{
		Queued: p.unserved(now), Concurrency: p.most, Free: p.starting * p.most, Unreachable: p.unrouted,
	}
	for _, r := range p.ready {
		if !r.unready {
			in.Ready++
			in.Free += max(p.most-r.inflight, 0)
		}
	}
	l.requests.Record(now, float64(p.inflight+p.waiting.n))
	if span := now.Sub(l.spentAt); span >= time.Second {
		if !l.spentAt.IsZero() {
			l.cpu.Record(now, l.spent.Seconds()/span.Seconds())
		}
		l.spent, l.spentAt = 0, now
	}
	stable := min(p.s.cfg.Idle, time.Minute)
	in.Stable, in.Panic = l.requests.Average(now, stable), l.requests.Average(now, stable/10)
	in.CPU = l.cpu.Whole(now, stable)

	set := autoscale.Defaults(p.most, float64(p.limit)/1000)
	set.Stable = stable
	// Cloud Run aims higher than 60 % where there are few instances, without saying how much. Here it is all of one
	// instance, 80 % of two, 70 % of four: a single one is full before there is a second.
	set.Target = float64(p.most) * (0.6 + 0.4/max(float64(in.Ready), 1))
	set.Min, set.Max = b.min, b.max
	var desired int
	desired, l.state = autoscale.Decide(now, in, set, l.state)
	p.preferred = max(desired, 1)
	return desired
}

// stopIdle stops the instances that are more than wanted and have been idle too long, longest first; and all that are
// more than the minimum when none has had a request for that long. p.mu is held.
func (p *pool) stopIdle(now time.Time, b bounds, desired int, short bool) {
	idle := p.s.cfg.Idle
	if short {
		idle = min(idle, pressedIdle)
	}
	quiet := p.inflight+p.waiting.n == 0
	before := now.Add(-idle)
	if p.unrouted && (short || !now.Before(p.stay)) {
		before = now.Add(time.Nanosecond)
	}
	for _, r := range p.ready {
		quiet = quiet && r.idleBefore(before)
	}
	least := max(b.min, desired)
	if quiet || p.unrouted {
		least = b.min
	}
	for _, r := range slices.Backward(slices.Clone(p.ready)) { // the preferred ones last
		if len(p.ready) > least && r.idleBefore(before) {
			p.stop(r, grace)
		}
	}
}

// keepPrepared has instances prepared for the revisions at zero that had a request last, as many as there may be. Those with a GPU are
// not prepared: the container is made with its device, so an instance that does nothing would keep others from it, to save
// some 20 ms of a start that loads a model.
func (s *Scaler) keepPrepared(now time.Time) {
	type candidate struct {
		p    *pool
		used time.Time
	}
	var all []candidate
	for _, p := range s.all() {
		p.mu.Lock()
		if p.routed && !p.retired && p.kind == "" && (p.prepared != nil || p.preparing || len(p.ready)+p.starting == 0 && p.bounds().min == 0) {
			all = append(all, candidate{p, p.used})
		}
		p.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return b.used.Compare(a.used) })
	for i, c := range all {
		if i < s.cfg.Prepared {
			c.p.prepare(now)
		} else {
			c.p.mu.Lock()
			c.p.unprepare()
			c.p.mu.Unlock()
		}
	}
}

// prepare prepares an instance for a revision at zero, in the background.
func (p *pool) prepare(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.preparing || p.prepared != nil || len(p.ready)+p.starting > 0 {
		return
	}
	if now.Before(p.prepareAfter) {
		p.s.refill.Store(true) // to look again
		return
	}
	p.preparing = true
	p.s.tasks.Go(func() {
		inst, err := p.s.prepareInTurn(p)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.preparing = false
		switch {
		case err != nil:
			if p.s.ctx.Err() == nil {
				p.s.cfg.Log.Warn("prepare instance", "revision", p.rev.Name.ID, "err", err)
			}
			p.prepareAfter = p.s.cfg.Now().Add(again)
			p.s.refill.Store(true)
		case p.retired || p.unrouted || p.prepared != nil || p.s.short.Load():
			p.discard(inst)
			p.s.refill.Store(true)
		default:
			p.prepared = inst
		}
	})
}

// prepareInTurn prepares few at a time, and lets starts go first. While there are requests it rests in between for several times
// as long as it took: a hundred containers are seconds of CPU, which those requests would wait for.
func (s *Scaler) prepareInTurn(p *pool) (Instance, error) {
	select {
	case s.preparing <- struct{}{}:
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	var rest time.Duration
	defer func() {
		if rest == 0 {
			<-s.preparing
		} else {
			time.AfterFunc(rest, func() { <-s.preparing })
		}
	}()
	for s.gate.busy() {
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return nil, s.ctx.Err()
		}
	}
	begin := s.cfg.Now()
	inst, err := s.cfg.Backend.Prepare(s.ctx, p.rev, "")
	if now := s.cfg.Now(); s.serving(now) {
		rest = restFactor * now.Sub(begin)
	}
	return inst, err
}

// serving reports whether there are requests, or were just now.
func (s *Scaler) serving(now time.Time) bool {
	return slices.ContainsFunc(s.all(), func(p *pool) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waiting.n > 0 || slices.ContainsFunc(p.ready, func(r *running) bool { return !r.idleBefore(now.Add(-servedLately)) })
	})
}

// unprepare gives up the prepared instance. p.mu is held.
func (p *pool) unprepare() {
	if p.prepared != nil {
		p.discard(p.prepared)
		p.prepared = nil
	}
}

// dropPrepared gives up all prepared instances.
func (s *Scaler) dropPrepared() {
	for _, p := range s.all() {
		p.mu.Lock()
		p.unprepare()
		p.mu.Unlock()
	}
	s.refill.Store(true)
}

// retire ends the pool: nobody new gets in, and instances go when their requests have ended.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unprepare()
	p.retired = true
	p.waiting.fail(gone())
	for _, r := range slices.Clone(p.ready) {
		r.leaving = true
		if r.inflight == 0 {
			p.stop(r, grace)
		}
	}
}
