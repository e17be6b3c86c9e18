package main

import "testing"

// Pulls happen where they are asked for, and a wrong word for it is refused.
func TestPullPolicy(t *testing.T) {
	p := &program{}
	for _, c := range []struct {
		pull, limit string
		allowed     bool
		fails       bool
	}{
		{"never", "20Gi", false, false},
		{"always", "1Gi", true, false},
		{"sometimes", "20Gi", false, true},
		{"never", "much", false, true},
	} {
		got, err := p.policy(pullFlags{pull: c.pull, limit: c.limit}, t.TempDir())
		if (err != nil) != c.fails || got.Allowed != c.allowed {
			t.Errorf("%q %q: %+v, %v", c.pull, c.limit, got, err)
		}
	}
}
