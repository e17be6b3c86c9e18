package gateway

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"giggle/logging"
	"giggle/resource"
	"giggle/run"
)

// Classes is how many classes of status codes are counted: 1xx to 5xx, at their first digit less one.
const Classes = 5

// Buckets is how many buckets a Histogram has.
const Buckets = 128

// Histogram counts latencies. Each power of two of microseconds has four buckets: a quantile is wrong by an eighth at
// most.
type Histogram [Buckets]uint64

// bucket is the bucket of a latency.
func bucket(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 4 {
		return int(us)
	}
	n := bits.Len64(us) - 3 // so that us>>n is of 3 bits: 4 to 7
	return min(4*n+int(us>>n), Buckets-1)
}

// Bound is the latency at which a bucket ends and the next begins.
func Bound(i int) time.Duration {
	i++
	if i < 8 {
		return time.Duration(i) * time.Microsecond
	}
	n := i/4 - 1
	return time.Duration(i-4*n) << n * time.Microsecond
}

// Count is how many latencies there are.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile is the latency below which a share q of all lie, taken to lie evenly in their bucket; 0 where there are
// none.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := q * float64(h.Count())
	if left == 0 {
		return 0
	}
	var from time.Duration
	for i, c := range h {
		to := Bound(i)
		if c > 0 && float64(c) >= left {
			return from + time.Duration(float64(to-from)*left/float64(c))
		}
		left -= float64(c)
		from = to
	}
	return from
}

// Stats is what a revision's requests came to since it first had a route, and how many there are now.
type Stats struct {
	Service   resource.Child
	Revision  string
	Requests  [Classes]uint64 // by class of the status: request_count
	Latencies Histogram       // request_latencies
	InFlight  int64
}

// cell is a part of a series' counters. Each request adds to one of them, so that processors don't fight over a line of
// cache.
type cell struct {
	inFlight atomic.Int64
	requests [Classes]atomic.Uint64
	latency  [Buckets]atomic.Uint64
	_        [64]byte
}

// series is the counters of one revision, and what its requests have in common. The counters are made with its first
// request: most services have none.
type series struct {
	service  resource.Child
	revision string
	resource *logging.Resource // the revision, as the entries of its requests have it
	cells    atomic.Pointer[[]cell]
}

// cell returns one of the cells.
func (s *series) cell() *cell {
	p := s.cells.Load()
	if p == nil {
		fresh := make([]cell, runtime.GOMAXPROCS(0))
		if !s.cells.CompareAndSwap(nil, &fresh) {
			p = s.cells.Load()
		} else {
			p = &fresh
		}
	}
	return &(*p)[rand.IntN(len(*p))]
}

// done counts a request that ends.
func (c *cell) done(status int, latency time.Duration) {
	c.inFlight.Add(-1)
	c.requests[min(max(status/100, 1), Classes)-1].Add(1)
	c.latency[bucket(latency)].Add(1)
}

// read adds the counters up.
func (s *series) read() Stats {
	out := Stats{Service: s.service, Revision: s.revision}
	p := s.cells.Load()
	if p == nil {
		return out
	}
	for i := range *p {
		c := &(*p)[i]
		out.InFlight += c.inFlight.Load()
		for j := range c.requests {
			out.Requests[j] += c.requests[j].Load()
		}
		for j := range c.latency {
			out.Latencies[j] += c.latency[j].Load()
		}
	}
	return out
}

// allSeries are the series of all revisions that have or had a route.
type allSeries struct {
	mu  sync.Mutex
	all map[string]map[string]*series // by service, then revision id
}

// maxCountedRevisions is how many revisions of one service are counted; beyond it, those that no route leads to make
// place.
const maxCountedRevisions = 50

// of returns the series of a revision.
func (a *allSeries) of(service string, rev run.Revision) *series {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.all[service]
	if of == nil {
		of = make(map[string]*series)
		a.all[service] = of
	}
	s := of[rev.Name.ID]
	if s == nil {
		s = &series{service: rev.Name.Service, revision: rev.Name.ID, resource: logging.Revision(rev.Name)}
		of[rev.Name.ID] = s
	}
	return s
}

// prune forgets what the route of a service leads to no more, when there is much of it.
func (a *allSeries) prune(service string, to map[string]*destination) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.all[service]
	if len(of) <= maxCountedRevisions {
		return
	}
	routed := make(map[string]bool)
	for _, d := range to {
		for i := range d.targets {
			routed[d.targets[i].rev.Name.ID] = true
		}
	}
	for id := range of {
		if !routed[id] {
			delete(of, id)
		}
	}
}

func (a *allSeries) drop(service string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, service)
}

// Stats returns the counters of every revision that had a request.
func (g *Gateway) Stats() []Stats {
	g.stats.mu.Lock()
	var all []*series
	for _, of := range g.stats.all {
		for _, s := range of {
			all = append(all, s)
		}
	}
	g.stats.mu.Unlock()
	var out []Stats
	for _, s := range all {
		if s.cells.Load() != nil {
			out = append(out, s.read())
		}
	}
	return out
}
