package autoscale_test

import (
	"testing"
	"time"

	"giggle/run/scale/autoscale"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// The table is computed by hand from the rules.
func TestDecide(t *testing.T) {
	set := autoscale.Defaults(80, 1) // aims at 48 requests and 0.6 cores
	one := autoscale.Defaults(1, 1)
	panicking := autoscale.State{Panicking: epoch.Add(-10 * time.Second), Highest: 6}
	for name, tt := range map[string]struct {
		in    autoscale.Samples
		set   autoscale.Settings
		state autoscale.State
		want  int
		panic bool
	}{
		"nothing, from one":        {autoscale.Samples{Ready: 1}, set, autoscale.State{}, 0, false},
		"nothing, from five":       {autoscale.Samples{Ready: 5}, set, autoscale.State{}, 2, false},
		"nothing, without a route": {autoscale.Samples{Ready: 5, Unreachable: true}, set, autoscale.State{}, 0, false},
		"just enough":              {autoscale.Samples{Ready: 2, Stable: 96, Panic: 96}, set, autoscale.State{}, 2, false},
		"one more than that":       {autoscale.Samples{Ready: 2, Stable: 96.5, Panic: 96.5}, set, autoscale.State{}, 3, false},
		"one at a time, one busy":  {autoscale.Samples{Ready: 1, Stable: 1, Panic: 1}, one, autoscale.State{}, 2, true},
		"a surge":                  {autoscale.Samples{Ready: 2, Stable: 10, Panic: 150}, set, autoscale.State{}, 4, true},
		"no surge yet":             {autoscale.Samples{Ready: 2, Stable: 10, Panic: 144}, set, autoscale.State{}, 1, false},
		"held during a surge":      {autoscale.Samples{Ready: 6, Stable: 100, Panic: 10}, set, panicking, 6, true},
		"higher during a surge":    {autoscale.Samples{Ready: 6, Stable: 100, Panic: 400}, set, panicking, 9, true},
		"CPU":                      {autoscale.Samples{Ready: 2, Stable: 1, Panic: 1, CPU: 1.9}, set, autoscale.State{}, 4, false},
		"CPU below its aim":        {autoscale.Samples{Ready: 1, Stable: 1, Panic: 1, CPU: 0.6}, set, autoscale.State{}, 1, false},
		"waiting":                  {autoscale.Samples{Queued: 1, Concurrency: 80}, set, autoscale.State{}, 1, false},
		"many wait":                {autoscale.Samples{Queued: 161, Concurrency: 80, Ready: 2}, set, autoscale.State{}, 5, false},
		"those that wait have a place": {autoscale.Samples{
			Queued:      80,
			Free:        80,
			Concurrency: 80,
			Ready:       1,
			Stable:      1,
		}, set, autoscale.State{}, 1, false},
		"at most": {autoscale.Samples{Queued: 500, Concurrency: 1}, autoscale.Settings{
			Target:         1,
			MaxUp:          1000,
			MaxDown:        2,
			PanicThreshold: 2,
			Max:            7,
		}, autoscale.State{}, 7, false},
		"at least": {autoscale.Samples{Ready: 3}, autoscale.Settings{
			Target:         1,
			MaxUp:          1000,
			MaxDown:        2,
			PanicThreshold: 2,
			Min:            3,
		}, autoscale.State{}, 3, false},
	} {
		got, next := autoscale.Decide(epoch, tt.in, tt.set, tt.state)
		if got != tt.want || !next.Panicking.IsZero() != tt.panic {
			t.Errorf("%s: %d, %+v; want %d, panic %v", name, got, next, tt.want, tt.panic)
		}
	}
}

func TestASurgeEndsAfterTheStableWindow(t *testing.T) {
	set := autoscale.Defaults(1, 0)
	n, st := autoscale.Decide(epoch, autoscale.Samples{Ready: 1, Stable: 1, Panic: 6}, set, autoscale.State{})
	if n != 10 {
		t.Fatalf("%d, want 10", n)
	}
	quiet := autoscale.Samples{Ready: 10}
	if n, st = autoscale.Decide(epoch.Add(time.Minute), quiet, set, st); n != 10 {
		t.Errorf("a minute later %d, want 10", n)
	}
	if n, st = autoscale.Decide(epoch.Add(time.Minute+2*time.Second), quiet, set, st); n != 5 ||
		st != (autoscale.State{}) {
		t.Errorf("after it %d, %+v; want 5", n, st)
	}
	if st := autoscale.Resume(epoch, 3); st.Highest != 3 || autoscale.Resume(epoch, 1) != (autoscale.State{}) {
		t.Errorf("resumed with %+v", st)
	}
}

func TestWindow(t *testing.T) {
	var w autoscale.Window
	if got := w.Average(epoch, time.Minute); got != 0 {
		t.Errorf("an empty window has %v", got)
	}
	for k := range 10 { // 10 seconds of 4, twice a second
		w.Record(epoch.Add(time.Duration(k)*time.Second), 3)
		w.Record(epoch.Add(time.Duration(k)*time.Second+time.Second/2), 5)
	}
	now := epoch.Add(9 * time.Second)
	for name, tt := range map[string]struct{ got, want float64 }{
		"since the first sample":    {w.Average(now, time.Minute), 4},
		"six seconds":               {w.Average(now, 6*time.Second), 4},
		"the whole minute":          {w.Whole(now, time.Minute), 40.0 / 60},
		"less than a second":        {w.Average(now, time.Millisecond), 4},
		"half of it without":        {w.Average(now.Add(3*time.Second), 6*time.Second), 2},
		"long after":                {w.Average(now.Add(2*time.Minute), time.Minute), 0},
		"a minute, partly":          {w.Average(now.Add(50*time.Second), time.Minute), 40.0 / 60},
		"half a minute, none of it": {w.Average(now.Add(50*time.Second), 30*time.Second), 0},
	} {
		if diff := tt.got - tt.want; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
	w.Record(now.Add(3*time.Minute), 6) // over cells of long ago
	if got := w.Average(now.Add(3*time.Minute), 6*time.Second); got != 1 {
		t.Errorf("after a gap %v, want 1", got)
	}
}
