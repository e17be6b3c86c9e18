// Package autoscaler_test compares giggle's autoscaler with Knative's, whose arithmetic it follows: the same samples
// in the same order must lead to the same decisions.
package autoscaler_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/autoscaler/scaling"

	"giggle/run/scale/autoscale"
)

// seen is what Knative's autoscaler is told: its metrics and its pod counter.
type seen struct {
	stable, panic float64
	ready         int
}

func (s *seen) StableAndPanicConcurrency(types.NamespacedName, time.Time) (float64, float64, error) {
	return s.stable, s.panic, nil
}

func (s *seen) StableAndPanicRPS(types.NamespacedName, time.Time) (float64, float64, error) {
	return 0, 0, nil
}

func (s *seen) ReadyCount() (int, error)    { return s.ready, nil }
func (s *seen) NotReadyCount() (int, error) { return 0, nil }

func TestSameDecisionsAsKnative(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	log := zap.NewNop().Sugar()
	steps, surges, scaled := 0, 0, 0
	for range 2000 {
		concurrency := []int{1, 2, 10, 80, 1000}[random.IntN(5)]
		set := autoscale.Defaults(concurrency, 0)
		set.MaxUp = []float64{1000, 10, 2, 1.1}[random.IntN(4)]
		set.MaxDown = []float64{2, 1.5, 10}[random.IntN(3)]
		reachable := random.IntN(5) > 0
		// Knative looks at the machine's clock when one is made with more than one pod, so it is made with at most one.
		told := &seen{ready: random.IntN(2)}
		theirs := scaling.New(attribute.NewSet(), noop.NewMeterProvider(), "ns", "rev", told, told,
			&scaling.DeciderSpec{
				MaxScaleUpRate:   set.MaxUp,
				MaxScaleDownRate: set.MaxDown,
				ScalingMetric:    "concurrency",
				TargetValue:      set.Target,
				TotalValue:       float64(concurrency),
				PanicThreshold:   set.PanicThreshold,
				StableWindow:     set.Stable,
				Reachable:        reachable,
			})
		now := time.Unix(1_700_000_000, 0)
		var state autoscale.State
		for range 60 {
			switch random.IntN(4) {
			case 0:
				told.stable, told.panic = 0, 0
			case 1:
				told.stable, told.panic = random.Float64()*float64(concurrency)*3, random.Float64()*float64(concurrency)*20
			case 2:
				told.panic = told.stable * random.Float64() * 4
			}
			want := int(theirs.Scale(log, now).DesiredPodCount)
			var got int
			got, state = autoscale.Decide(now, autoscale.Samples{
				Stable:      told.stable,
				Panic:       told.panic,
				Ready:       told.ready,
				Concurrency: concurrency,
				Unreachable: !reachable,
			}, set, state)
			if got != want {
				t.Fatalf("%+v with %+v: %d, Knative says %d", told, set, got, want)
			}
			steps++
			if !state.Panicking.IsZero() {
				surges++
			}
			if got != told.ready {
				scaled++
			}
			if random.IntN(3) > 0 { // what was decided is there by the next time, or not yet
				told.ready = min(want, 1000)
			}
			now = now.Add(time.Duration(1+random.IntN(20)) * time.Second)
		}
	}
	if surges == 0 || surges == steps || scaled < steps/10 {
		t.Errorf("%d decisions, %d in a surge, %d that scale: that compares nothing", steps, surges, scaled)
	}
}
