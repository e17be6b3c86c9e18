package scale

import (
	"math/rand/v2"
	"testing"
	"time"
)

// slotsOf has so many ready instances, with requests in each as said.
func slotsOf(most int, inflight ...int) *slots {
	s := newSlots(most, time.Now)
	for _, n := range inflight {
		s.ready = append(s.ready, &running{})
		for range n {
			s.take(s.ready[len(s.ready)-1])
		}
	}
	return &s
}

func TestAcquire(t *testing.T) {
	for name, tt := range map[string]struct {
		inflight  []int
		preferred int // 0 for all
		change    func(ready []*running)
		want      int // the instance, -1 for none
	}{
		"none":                     {nil, 0, nil, -1},
		"the fewest requests":      {[]int{2, 1, 2}, 0, nil, 1},
		"the first of equals":      {[]int{1, 1}, 0, nil, 0},
		"all are taken":            {[]int{3, 3}, 0, nil, -1},
		"a preferred one":          {[]int{2, 2, 0}, 2, nil, 0},
		"the preferred ones full":  {[]int{3, 3, 0}, 2, nil, 2},
		"not ready by its probe":   {[]int{0, 1}, 0, func(r []*running) { r[0].unready = true }, 1},
		"one that leaves":          {[]int{0, 1}, 0, func(r []*running) { r[0].leaving = true }, 1},
		"nothing else than leaves": {[]int{0}, 0, func(r []*running) { r[0].leaving = true }, -1},
		"the better of two": {[]int{1, 0, 2, 2, 2, 1, 2, 2, 2, 2}, 0, func(r []*running) {
			r[0].inflight, r[1].inflight, r[6].inflight = 3, 1, 0 // the first look falls on 1 and 6
		}, 6},
		"both of two are full": {[]int{2, 3, 2, 2, 1, 2, 3, 2, 2, 2}, 0, nil, 4},
	} {
		s := slotsOf(3, tt.inflight...)
		if tt.preferred > 0 {
			s.preferred = tt.preferred
		}
		if tt.change != nil {
			tt.change(s.ready)
		}
		before, got := s.inflight, -1
		r := s.acquire()
		for i := range s.ready {
			if s.ready[i] == r {
				got = i
			}
		}
		if got != tt.want {
			t.Errorf("%s: instance %d, want %d", name, got, tt.want)
		}
		if taken := s.inflight - before; taken != 0 && r == nil || taken != 1 && r != nil {
			t.Errorf("%s: %d slots were taken", name, taken)
		}
	}
}

// A slot that becomes free goes to who has waited longest, and the instance is not idle in between.
func TestRelease(t *testing.T) {
	s := slotsOf(1, 1)
	r := s.ready[0]
	first, second := s.waiting.push(), s.waiting.push()
	for _, w := range []*waiter{first, second} {
		if s.release(r); r.inflight == 0 {
			t.Error("idle, and a request was waiting")
		}
		select {
		case g := <-w.turn:
			if g.to != r || g.err != nil {
				t.Errorf("%+v", g)
			}
		default:
			t.Fatal("the first who waits has no slot")
		}
	}
	if s.release(r); s.busy() != 0 || s.idle() != 1 {
		t.Errorf("%d requests are left", s.busy())
	}
}

// An instance that is taken out gets no request, and those in it are counted until they end.
func TestRemove(t *testing.T) {
	s := slotsOf(1, 1, 0)
	r := s.ready[0]
	if !s.remove(r) || s.remove(r) || s.inflight != 1 {
		t.Errorf("%d in flight", s.inflight)
	}
	if got := s.acquire(); got == r || got == nil {
		t.Errorf("%v", got)
	}
	if s.acquire() != nil {
		t.Error("more slots than there are")
	}
	if s.release(r); s.inflight != 1 {
		t.Errorf("%d in flight", s.inflight)
	}
}

func TestServing(t *testing.T) {
	s := slotsOf(4, 1, 0, 4)
	s.ready[1].unready = true
	if n, free := s.serving(); n != 2 || free != 3 {
		t.Errorf("%d instances, %d slots", n, free)
	}
	if s.idle() != 1 {
		t.Errorf("%d are idle", s.idle())
	}
}

// Those whom the ready instances will have served by then are no reason to start another one.
func TestUnserved(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := slotsOf(1, 1)
	s.now = func() time.Time { return now }
	s.flow.since = now
	for range 30 {
		s.waiting.push()
	}
	now = now.Add(flowWindow)
	s.flow.ended = 2 // 20 a second
	if got := s.unserved(time.Second); got != 10 {
		t.Errorf("%d of 30 unserved, want 10", got)
	}
	if got := s.unserved(time.Hour); got != 0 {
		t.Errorf("%d of 30 unserved, want 0", got)
	}
	s.ready = nil
	if got := s.unserved(time.Hour); got != 30 {
		t.Errorf("%d of 30 unserved without an instance", got)
	}
}

// Whatever is done: no instance has more than its slots, the sum is right, and nobody waits while a slot is free.
func TestSlotsAddUp(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := slotsOf(1+rnd.IntN(3), make([]int, rnd.IntN(12))...)
		var all, held []*running
		all = append(all, s.ready...)
		var queue []*waiter
		for range 300 {
			switch k := rnd.IntN(10); {
			case k < 5:
				if r := s.acquire(); r != nil {
					held = append(held, r)
				} else {
					queue = append(queue, s.waiting.push())
				}
			case k < 9 && len(held) > 0:
				i := rnd.IntN(len(held))
				s.release(held[i])
				held = append(held[:i], held[i+1:]...)
			case k == 9 && len(s.ready) > 0 && rnd.IntN(8) == 0:
				s.remove(s.ready[rnd.IntN(len(s.ready))])
			case k == 9:
				r := &running{}
				all, s.ready = append(all, r), append(s.ready, r)
				s.serve()
			}
			if rnd.IntN(5) == 0 {
				s.preferred = 1 + rnd.IntN(12)
			}
			for len(queue) > 0 && len(queue[0].turn) > 0 {
				held = append(held, (<-queue[0].turn).to)
				queue = queue[1:]
			}
			sum := 0
			for _, r := range all {
				sum += r.inflight
				if r.inflight > s.most || r.inflight < 0 {
					t.Fatalf("seed %d: %d requests in an instance of %d", seed, r.inflight, s.most)
				}
			}
			if _, free := s.serving(); sum != s.inflight || sum != len(held) || len(queue) != s.waiting.n ||
				free > 0 && s.waiting.n > 0 {
				t.Fatalf("seed %d: %d in flight, %d counted, %d held; %d wait, %d slots are free", seed, sum,
					s.inflight, len(held), s.waiting.n, free)
			}
		}
	}
}
