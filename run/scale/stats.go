package scale

import (
	"slices"
	"strings"
	"time"

	"giggle/resource"
)

// Stats is what one revision's instances do and have done. Counters start with the platform.
type Stats struct {
	Revision resource.Revision
	Ready    int // instances that may get requests, those that fail their readiness probe included
	Starting int
	Prepared int // made, not started
	Idle     int // of Ready, those without a request
	InFlight int // requests in instances
	Queued   int // requests that wait for one
	Min, Max int // bounds that hold now

	Starts   int           // that were tried
	Failures int           // starts that failed, and instances that ended by themselves
	OOMs     int           // instances that the kernel killed for their memory
	Memory   int64         // bytes that the instances used when they were looked at last, some seconds ago at most
	CPU      time.Duration // used by all instances so far
	GPUs     int           // that instances have, those that start and end included
	GPU      time.Duration // for which instances had GPUs, each from before its start until it was gone
	// that Cloud Run would bill for: each instance's start, end and time with requests, or its whole life
	Billable time.Duration
}

// Stats returns the revisions that have a route or instances, by name. It costs some hundred nanoseconds for each.
func (s *Scaler) Stats() []Stats {
	now := s.cfg.Now()
	var out []Stats
	for _, p := range s.all() {
		out = append(out, p.stats(now))
	}
	slices.SortFunc(out, func(a, b Stats) int { return strings.Compare(a.Revision.String(), b.Revision.String()) })
	return out
}

func (p *pool) stats(now time.Time) Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.boundsLocked()
	st := Stats{
		Revision: p.rev.Name,
		Ready:    len(p.slots.ready),
		Starting: p.life.starting,
		Idle:     p.slots.idle(),
		InFlight: p.slots.inflight,
		Queued:   p.slots.waiting.n,
		Min:      b.min,
		Max:      b.max,
		Starts:   p.life.count.starts,
		Failures: p.life.count.failures,
		OOMs:     p.life.count.ooms,
		CPU:      p.life.count.cpu,
		Billable: p.life.count.billed,
		GPUs:     len(p.gpus),
		GPU:      p.life.count.gpu,
	}
	for _, m := range p.gpus {
		st.GPU += m.read(now)
	}
	if p.spare.inst != nil {
		st.Prepared = 1
	}
	for _, rs := range [][]*running{p.slots.ready, p.life.ending} {
		for _, r := range rs {
			st.Memory += r.usage.Memory
			st.CPU += r.usage.CPU
			st.Billable += r.billed.read(now)
		}
	}
	return st
}

// Count is how many instances there are, by what they do.
type Count struct {
	Ready    int
	Starting int
	Prepared int
	Ending   int // until nothing is left of them
}

// Instances counts the instances of all revisions.
func (s *Scaler) Instances() (n Count) {
	for _, p := range s.all() {
		p.mu.Lock()
		n.Ready += len(p.slots.ready)
		n.Starting += p.life.starting
		if p.spare.inst != nil {
			n.Prepared++
		}
		p.mu.Unlock()
	}
	n.Ending = int(s.ending.Load())
	return n
}
