package scale

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"giggle/run"
)

func TestShares(t *testing.T) {
	for name, tt := range map[string]struct {
		scaling  run.Scaling
		percents []int
		want     string
	}{
		"all to one":     {run.Scaling{Min: 3, Max: 5}, []int{100}, "[{3 5}]"},
		"halves":         {run.Scaling{Min: 3, Max: 5}, []int{50, 50}, "[{2 3} {1 3}]"},
		"a canary":       {run.Scaling{Min: 2, Max: 10}, []int{99, 1}, "[{2 10} {0 1}]"},
		"a tag only":     {run.Scaling{Min: 2, Max: 10}, []int{100, 0}, "[{2 10} {0 10}]"},
		"no bounds":      {run.Scaling{}, []int{50, 50}, "[{0 0} {0 0}]"},
		"thirds":         {run.Scaling{Min: 1, Max: 1}, []int{34, 33, 33}, "[{1 1} {0 1} {0 1}]"},
		"nothing at all": {run.Scaling{Min: 1}, nil, "[]"},
	} {
		if got := fmt.Sprint(shares(tt.scaling, tt.percents)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		own   run.Scaling
		share bounds
		want  bounds
	}{
		{run.Scaling{}, bounds{}, bounds{0, 100}},
		{run.Scaling{Min: 1, Max: 3}, bounds{2, 7}, bounds{2, 3}},
		{run.Scaling{Min: 5}, bounds{0, 4}, bounds{4, 4}},
	} {
		if got := combine(tt.own, tt.share, 100); got != tt.want {
			t.Errorf("%+v with %+v: %+v, want %+v", tt.own, tt.share, got, tt.want)
		}
	}
}

// First instances go before further ones, of which every fourth is let through all the same.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		if err := g.enter(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 20)
		wait := func(ctx context.Context, first bool, name string) {
			go func() {
				if g.enter(ctx, first) == nil {
					order <- name
				}
			}()
			synctest.Wait()
		}
		for k := range 3 {
			wait(t.Context(), false, fmt.Sprint("more", k))
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, true, "gone")
		for k := range 6 {
			wait(t.Context(), true, fmt.Sprint("first", k))
		}
		cancel()
		synctest.Wait()
		got := ""
		for range 9 {
			g.leave()
			synctest.Wait()
			got += <-order + " "
		}
		if want := "first0 first1 first2 more0 first3 first4 first5 more1 more2 "; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
		if g.busy() {
			t.Error("somebody still waits")
		}
		g.leave()
		if g.free != 1 {
			t.Errorf("%d places, want 1", g.free)
		}
	})
}

func TestDelays(t *testing.T) {
	for failures, want := range map[int][2]time.Duration{
		1: {time.Second, 0}, 2: {2 * time.Second, 0}, 3: {4 * time.Second, time.Second / 2},
		5:  {16 * time.Second, 2 * time.Second},
		20: {5 * time.Minute, 10 * time.Second}, 1 << 30: {5 * time.Minute, 10 * time.Second},
	} {
		if got := [2]time.Duration{minimumDelay(failures), demandDelay(failures)}; got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
	}
}

// Failures in a row put the next start off; an instance that lived for a while ends the row, and one that only came up
// does not.
func TestLife(t *testing.T) {
	begin, broken := time.Unix(1e9, 0), errors.New("broken")
	var l life
	if !l.retryAt(minimumDelay).IsZero() {
		t.Error("a start that never failed has to wait")
	}
	for k, tt := range []struct {
		lived time.Duration // of an instance before it failed
		row   int           // of failures, after this one
		often bool
	}{{0, 1, false}, {earlyEnd - 1, 2, false}, {0, 3, true}, {0, 4, true}, {earlyEnd, 1, false}, {time.Hour, 1, false},
		{0, 2, false}} {
		l.begin()
		if tt.lived == 0 {
			l.starting--
		} else {
			l.came(time.Second)
		}
		at := begin.Add(time.Duration(k) * time.Minute)
		if often := l.failed(at, tt.lived, broken); often != tt.often || l.failures != tt.row ||
			!errors.Is(l.failure, broken) {
			t.Errorf("failure %d: %d in a row, often %v, want %d, %v", k, l.failures, often, tt.row, tt.often)
		}
		if got := l.retryAt(minimumDelay); !got.Equal(at.Add(minimumDelay(tt.row))) {
			t.Errorf("failure %d: the next start at %v", k, got.Sub(at))
		}
	}
	if l.starting != 0 || l.count.starts != 7 || l.count.failures != 7 {
		t.Errorf("%d are starting, counted %+v", l.starting, l.count)
	}
}

// What a start takes is remembered as an average in which the last ones count most.
func TestStartTime(t *testing.T) {
	var l life
	for _, tt := range []struct{ took, want time.Duration }{{800, 800}, {0, 700}, {1500, 800}} {
		l.begin()
		l.came(tt.took)
		if l.startTime != tt.want || l.starting != 0 {
			t.Errorf("after %d: %d, %d are starting", tt.took, l.startTime, l.starting)
		}
	}
}

// What is gone leaves its time and its CPU behind.
func TestEnded(t *testing.T) {
	a, b := &running{usage: Usage{CPU: 3}, billed: meter{total: 5}}, &running{}
	l := life{ending: []*running{b, a}}
	l.ended(a, true)
	if len(l.ending) != 1 || l.ending[0] != b || l.count != (counters{ooms: 1, billed: 5, cpu: 3}) {
		t.Errorf("%+v", l)
	}
	l.ended(a, false) // one that was not being stopped
	if len(l.ending) != 1 || l.count != (counters{ooms: 1, billed: 10, cpu: 6}) {
		t.Errorf("%+v", l)
	}
}

func TestBoost(t *testing.T) {
	for limit, want := range map[int64]int64{500: 2000, 1000: 2000, 2000: 4000, 4000: 8000, 6000: 8000, 8000: 8000} {
		if got := boostedCPU(limit); got != want {
			t.Errorf("%d m become %d, want %d", limit, got, want)
		}
	}
}
