package limits_test

import (
	"testing"

	"giggle/builds"
	"giggle/cloud/limits"
)

// Whatever the machine, containers together can't take all of its memory, one project's builds not all that builds
// have, and the builds of one Dockerfile not all that those of its project have.
func TestOf(t *testing.T) {
	for _, c := range []struct{ said, whole int64 }{{0, 4 << 30}, {0, 16 << 30}, {0, 256 << 30}, {2 << 30, 64 << 30},
		{6 << 30, 4 << 30}} {
		l := limits.Of(c.said, c.whole)
		if l.All < l.Serving || c.said == 0 && l.All >= c.whole {
			t.Errorf("%+v: all containers have %d bytes, those that serve %d", c, l.All, l.Serving)
		}
		if c.said > 0 && l.Serving != c.said {
			t.Errorf("%+v: instances have %d bytes", c, l.Serving)
		}
		groups := l.BuildGroups(builds.Build{Project: "one"})
		if len(groups) != 2 || groups[0].Name != "builds" || groups[1].Name != "one" ||
			groups[1].Memory > groups[0].Memory || groups[1].Pids >= groups[0].Pids {
			t.Errorf("%+v: a build is in %+v", c, groups)
		}
		if m := groups[1].Memory; m < min(limits.StepMemory, c.whole/2) {
			t.Errorf("%+v: a step that may have %d bytes is in a group with %d", c, int64(limits.StepMemory), m)
		}
		d := l.Dockerfiles
		if d.Step.Memory >= d.Steps.Memory || d.Steps.Memory >= d.Project.Memory || d.Project.Memory >= d.All.Memory ||
			d.All.Memory > c.whole/2 {
			t.Errorf("%+v: Dockerfiles have %+v", c, d)
		}
		if d.Step.Pids >= d.Steps.Pids || d.Steps.Pids >= d.Project.Pids || d.Project.Pids >= d.All.Pids {
			t.Errorf("%+v: Dockerfiles have %+v", c, d)
		}
	}
}
