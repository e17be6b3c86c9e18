package scale

import (
	"fmt"
	"time"

	"giggle/run"
)

// startProbesLocked has a ready instance's liveness and readiness looked after until it is stopped.
func (p *pool) startProbesLocked(r *running) {
	c := p.rev.Template.Containers[0]
	if c.Liveness != nil {
		pr := c.Liveness.WithDefaults(c.Port)
		p.s.tasks.Go(func() { p.liveness(r, pr) })
	}
	if c.Readiness != nil {
		pr := *c.Readiness
		if pr.SuccessThreshold == 0 {
			pr.SuccessThreshold = 2 // the default of this probe
		}
		pr = pr.WithDefaults(c.Port)
		p.s.tasks.Go(func() { p.readiness(r, pr) })
	}
}

// repeat makes an attempt each period, the first after the initial delay, until told to stop or the instance goes. An
// attempt has the instance's CPU, as on Cloud Run.
func (p *pool) repeat(r *running, pr run.Probe, result func(err error) (more bool)) {
	period := time.Duration(pr.Period) * time.Second
	for wait := time.Duration(pr.InitialDelay) * time.Second; sleep(r.ctx, r.Done(), wait); {
		begin := p.s.cfg.Now()
		var err error
		p.awake(r, func() { err = p.s.attempt(r.ctx, r.Instance, pr) })
		select {
		case <-r.ctx.Done():
			return
		case <-r.Done():
			return
		default:
		}
		if !result(err) {
			return
		}
		wait = max(period-p.s.cfg.Now().Sub(begin), 0)
	}
}

// liveness shuts an instance down that has failed its probe often enough in a row. Its requests end with it; another
// instance starts when it is needed (https://cloud.google.com/run/docs/configuring/healthchecks).
func (p *pool) liveness(r *running, pr run.Probe) {
	failures := 0
	p.repeat(r, pr, func(err error) bool {
		if err == nil {
			failures = 0
			return true
		}
		if failures++; failures < pr.FailureThreshold {
			return true
		}
		r.Say(fmt.Sprintf("LIVENESS %s probe failed %s consecutively for container %q on %s. The instance has been shut down.",
			pr.Kind(), times(failures), p.container(), where(pr)))
		p.s.cfg.Log.Warn("liveness probe failed", "revision", p.rev.Name.ID, "instance", r.ID(), "err", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.leaving {
			return false
		}
		p.failedLocked(r.Instance, p.s.cfg.Now().Sub(r.since), endedError(r.ID()))
		p.stopLocked(r, 0)
		p.startForWaitingLocked()
		return false
	})
}

// readiness keeps new requests from an instance from when it has failed its probe often enough until it has succeeded
// often enough.
func (p *pool) readiness(r *running, pr run.Probe) {
	failures, successes := 0, 0
	p.repeat(r, pr, func(err error) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			successes = 0
			if failures++; failures >= pr.FailureThreshold && !r.unready {
				r.unready = true
				p.say(r, fmt.Sprintf("READINESS %s probe failed %s consecutively for container %q on %s. The instance will not receive new requests.",
					pr.Kind(), times(failures), p.container(), where(pr)))
			}
			return true
		}
		failures = 0
		if successes++; successes >= pr.SuccessThreshold && r.unready {
			r.unready = false
			p.say(r, fmt.Sprintf("READINESS %s probe succeeded after %s for container %q on %s. The instance will receive new requests.",
				pr.Kind(), attempts(successes), p.container(), where(pr)))
			p.slots.serve()
		}
		return true
	})
}

// say writes into an instance's log without making those wait who need the pool.
func (p *pool) say(r *running, text string) { p.s.tasks.Go(func() { r.Say(text) }) }
