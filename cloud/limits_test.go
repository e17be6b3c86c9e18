package cloud

import (
	"testing"

	"giggle/builds"
)

// Whatever the machine, containers together can't take all of its memory, and one project's builds not all that builds have.
func TestShare(t *testing.T) {
	for _, c := range []struct{ said, whole int64 }{{0, 4 << 30}, {0, 16 << 30}, {0, 256 << 30}, {2 << 30, 64 << 30}, {6 << 30, 4 << 30}} {
		l := share(c.said, c.whole)
		if l.all < l.memory || c.said == 0 && l.all >= c.whole {
			t.Errorf("%+v: all containers have %d bytes, those that serve %d", c, l.all, l.memory)
		}
		groups := l.buildGroups(builds.Build{Project: "one"})
		if len(groups) != 2 || groups[0].Name != "builds" || groups[1].Name != "one" || groups[1].Memory > groups[0].Memory || groups[1].Pids >= groups[0].Pids {
			t.Errorf("%+v: a build is in %+v", c, groups)
		}
		if m := groups[1].Memory; m < min(stepMemory, c.whole/2) {
			t.Errorf("%+v: a step that may have %d bytes is in a group with %d", c, int64(stepMemory), m)
		}
	}
}
