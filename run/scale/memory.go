package scale

import (
	"context"
	"sync"
	"time"

	"giggle/fault"
)

const (
	// leastFootprint is what an instance is taken to need before one of its revision was seen.
	leastFootprint = 16 << 20
	// preparedFootprint is what a prepared container takes (measured: 2.4 MB of which 0.4 are its own).
	preparedFootprint = 1 << 20
	// memoryPatience is how long a start waits for memory.
	memoryPatience = 10 * time.Second
	// pressureShare is the share of the budget from which on idle instances and prepared ones go early.
	pressureShare = 0.9
)

// memory is the machine's memory that instances may use together. Limits are ceilings and may add up to more: what
// counts is what was measured, and for instances that are starting what others of their revision used.
type memory struct {
	budget int64                                    // bytes; 0 sets no bound
	free   func() (available, all int64, err error) // of the machine; nil where it isn't known

	mu       sync.Mutex
	used     int64 // measured last, of all instances
	reserved map[*pool]*reservation
}

// reservation is what starting instances of a pool are taken to need.
type reservation struct {
	n     int
	bytes int64
}

// reserve takes memory for a starting instance, and reports whether there is enough.
func (m *memory) reserve(p *pool, need int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget > 0 && m.used+m.sumLocked()+need > m.budget {
		return false
	}
	r := m.reserved[p]
	if r == nil {
		r = &reservation{}
		m.reserved[p] = r
	}
	r.n++
	r.bytes += need
	return true
}

// settle ends one reservation of a pool: the instance is there, to be measured, or has failed.
func (m *memory) settle(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reserved[p]
	if r == nil {
		return
	}
	share := r.bytes / int64(r.n)
	m.used += share // until it is measured
	r.bytes -= share
	if r.n--; r.n == 0 {
		delete(m.reserved, p)
	}
}

// sumLocked is what is reserved.
func (m *memory) sumLocked() (n int64) {
	for _, r := range m.reserved {
		n += r.bytes
	}
	return n
}

// measured notes what all instances use.
func (m *memory) measured(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = bytes
}

// pressure reports whether memory is short: the budget is nearly used up, or the machine has less than a twentieth
// left.
func (m *memory) pressure() bool {
	m.mu.Lock()
	tight := m.budget > 0 && float64(m.used+m.sumLocked()) > pressureShare*float64(m.budget)
	m.mu.Unlock()
	if tight || m.free == nil {
		return tight
	}
	available, all, err := m.free()
	return err == nil && available < all/20
}

// admit waits for a place among those that start at once, and for memory.
func (s *Scaler) admit(p *pool, first bool) error {
	if err := s.gate.enter(s.ctx, first); err != nil {
		return fault.New(fault.Unavailable, "The platform is stopping.")
	}
	p.mu.Lock()
	need := max(p.footprint, leastFootprint)
	p.mu.Unlock()
	err := s.makeRoom(p, need)
	if err != nil {
		s.gate.leave()
	}
	return err
}

// makeRoom reserves memory. Where there is too little it stops what is idle, longest idle first, and waits for it to
// go.
func (s *Scaler) makeRoom(p *pool, need int64) error {
	if s.memory.reserve(p, need) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, memoryPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s.dropPrepared()
		s.evictOne(p)
		s.measure()
		if s.memory.reserve(p, need) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if s.ctx.Err() != nil {
				return fault.New(fault.Unavailable, "The platform is stopping.")
			}
			e := fault.New(fault.ResourceExhausted,
				"No memory is left for another instance of %s: all instances together use %d MiB of the %d MiB that they may have, and none is idle. Give them more with `giggle up --memory-budget`.",
				p.rev.Name.ID, s.memory.now()>>20, s.memory.budget>>20)
			e.Reason = "ResourcesUnavailable"
			s.cfg.Log.Warn("no memory for an instance", "revision", p.rev.Name.ID, "used", s.memory.now(), "budget",
				s.memory.budget)
			return e
		}
	}
}

func (m *memory) now() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used + m.sumLocked()
}

// evictOne stops the instance that has been idle longest, of any revision above its minimum.
func (s *Scaler) evictOne(but *pool) {
	var victim *running
	now := s.cfg.Now()
	for _, p := range s.all() {
		p.mu.Lock()
		if len(p.slots.ready) > p.boundsLocked().min && (p != but || p.slots.waiting.n == 0) {
			for _, r := range p.slots.ready {
				if r.idleBefore(now) && (victim == nil || r.idle.Before(victim.idle)) {
					victim = r
				}
			}
		}
		p.mu.Unlock()
	}
	if victim == nil {
		return
	}
	p := victim.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if victim.inflight == 0 && len(p.slots.ready) > p.boundsLocked().min {
		p.stopLocked(victim, stopGrace)
	}
}

// restingRounds is how many measurements go by between two of an instance that is idle: it is throttled and uses next
// to nothing, and a look costs a fifth of a millisecond at worst.
const restingRounds = 5

// measure looks at what every instance uses.
func (s *Scaler) measure() {
	var total int64
	now, round := s.cfg.Now(), s.rounds.Add(1)
	for _, p := range s.all() {
		p.mu.Lock()
		var look []*running
		for _, r := range p.slots.ready {
			if !r.always && r.usage.CPU > 0 && r.idleBefore(now.Add(-measureEvery)) && round%restingRounds != 0 {
				total += r.usage.Memory
				continue
			}
			look = append(look, r)
		}
		if p.spare.inst != nil {
			total += preparedFootprint
		}
		p.mu.Unlock()
		for _, r := range look {
			u, err := r.Usage()
			if err != nil {
				continue // it ends
			}
			total += u.Memory
			p.mu.Lock()
			if p.load != nil {
				p.load.spend(u.CPU - r.usage.CPU)
			}
			r.usage = u
			p.footprint = max(p.footprint, u.Memory)
			p.mu.Unlock()
		}
	}
	s.memory.measured(total)
}
