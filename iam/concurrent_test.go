package iam_test

import (
	"fmt"
	"sync"
	"testing"

	"giggle/fault"
	"giggle/iam"
)

// Fifty writers who read, add a binding and write with the etag lose none of them.
func TestConcurrentPolicyWriters(t *testing.T) {
	w := newWorld(t)
	const writers = 50
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for {
				p := w.Policy(project)
				p.Bindings = append(p.Bindings[:len(p.Bindings):len(p.Bindings)], iam.Binding{
					Role: "roles/viewer", Members: []string{fmt.Sprintf("user:u%d@giggle.test", i)},
				})
				p.Version = 3
				p.Conditional = append(p.Conditional[:len(p.Conditional):len(p.Conditional)], iam.ConditionalBinding{
					Binding: iam.Binding{
						Role:    "roles/run.invoker",
						Members: []string{fmt.Sprintf("user:u%d@giggle.test", i)},
					},
					Condition: iam.Condition{Title: fmt.Sprint(i), Expression: "true"},
				})
				_, err := w.SetPolicy(t.Context(), project, p)
				if fault.Is(err, fault.Aborted) {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
		})
	}
	wg.Wait()
	p := w.Policy(project)
	if len(p.Bindings) != 1 || len(p.Bindings[0].Members) != writers || len(p.Conditional) != writers {
		t.Errorf("of %d writers are left %d bindings with %d members, and %d with conditions", writers, len(p.Bindings),
			len(p.Bindings[0].Members), len(p.Conditional))
	}
	for i := range writers {
		if !w.Allowed(iam.User(fmt.Sprintf("u%d@giggle.test", i)), "run.services.get", service) {
			t.Errorf("writer %d has not got what it wrote", i)
		}
	}
}
