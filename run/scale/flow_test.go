package scale_test

import (
	"sync"
	"testing"
	"time"

	"giggle/run"
	"giggle/run/scale"
)

// busy sends requests to a revision at a steady pace, each of which takes a while, until the time is over. Halted says
// from when to when none of them ends.
func busy(
	t *testing.T, s *scale.Scaler, rev run.Revision, every, takes, length time.Duration, halted [2]time.Duration,
) {
	t.Helper()
	var wg sync.WaitGroup
	begin := time.Now()
	for time.Since(begin) < length {
		wg.Go(func() {
			l, err := s.Acquire(t.Context(), rev)
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(takes)
			if at := time.Since(begin); at > halted[0] && at < halted[1] {
				time.Sleep(halted[1] - at)
			}
			l.Release()
		})
		time.Sleep(every)
	}
	wg.Wait()
}

// A short halt of an instance that serves many requests is no reason for another one, which would only be ready when it
// is over; one that lasts is, and so are more requests than the instances serve.
func TestQueueThatWillBeServed(t *testing.T) {
	const ms = time.Millisecond
	none := [2]time.Duration{}
	for _, tt := range []struct {
		name         string
		concurrency  int
		every, takes time.Duration
		halted       [2]time.Duration
		most         int // instances that there may have been
		least        int // and must have been
	}{
		{"no halt", 10, ms, 5 * ms, none, 1, 1},
		{"80 ms without an answer", 10, ms, 5 * ms, [2]time.Duration{500 * ms, 580 * ms}, 1, 1},
		{"a second without an answer", 10, ms, 5 * ms, [2]time.Duration{500 * ms, 1500 * ms}, 100, 3},
		{"one at a time, faster than they come", 1, 5 * ms, 3 * ms, none, 1, 1},
		{"one at a time, slower than they come", 1, 5 * ms, 7 * ms, none, 8, 2},
		{"one at a time, and one that takes long", 1, 50 * ms, 5 * ms, [2]time.Duration{500 * ms, time.Minute}, 100, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &backend{startup: 100 * ms}
			scalerWith(t, b, func(c *scale.Config) { c.Max = 100 }, func(t *testing.T, s *scale.Scaler) {
				rev := revision("s-1", func(t *run.Template) { t.Concurrency, t.Scaling.Max = tt.concurrency, 100 })
				acquire(t, s, rev).Release() // the first instance is there
				busy(t, s, rev, tt.every, tt.takes, 2*time.Second, tt.halted)
			})
			if _, started, _ := b.counts(); started < tt.least || started > tt.most {
				t.Errorf("%d instances were started, want %d to %d", started, tt.least, tt.most)
			}
		})
	}
}

// With no request that ended of late, the first that finds no slot starts an instance at once.
func TestQueueOfANewInstance(t *testing.T) {
	b := &backend{startup: 100 * time.Millisecond}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) { t.Concurrency = 1 })
		first := acquire(t, s, rev)
		begin := time.Now()
		second := acquire(t, s, rev)
		if took := time.Since(begin); took > 150*time.Millisecond {
			t.Errorf("the second instance was there after %v", took)
		}
		first.Release()
		second.Release()
	})
}
