package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/engine"
)

// crowd starts an instance that takes memory and threads, and reports whether it could. One that could keeps them.
func crowd(t *testing.T, e *engine.Engine, id string, bytes, threads int, groups ...engine.Group) bool {
	t.Helper()
	l := newLog()
	i := start(t, e, engine.Spec{
		ID:     id,
		Args:   []string{"/app", "crowd", fmt.Sprint(bytes), fmt.Sprint(threads)},
		Memory: 512 << 20,
		Groups: groups,
		Output: l.add,
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case <-l.fresh:
			if strings.Contains(l.text(), "crowded") {
				return true
			}
		case <-i.Done():
			return false
		case <-ctx.Done():
			t.Fatalf("%s: nothing comes of it: %s", id, l.text())
		}
	}
}

// What instances may use is bounded for all of them together, and for those of a group, whatever each may; others, and
// those that were there before, go on.
func TestGroups(t *testing.T) {
	for _, r := range runtimes(t) {
		t.Run(r, func(t *testing.T) {
			e := openWith(t, engine.Config{Dir: t.TempDir(), Runtime: r, Pids: 400, Memory: 1 << 30})
			builds := engine.Group{Name: "builds", Pids: 250, Memory: 400 << 20}
			mine := []engine.Group{builds, {Name: "mine", Pids: 150, Memory: 200 << 20}}
			theirs := []engine.Group{builds, {Name: "theirs", Pids: 150, Memory: 200 << 20}}
			service := start(t, e, serving("service"))
			for _, c := range []struct {
				name    string
				threads int
				groups  []engine.Group
				want    bool
			}{
				{"the first of a project", 100, mine, true},
				{"one more than it may have", 100, mine, false},
				{"another project's", 100, theirs, true},
				{"a third one's, where all builds have what they may", 100, []engine.Group{builds, {
					Name: "third",
				}}, false},
				{"one that is no build", 100, nil, true},
				{"one more than all may have", 100, nil, false},
			} {
				if got := crowd(t, e, c.name, 1, c.threads, c.groups...); got != c.want {
					t.Errorf("%s: %t, want %t", c.name, got, c.want)
				}
			}
			if got := mustGet(t, service, "/"); got != "hello" {
				t.Errorf("the service answers %q", got)
			}
		})
		t.Run(r+"/memory", func(t *testing.T) {
			e := openWith(t, engine.Config{Dir: t.TempDir(), Runtime: r})
			group := engine.Group{Name: "small", Memory: 100 << 20}
			if !crowd(t, e, "one", 20<<20, 1, group) {
				t.Fatal("a small one does not fit")
			}
			if crowd(t, e, "big", 200<<20, 1, group) {
				t.Error("one that is bigger than its group fits")
			}
			if !crowd(t, e, "elsewhere", 200<<20, 1) {
				t.Error("it does not fit outside of the group")
			}
		})
	}
}

// Every directory that an instance is made of is told as long as it is there.
func TestLayersInUse(t *testing.T) {
	e := open(t, "")
	i := start(t, e, serving("one"))
	if got := e.Layers(); !slices.Contains(got, layer) {
		t.Errorf("with an instance: %v, want %s", got, layer)
	}
	if err := i.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); len(e.Layers()) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after its end: %v", e.Layers())
		}
	}
}
