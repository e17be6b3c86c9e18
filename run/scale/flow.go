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

// startForWaitingLocked starts as many instances as the waiting requests need, within the maximum. If that is fewer
// than the requests would fill, it looks again soon: what serves them may have come to a halt.
func (p *pool) startForWaitingLocked() {
	need := p.slots.unserved(p.life.startTime)
	for most := p.boundsLocked().max; p.life.starting*p.slots.most < need &&
		p.life.starting+len(p.slots.ready) < most; {
		if !p.startOneLocked() {
			return
		}
	}
	if need == p.slots.waiting.n || p.looking {
		return
	}
	p.looking = true
	time.AfterFunc(flowWindow, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.looking = false
		if !p.retired && p.slots.waiting.n > 0 && !p.s.cfg.Now().Before(p.life.retryAt(demandDelay)) {
			p.startForWaitingLocked()
		}
	})
}
