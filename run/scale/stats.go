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
	Billable time.Duration // that Cloud Run would bill for: each instance's start, end and time with requests, or its whole life
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
	b := p.bounds()
	st := Stats{
		Revision: p.rev.Name, Ready: len(p.ready), Starting: p.starting, InFlight: p.inflight, Queued: p.waiting.n, Min: b.min, Max: b.max,
		Starts: p.count.starts, Failures: p.count.failures, OOMs: p.count.ooms, CPU: p.count.cpu, Billable: p.count.billed,
		GPUs: len(p.gpus), GPU: p.count.gpu,
	}
	for _, m := range p.gpus {
		st.GPU += m.read(now)
	}
	if p.prepared != nil {
		st.Prepared = 1
	}
	for _, r := range p.ready {
		if r.inflight == 0 {
			st.Idle++
		}
	}
	for _, rs := range [][]*running{p.ready, p.ending} {
		for _, r := range rs {
			st.Memory += r.usage.Memory
			st.CPU += r.usage.CPU
			st.Billable += r.billed.read(now)
		}
	}
	return st
}

// Instances returns how many instances are ready, starting and prepared, over all revisions.
func (s *Scaler) Instances() (ready, starting, prepared int) {
	for _, p := range s.all() {
		p.mu.Lock()
		ready += len(p.ready)
		starting += p.starting
		if p.prepared != nil {
			prepared++
		}
		p.mu.Unlock()
	}
	return ready, starting, prepared
}
