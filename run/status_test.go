package run

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"giggle/resource"
)

// What is computed from a status that was computed is the same, however much later: else each change of it would call
// for another one. All services that have up to three revisions in any state, and traffic to any of them.
func TestStatusIsAFixpoint(t *testing.T) {
	p := resource.Project{ID: "p", Number: "123456789012"}
	name := resource.Service("p", "europe-north1", "s")
	at := time.Unix(1_800_000_000, 0).UTC()
	states := []State{True, False, Unknown}
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 0))
		svc := Service{Name: name, Generation: r.Int64N(3)}
		revs := make(map[string]Revision)
		ids := []string{"", "s-00009-gone"}
		for i := range r.IntN(4) {
			rev := Revision{Name: resource.Revision{Service: name, ID: fmt.Sprintf("s-%05d-abc", i+1)}}
			state := states[r.IntN(3)]
			rev.Status.Conditions = []Condition{{
				Type:   Ready,
				State:  state,
				Reason: map[State]string{False: "HealthCheckContainerError"}[state],
				Since:  at,
			}}
			revs[rev.Name.ID] = rev
			ids = append(ids, rev.Name.ID)
		}
		any := func() string { return ids[r.IntN(len(ids))] }
		for range r.IntN(3) {
			target := Target{Revision: any(), Percent: r.IntN(101)}
			if r.IntN(2) == 0 {
				target = Target{Latest: true, Percent: 100, Tag: []string{"", "next"}[r.IntN(2)]}
			}
			svc.Traffic = append(svc.Traffic, target)
		}
		svc.Status.LatestCreated, svc.Status.LatestReady = any(), any()
		if r.IntN(2) == 0 {
			svc.Status.Traffic = []TargetStatus{{Target: Target{Revision: any(), Percent: 100}}}
		}
		svc.Status = computeStatus(&svc, revs, p, at)
		again := computeStatus(&svc, revs, p, at.Add(time.Minute))
		if !sameJSON(svc.Status, again) {
			t.Fatalf("seed %d: %+v\nbecomes %+v", seed, svc.Status, again)
		}
	}
}
