package scale

import (
	"context"
	"net"
	"time"

	"giggle/run"
)

// running is a ready instance. Its fields are guarded by the pool's lock, where they change at all.
type running struct {
	Instance
	pool   *pool
	warm   *Lease // what every request that did not wait gets
	cpu    *cpu
	gpu    *run.GPU // nil for none
	always bool     // CPU between requests too
	ctx    context.Context
	cancel context.CancelFunc // ends its probes

	inflight int
	probes   int       // probes under way
	since    time.Time // since when it has been ready
	uses     uint64    // times that it ran out of requests
	seen     uint64    // uses when the timer looked last
	idle     time.Time // when that was; since then it has had no request, if uses is still the same
	boosted  bool      // the startup boost still holds
	unready  bool      // its readiness probe failed
	leaving  bool      // it gets no new request
	ended    bool
	armed    bool // the timer runs
	timer    *time.Timer
	boost    *time.Timer // ends the boost
	billed   meter
	usage    Usage // when it was looked at last
}

func (r *running) takes(most int) bool { return r.inflight < most && !r.leaving && !r.unready }

// idleBefore reports whether the last request ended before a time.
func (r *running) idleBefore(t time.Time) bool {
	return r.inflight == 0 && r.uses == r.seen && r.idle.Before(t)
}

// newRunningLocked puts an instance that has started to work.
func (p *pool) newRunningLocked(inst Instance, c *cpu, begin time.Time) *running {
	now := p.s.cfg.Now()
	r := &running{
		Instance: inst,
		pool:     p,
		cpu:      c,
		always:   p.rev.Template.CPUAlways,
		boosted:  p.rev.Template.StartupCPUBoost,
		idle:     now,
		since:    now,
	}
	r.ctx, r.cancel = context.WithCancel(p.s.ctx)
	r.warm = &Lease{Instance: inst.ID(), Transport: p.transport(inst), on: r}
	r.billed.begin(begin)
	if !r.always {
		r.billed.end(now)
	}
	r.armed = true
	r.timer = time.AfterFunc(throttleDelay, func() { p.settle(r) })
	if r.boosted {
		r.boost = time.AfterFunc(boostDuration, func() { p.endBoost(r) })
	}
	return r
}

// transport makes what sends requests to one instance: HTTP/1.1, or HTTP/2 without TLS when the port is named h2c.
func (p *pool) transport(inst Instance) Transport {
	if p.s.cfg.Transport == nil {
		return nil
	}
	c := p.rev.Template.Containers[0]
	return p.s.cfg.Transport(func(ctx context.Context) (net.Conn, error) { return inst.Dial(ctx, c.Port) },
		c.PortName == "h2c", p.slots.most)
}

// restLocked has the timer look at an instance that has nothing to do.
func (p *pool) restLocked(r *running) {
	if !r.armed && !r.ended && r.inflight+r.probes == 0 {
		r.armed = true
		r.timer.Reset(throttleDelay)
	}
}

// settle is what an instance's timer does: it notes that the instance is idle, and throttles one that has been for long
// enough.
func (p *pool) settle(r *running) {
	p.mu.Lock()
	now := p.s.cfg.Now()
	r.armed = false
	low := false
	switch {
	case r.ended || r.inflight+r.probes > 0: // the next to end arms the timer
	case r.uses != r.seen:
		r.seen, r.idle, p.used = r.uses, now, now
		if !r.always {
			r.billed.end(now)
		}
		p.restLocked(r)
	case r.always || r.boosted || r.leaving:
	default:
		low = true
		r.cpu.low.Store(true) // under the lock: the next request sees it
	}
	p.mu.Unlock()
	if low {
		r.cpu.throttle()
	}
}

// endBoost takes the startup boost back.
func (p *pool) endBoost(r *running) {
	p.mu.Lock()
	r.boosted = false
	p.restLocked(r)
	p.mu.Unlock()
	r.cpu.settle(p.limit)
}

// awake keeps an instance from being throttled while a probe asks it.
func (p *pool) awake(r *running, ask func()) {
	p.mu.Lock()
	r.probes++
	if !r.always {
		r.billed.begin(p.s.cfg.Now())
	}
	p.mu.Unlock()
	r.cpu.restore()
	ask()
	p.mu.Lock()
	defer p.mu.Unlock()
	r.probes--
	if !r.always && !r.leaving && !r.ended && r.inflight == 0 && r.uses == r.seen {
		r.billed.end(p.s.cfg.Now())
	}
	p.restLocked(r)
}

// watch takes an instance that ends by itself out of the pool. As long as there is an instance, Close waits here.
func (p *pool) watch(r *running) {
	<-r.Done()
	p.giveGPU(r.gpu)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.s.cfg.Now()
	if !r.leaving {
		p.s.cfg.Log.Warn("instance ended", "revision", p.rev.Name.ID, "instance", r.ID(), "why",
			r.Diagnosis(p.rev.Template.Containers[0].Port))
		p.failedLocked(r.Instance, now.Sub(r.since), endedError(r.ID()))
		p.stopLocked(r, 0)
	}
	r.ended = true
	r.billed.end(now)
	if u, err := r.Usage(); err == nil {
		r.usage = u
	}
	p.life.ended(r, r.OOM())
	if !p.retired && now.After(p.life.retryAt(demandDelay)) {
		p.startForWaitingLocked()
	}
}

// stopLocked takes an instance out of the pool and ends it in the background.
func (p *pool) stopLocked(r *running, grace time.Duration) {
	r.leaving = true
	if !p.slots.remove(r) {
		return
	}
	r.cancel()
	r.timer.Stop()
	if r.boost != nil {
		r.boost.Stop()
	}
	r.armed = true // nothing throttles it any more
	if !r.ended {
		p.life.ending = append(p.life.ending, r)
		r.billed.begin(p.s.cfg.Now())
	}
	p.s.refill.Store(true)
	p.s.ending.Add(1)
	p.s.tasks.Go(func() {
		defer p.s.ending.Add(-1)
		r.cpu.restore() // it has all its CPU to shut down
		if t := r.warm.Transport; t != nil {
			t.CloseIdleConnections()
		}
		if err := r.Stop(context.Background(), grace); err != nil {
			p.s.cfg.Log.Error("stop instance", "instance", r.ID(), "err", err)
		}
	})
}
