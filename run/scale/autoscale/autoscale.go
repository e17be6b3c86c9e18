// Package autoscale decides how many instances a revision needs from what its instances did recently.
//
// It is arithmetic: no clock, no goroutines, no instances. Package scale samples, asks, and acts. The rules are those
// of Cloud Run (https://cloud.google.com/run/docs/about-instance-autoscaling: concurrency and CPU, each aimed at 60 %
// over a minute) on the arithmetic of Knative's autoscaler (stable and panic window, bounded steps), with which
// test/autoscaler compares it decision by decision.
package autoscale

import (
	"math"
	"time"
)

// Settings are what a revision's decisions depend on. They don't change with its load.
type Settings struct {
	Target    float64 // requests at once that one instance should have on average
	CPUTarget float64 // cores that one instance should use on average; 0 leaves CPU out
	MaxUp     float64 // most instances after a decision, as a multiple of those that are ready
	MaxDown   float64 // the most that a decision divides them by
	// wanted by the panic window, as a multiple of what is ready, from which on it is a surge
	PanicThreshold float64
	Stable         time.Duration // the stable window, which a surge is over after
	Min, Max       int           // bounds of the decision; Max 0 sets none
}

// Defaults are the settings of a revision whose instances take that many requests at once with that many cores,
// without bounds.
func Defaults(concurrency int, cores float64) Settings {
	return Settings{
		Target:         math.Max(0.6*float64(concurrency), 0.01),
		CPUTarget:      0.6 * cores,
		MaxUp:          1000,
		MaxDown:        2,
		PanicThreshold: 2,
		Stable:         time.Minute,
	}
}

// Samples are what was seen.
type Samples struct {
	Stable, Panic float64 // requests at once, waiting ones included, averaged over the two windows
	CPU           float64 // cores used by all instances together, averaged over the stable window
	Ready         int     // instances that can take requests
	Queued        int     // requests that wait now, without those who will be served before another instance is there
	Free          int     // requests that ready and starting instances could still take
	Concurrency   int     // requests that one instance takes at once
	Unreachable   bool    // no route leads to the revision: it may go to zero in one step
}

// State is what a decision hands to the next. The zero State is that of a revision without a past.
type State struct {
	Panicking time.Time // when the surge was last seen; zero without one
	Highest   int       // the most that was decided during it: a surge never scales in
}

// Resume is the state of a revision of which that many instances are ready and nothing else is known: as in a surge,
// so that they stay until there is something to decide from.
func Resume(now time.Time, ready int) State {
	if ready <= 1 {
		return State{}
	}
	return State{Panicking: now, Highest: ready}
}

// Decide returns how many instances there should be, and the state for the next decision.
func Decide(now time.Time, in Samples, set Settings, st State) (desired int, next State) {
	ready := math.Max(1, float64(in.Ready))
	most, least := math.Ceil(set.MaxUp*ready), math.Floor(ready/set.MaxDown)
	if in.Unreachable {
		least = 0
	}
	surge := math.Ceil(in.Panic / set.Target)
	stable, panic := bounded(math.Ceil(in.Stable/set.Target), least, most), bounded(surge, least, most)
	if set.CPUTarget > 0 {
		stable = max(stable, bounded(math.Ceil(in.CPU/set.CPUTarget), least, most))
	}

	switch {
	case surge/ready >= set.PanicThreshold:
		st.Panicking = now
	case !st.Panicking.IsZero() && st.Panicking.Add(set.Stable).Before(now):
		st = State{}
	}
	desired = stable
	if !st.Panicking.IsZero() {
		st.Highest = max(st.Highest, stable, panic)
		desired = st.Highest
	}
	return set.bound(max(desired, immediate(in))), st
}

// immediate is what waiting requests need beyond what is ready: it is not averaged, they wait now.
func immediate(in Samples) int {
	over := in.Queued - in.Free
	if over <= 0 {
		return 0
	}
	c := max(in.Concurrency, 1)
	return in.Ready + (over+c-1)/c
}

func bounded(v, least, most float64) int {
	return int(math.Min(math.Max(v, least), math.Min(most, math.MaxInt32)))
}

func (s Settings) bound(n int) int {
	n = max(n, s.Min)
	if s.Max > 0 {
		n = min(n, s.Max)
	}
	return n
}
