package scale

import (
	"sync"
	"time"

	"giggle/resource"
	"giggle/run"
)

// gpuPatience is how long the check of a new revision waits for a GPU at least: the revision before may still have it.
const gpuPatience = time.Minute

// gpus gives the machine's GPUs to instances, each to one at a time: from before the container is made until its last
// process is gone. Nothing of it is kept: when the platform was killed, the engine ends what was left before anything
// starts.
type gpus struct {
	all run.GPUs

	mu   sync.Mutex
	held map[string]resource.Revision // by UUID: who has it
}

// take takes a free GPU of a kind for a revision, nil where there is none.
func (g *gpus) take(kind string, by resource.Revision) *run.GPU {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.all.Have {
		x := &g.all.Have[i]
		if _, held := g.held[x.UUID]; !held && x.Is(kind) {
			g.held[x.UUID] = by
			return x
		}
	}
	return nil
}

func (g *gpus) give(x *run.GPU) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, x.UUID)
}

// takeGPULocked takes what one more instance needs, nil where that is nothing, and reports whether it is to be had.
func (p *pool) takeGPULocked() (gpu *run.GPU, ok bool) {
	if p.kind == "" {
		return nil, true
	}
	if gpu = p.s.gpus.take(p.kind, p.rev.Name); gpu == nil {
		return nil, false
	}
	m := &meter{}
	m.begin(p.s.cfg.Now())
	p.gpus[gpu.UUID] = m
	return gpu, true
}

// giveGPU gives the GPU of an instance that is gone back, and on to who waits for one.
func (p *pool) giveGPU(gpu *run.GPU) {
	if gpu == nil {
		return
	}
	p.mu.Lock()
	m := p.gpus[gpu.UUID]
	delete(p.gpus, gpu.UUID)
	m.end(p.s.cfg.Now())
	p.life.count.gpu += m.total
	p.mu.Unlock()
	p.s.gpus.give(gpu)
	for _, q := range p.s.all() {
		q.mu.Lock()
		if q.kind != "" && !q.retired && p.s.cfg.Now().After(q.life.retryAt(demandDelay)) {
			q.startForWaitingLocked()
		}
		q.mu.Unlock()
	}
}

// makeGPURoom stops, for each revision whose requests wait for a GPU that others have, an instance that has one and is
// idle: of any revision above its minimum, or of another revision of the same service, which a new one replaces.
func (s *Scaler) makeGPURoom() {
	if len(s.gpus.all.Have) == 0 {
		return
	}
	for _, p := range s.all() {
		p.mu.Lock()
		wants := p.kind != "" && !p.retired && p.slots.waiting.n > 0 && p.life.starting == 0 &&
			len(p.slots.ready) < p.boundsLocked().max
		p.mu.Unlock()
		if wants {
			s.evictGPU(p)
		}
	}
}

// evictGPU stops the instance that has been idle longest among those with a GPU that p could use, unless one of them is
// ending already.
func (s *Scaler) evictGPU(p *pool) {
	var victim *running
	now := s.cfg.Now()
	may := func(q *pool) bool {
		return len(q.slots.ready) > q.boundsLocked().min || q.rev.Name.Service == p.rev.Name.Service
	}
	for _, q := range s.all() {
		if q == p {
			continue
		}
		q.mu.Lock()
		for _, r := range q.life.ending {
			if r.gpu != nil && r.gpu.Is(p.kind) {
				q.mu.Unlock()
				return
			}
		}
		for _, r := range q.slots.ready {
			if r.gpu != nil && r.gpu.Is(p.kind) && may(q) && r.idleBefore(now) &&
				(victim == nil || r.idle.Before(victim.idle)) {
				victim = r
			}
		}
		q.mu.Unlock()
	}
	if victim == nil {
		return
	}
	q := victim.pool
	q.mu.Lock()
	defer q.mu.Unlock()
	if victim.inflight == 0 && may(q) {
		q.stopLocked(victim, stopGrace)
	}
}

// HeldGPU is one of the machine's GPUs and who has it.
type HeldGPU struct {
	run.GPU
	Holder resource.Revision // zero while nobody has it
}

// GPUs lists the machine's GPUs.
func (s *Scaler) GPUs() []HeldGPU {
	s.gpus.mu.Lock()
	defer s.gpus.mu.Unlock()
	out := make([]HeldGPU, len(s.gpus.all.Have))
	for i, x := range s.gpus.all.Have {
		out[i] = HeldGPU{x, s.gpus.held[x.UUID]}
	}
	return out
}
