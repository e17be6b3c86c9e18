package git

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"giggle/fault"
)

// A project has its share, all have theirs, and what is given back is there for the next.
func TestGate(t *testing.T) {
	for name, c := range map[string]struct {
		inside  string // projects that are in
		next    string
		refused string // what is said, "" for nothing
	}{
		"the first":                       {"", "a", ""},
		"within the share":                {"a", "a", ""},
		"over the share":                  {"a a", "a", "The project has as many"},
		"another's share":                 {"a a", "b", ""},
		"all that there is":               {"a a b", "c", "There are as many"},
		"all that there is, and a share":  {"a a b", "a", "The project has as many"},
		"all that there is, but no share": {"a a b", "b", "There are as many"},
	} {
		g := newGate(3, 2, time.Millisecond)
		var leave []func()
		for _, p := range strings.Fields(c.inside) {
			out, err := g.enter(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, out)
		}
		out, err := g.enter(t.Context(), c.next)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.refused != "" &&
			(!fault.Is(err, fault.ResourceExhausted) || !strings.Contains(err.Error(), c.refused) ||
				fault.From(err).RetryAfter == 0):
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			leave = append(leave, out)
		}
		for _, out := range leave {
			out()
		}
		if len(g.projects) != 0 {
			t.Errorf("%s: %d projects are left", name, len(g.projects))
		}
		if !g.all.TryAcquire(3) {
			t.Errorf("%s: something was not given back", name)
		}
	}
}

// Who waits gets in when somebody leaves, and one who goes away says why.
func TestGateWaits(t *testing.T) {
	g := newGate(1, 1, time.Minute)
	leave, err := g.enter(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for i := range 3 {
		go func() {
			leave, err := g.enter(t.Context(), fmt.Sprint("p", i))
			if err == nil {
				leave()
			}
			done <- err
		}()
	}
	why := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := g.enter(ctx, "a"); !errors.Is(err, why) {
		t.Errorf("one who went away: %v", err)
	}
	leave()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
