package scale

import (
	"math"
	"time"
)

// slots are the places for requests in the ready instances of one revision, and the requests that wait for one.
//
// It has no lock of its own: the pool's guards it and the instances in it. It starts and stops nothing; it knows what
// an instance has to do, and the pool what follows from that.
type slots struct {
	most int // requests at once in one instance
	now  func() time.Time

	ready     []*running
	preferred int // as many of ready, from the first on, get requests as long as they have slots
	next      int // where the search for a slot begins among many
	inflight  int
	waiting   queue
	flow      flow
}

func newSlots(most int, now func() time.Time) slots {
	return slots{most: most, now: now, preferred: math.MaxInt}
}

// acquire takes a slot of the ready instance that it returns, nil where all are taken: of few instances the one with
// the fewest requests, of many the better of two. Those beyond the preferred ones get a request only when the others
// are full, so that they become idle.
func (s *slots) acquire() (r *running) {
	n := min(len(s.ready), s.preferred)
	if n > 8 {
		s.next++
		a, b := s.ready[s.next%n], s.ready[(s.next+n/2)%n]
		if b.inflight < a.inflight {
			a = b
		}
		if a.takes(s.most) {
			r = a
		}
	}
	if r == nil {
		r = least(s.ready[:n], s.most)
	}
	if r == nil {
		r = least(s.ready[n:], s.most)
	}
	if r != nil {
		s.take(r)
	}
	return r
}

func least(among []*running, most int) (best *running) {
	for _, r := range among {
		if r.takes(most) && (best == nil || r.inflight < best.inflight) {
			best = r
		}
	}
	return best
}

// take gives a request to an instance.
//
// The clock is looked at only after a pause: on some machines that costs more than all the rest of a request here.
func (s *slots) take(r *running) {
	s.inflight++
	if r.inflight++; !r.always && r.billed.since.IsZero() {
		r.billed.begin(s.now())
	}
}

// release ends one request on an instance and hands the slot on.
func (s *slots) release(r *running) {
	s.inflight--
	r.inflight--
	s.flow.ended++
	if s.waiting.n > 0 {
		s.serve()
	}
}

// serve grants free slots to waiting requests.
func (s *slots) serve() {
	for s.waiting.n > 0 {
		r := s.acquire()
		if r == nil {
			return
		}
		s.waiting.grant(grant{to: r})
	}
}

// remove takes an instance out, and reports whether it was in. Requests that are in it are counted until they end.
func (s *slots) remove(r *running) bool {
	for i, x := range s.ready {
		if x == r {
			s.ready = append(s.ready[:i:i], s.ready[i+1:]...)
			return true
		}
	}
	return false
}

// serving is how many instances get requests, and how many slots of theirs are free.
func (s *slots) serving() (instances, free int) {
	for _, r := range s.ready {
		if !r.unready {
			instances++
			free += max(s.most-r.inflight, 0)
		}
	}
	return instances, free
}

// idle is how many instances have no request.
func (s *slots) idle() (n int) {
	for _, r := range s.ready {
		if r.inflight == 0 {
			n++
		}
	}
	return n
}

// busy is the requests in instances and those that wait for one.
func (s *slots) busy() int { return s.inflight + s.waiting.n }

// unserved is how many of the waiting requests the ready instances will not have served by the time that another one
// would be there, which takes so long, as they went recently. Only those are a reason to start one: a start takes CPU,
// which the others would lack.
func (s *slots) unserved(start time.Duration) int {
	rate := s.flow.perSecond(s.now())
	if len(s.ready) == 0 {
		return s.waiting.n
	}
	return max(s.waiting.n-int(rate*start.Seconds()), 0)
}
