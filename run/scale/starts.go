package scale

import (
	"context"
	"fmt"
	"sync"
	"time"

	"giggle/fault"
)

// slow is how long a start keeps its place among those that start at once: an app that takes longer waits for something
// else than this machine, and must not hold the others up.
const slow = 200 * time.Millisecond

// startOne starts an instance in the background, unless it needs a GPU and none is free. p.mu is held.
func (p *pool) startOne() bool {
	gpu, ok := p.takeGPU()
	if !ok {
		return false
	}
	p.starting++
	p.count.starts++
	if p.load == nil {
		p.load = &load{}
	}
	inst := p.prepared
	p.prepared = nil
	if inst != nil {
		p.s.refill.Store(true)
	}
	first := len(p.ready) == 0 && p.starting == 1
	p.s.tasks.Go(func() { p.start(inst, gpu, first) })
	return true
}

// start brings one instance up, from a prepared one if there is one, and puts it to work.
func (p *pool) start(inst Instance, gpu string, first bool) {
	err := p.s.admit(p, first)
	begin := p.s.cfg.Now()
	var c *cpu
	if err == nil {
		leave := sync.OnceFunc(p.s.gate.leave)
		timer := time.AfterFunc(slow, leave)
		inst, c, err = p.up(inst, gpu)
		timer.Stop()
		leave()
		p.s.memory.settle(p)
	} else if inst != nil {
		p.discard(inst)
	}
	if err != nil && gpu != "" {
		p.s.tasks.Go(func() {
			if inst != nil {
				<-inst.Done()
			}
			p.giveGPU(gpu)
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting--
	if err != nil {
		if p.s.ctx.Err() == nil {
			p.failed(inst, 0, err)
		}
		if p.starting == 0 && len(p.ready) == 0 { // nobody else will serve those who wait
			p.waiting.fail(err)
		}
		return
	}
	r := p.newRunning(inst, c, begin)
	r.gpu = gpu
	took := r.since.Sub(begin)
	if p.startTime == 0 {
		p.startTime = took
	}
	p.startTime += (took - p.startTime) / 8
	p.ready = append(p.ready, r)
	p.s.tasks.Go(func() { p.watch(r) })
	if p.retired {
		p.stop(r, grace)
		return
	}
	p.serveWaiting()
	p.startProbes(r)
}

// up prepares an instance where none is prepared, starts it and waits for its startup probe. A failed instance is
// returned for its log; it is being stopped.
func (p *pool) up(inst Instance, gpu string) (Instance, *cpu, error) {
	ctx := p.s.ctx
	if inst == nil {
		var err error
		if inst, err = p.s.cfg.Backend.Prepare(ctx, p.rev, gpu); err != nil {
			return nil, nil, err
		}
	}
	c := newCPU(inst, p.rev.Template, func(err error) {
		select {
		case <-inst.Done(): // its cgroup is gone
		default:
			p.s.cfg.Log.Warn("change the CPU limit", "instance", inst.ID(), "err", err)
		}
	})
	err := inst.Start(ctx)
	if err == nil {
		err = p.startup(ctx, inst)
	}
	if err != nil {
		p.discard(inst)
		return inst, nil, err
	}
	return inst, c, nil
}

// discard stops an instance that serves nobody, in the background.
func (p *pool) discard(inst Instance) {
	p.s.tasks.Go(func() {
		if err := inst.Stop(context.Background(), 0); err != nil {
			p.s.cfg.Log.Error("stop instance", "instance", inst.ID(), "err", err)
		}
		if inst.OOM() {
			p.mu.Lock()
			p.count.ooms++
			p.mu.Unlock()
		}
	})
}

// soon is within which an end counts as a failed start: the app ran, but hardly.
const soon = 10 * time.Second

// failed notes that an instance did not come up, or ended by itself after a time. Inst may be nil. p.mu is held.
func (p *pool) failed(inst Instance, after time.Duration, err error) {
	if after >= soon {
		p.failures = 0
	}
	p.failures++
	p.count.failures++
	p.failedAt, p.failure = p.s.cfg.Now(), err
	if p.failures < 3 {
		return
	}
	text := fmt.Sprintf("%d instances in a row failed or ended early. The next start without a request waits %s, one for a request %s.",
		p.failures, minimumDelay(p.failures), demandDelay(p.failures))
	p.s.cfg.Log.Warn("instances keep failing", "revision", p.rev.Name.ID, "failures", p.failures, "err", err)
	if inst != nil {
		inst.Say(text)
	}
}

func endedError(id string) error {
	return fault.New(fault.Unavailable, "The instance %s ended by itself.", id)
}

// retryAt is when the next start may be tried, given the delay after so many failures in a row. p.mu is held.
func (p *pool) retryAt(delay func(failures int) time.Duration) time.Time {
	if p.failures == 0 {
		return time.Time{}
	}
	return p.failedAt.Add(delay(p.failures))
}

// minimumDelay is the pause before an instance that only a minimum asks for: 1 s, 2 s, 4 s, … 5 min.
func minimumDelay(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 9), 5*time.Minute)
}

// demandDelay is the pause in which requests are refused instead of starting an instance: none after the first two
// failures, then 0.5 s, 1 s, … 10 s.
func demandDelay(failures int) time.Duration {
	if failures < 3 {
		return 0
	}
	return min(time.Second/2<<min(failures-3, 9), 10*time.Second)
}
