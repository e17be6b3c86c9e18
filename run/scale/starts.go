package scale

import (
	"context"
	"fmt"
	"sync"
	"time"

	"giggle/fault"
	"giggle/run"
)

// startPlaceHold is how long a start keeps its place among those that start at once: an app that takes longer waits for
// something else than this machine, and must not hold the others up.
const startPlaceHold = 200 * time.Millisecond

// startOneLocked starts an instance in the background, unless it needs a GPU and none is free.
func (p *pool) startOneLocked() bool {
	gpu, ok := p.takeGPULocked()
	if !ok {
		return false
	}
	p.life.begin()
	if p.load == nil {
		p.load = &load{}
	}
	inst := p.spare.inst
	p.spare.inst = nil
	if inst != nil {
		p.s.refill.Store(true)
	}
	first := len(p.slots.ready) == 0 && p.life.starting == 1
	p.s.tasks.Go(func() { p.start(inst, gpu, first) })
	return true
}

// start brings one instance up, from a prepared one if there is one, and puts it to work.
func (p *pool) start(inst Instance, gpu *run.GPU, first bool) {
	err := p.s.admit(p, first)
	begin := p.s.cfg.Now()
	var c *cpu
	if err == nil {
		leave := sync.OnceFunc(p.s.gate.leave)
		timer := time.AfterFunc(startPlaceHold, leave)
		inst, c, err = p.up(inst, gpu)
		timer.Stop()
		leave()
		p.s.memory.settle(p)
	} else if inst != nil {
		p.discard(inst)
	}
	if err != nil && gpu != nil {
		p.s.tasks.Go(func() {
			if inst != nil {
				<-inst.Done()
			}
			p.giveGPU(gpu)
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.life.starting--
		if p.s.ctx.Err() == nil {
			p.failedLocked(inst, 0, err)
		}
		if p.life.starting == 0 && len(p.slots.ready) == 0 { // nobody else will serve those who wait
			p.slots.waiting.fail(err)
		}
		return
	}
	r := p.newRunningLocked(inst, c, begin)
	r.gpu = gpu
	p.life.came(r.since.Sub(begin))
	p.slots.ready = append(p.slots.ready, r)
	p.s.tasks.Go(func() { p.watch(r) })
	if p.retired {
		p.stopLocked(r, stopGrace)
		return
	}
	p.slots.serve()
	p.startProbesLocked(r)
}

// up prepares an instance where none is prepared, starts it and waits for its startup probe. A failed instance is
// returned for its log; it is being stopped.
func (p *pool) up(inst Instance, gpu *run.GPU) (Instance, *cpu, error) {
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
	p.s.ending.Add(1)
	p.s.tasks.Go(func() {
		defer p.s.ending.Add(-1)
		if err := inst.Stop(context.Background(), 0); err != nil {
			p.s.cfg.Log.Error("stop instance", "instance", inst.ID(), "err", err)
		}
		if inst.OOM() {
			p.mu.Lock()
			p.life.count.ooms++
			p.mu.Unlock()
		}
	})
}

// failedLocked notes that an instance did not come up, or ended by itself after a time. Inst may be nil.
func (p *pool) failedLocked(inst Instance, after time.Duration, err error) {
	if !p.life.failed(p.s.cfg.Now(), after, err) {
		return
	}
	n := p.life.failures
	text := fmt.Sprintf("%d instances in a row failed or ended early. The next start without a request waits %s, one for a request %s.",
		n, minimumDelay(n), demandDelay(n))
	p.s.cfg.Log.Warn("instances keep failing", "revision", p.rev.Name.ID, "failures", n, "err", err)
	if inst != nil {
		inst.Say(text)
	}
}

func endedError(id string) error {
	return fault.New(fault.Unavailable, "The instance %s ended by itself.", id)
}
