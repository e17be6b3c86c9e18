package scale

import "time"

// flowWindow is over how long requests that end are counted.
const flowWindow = 100 * time.Millisecond

// flow is how many requests a pool's instances finish.
type flow struct {
	since time.Time
	ended int // since then
	rate  float64
}

// perSecond is the rate of the last whole window, or of the time since that was asked last where it is longer.
func (f *flow) perSecond(now time.Time) float64 {
	if d := now.Sub(f.since); d >= flowWindow {
		f.rate = float64(f.ended) / d.Seconds()
		f.since, f.ended = now, 0
	}
	return f.rate
}

// unserved is how many of the waiting requests the ready instances will not have served by the time that another one would be
// there, as they went of late. Only those are a reason to start one: a start takes CPU, which the others would lack. p.mu is
// held.
func (p *pool) unserved(now time.Time) int {
	rate := p.flow.perSecond(now)
	if len(p.ready) == 0 {
		return p.waiting.n
	}
	return max(p.waiting.n-int(rate*p.startTime.Seconds()), 0)
}

// startForWaiting starts as many instances as the waiting requests need, within the maximum. If that is fewer than the requests
// would fill, it looks again soon: what serves them may have come to a halt. p.mu is held.
func (p *pool) startForWaiting() {
	need := p.unserved(p.s.cfg.Now())
	for most := p.bounds().max; p.starting*p.most < need && p.starting+len(p.ready) < most; {
		if !p.startOne() {
			return
		}
	}
	if need == p.waiting.n || p.looking {
		return
	}
	p.looking = true
	time.AfterFunc(flowWindow, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.looking = false
		if !p.retired && p.waiting.n > 0 && !p.s.cfg.Now().Before(p.retryAt(demandDelay)) {
			p.startForWaiting()
		}
	})
}
