package scale

import (
	"slices"
	"time"
)

// spare is the instance that is prepared for a revision at zero, to be started later. The pool's lock guards it.
type spare struct {
	inst      Instance // nil while there is none
	preparing bool
	after     time.Time // when to try again
}

// keepPrepared has instances prepared for the revisions at zero that had a request last, as many as there may be. Those
// with a GPU are not prepared: the container is made with its device, so an instance that does nothing would keep
// others from it, to save some 20 ms of a start that loads a model.
func (s *Scaler) keepPrepared(now time.Time) {
	type candidate struct {
		p    *pool
		used time.Time
	}
	var all []candidate
	for _, p := range s.all() {
		p.mu.Lock()
		if p.routed && !p.retired && p.kind == "" &&
			(p.spare.inst != nil || p.spare.preparing ||
				len(p.slots.ready)+p.life.starting == 0 && p.boundsLocked().min == 0) {
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
			c.p.unprepareLocked()
			c.p.mu.Unlock()
		}
	}
}

// prepare prepares an instance for a revision at zero, in the background.
func (p *pool) prepare(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.spare.preparing || p.spare.inst != nil || len(p.slots.ready)+p.life.starting > 0 {
		return
	}
	if now.Before(p.spare.after) {
		p.s.refill.Store(true) // to look again
		return
	}
	p.spare.preparing = true
	p.s.tasks.Go(func() {
		inst, err := p.s.prepareInTurn(p)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.spare.preparing = false
		switch {
		case err != nil:
			if p.s.ctx.Err() == nil {
				p.s.cfg.Log.Warn("prepare instance", "revision", p.rev.Name.ID, "err", err)
			}
			p.spare.after = p.s.cfg.Now().Add(prepareRetryDelay)
			p.s.refill.Store(true)
		case p.retired || p.unrouted || p.spare.inst != nil || p.s.short.Load():
			p.discard(inst)
			p.s.refill.Store(true)
		default:
			p.spare.inst = inst
		}
	})
}

// prepareInTurn prepares few at a time, and lets starts go first. While there are requests it rests in between for
// several times as long as it took: a hundred containers are seconds of CPU, which those requests would wait for.
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
	inst, err := s.cfg.Backend.Prepare(s.ctx, p.rev, nil)
	if now := s.cfg.Now(); s.serving(now) {
		rest = prepareRestFactor * now.Sub(begin)
	}
	return inst, err
}

// serving reports whether there are requests, or were just now.
func (s *Scaler) serving(now time.Time) bool {
	return slices.ContainsFunc(s.all(), func(p *pool) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.slots.waiting.n > 0 ||
			slices.ContainsFunc(p.slots.ready, func(r *running) bool { return !r.idleBefore(now.Add(-recentRequest)) })
	})
}

// unprepareLocked gives up the prepared instance.
func (p *pool) unprepareLocked() {
	if p.spare.inst != nil {
		p.discard(p.spare.inst)
		p.spare.inst = nil
	}
}

// dropPrepared gives up all prepared instances.
func (s *Scaler) dropPrepared() {
	for _, p := range s.all() {
		p.mu.Lock()
		p.unprepareLocked()
		p.mu.Unlock()
	}
	s.refill.Store(true)
}
