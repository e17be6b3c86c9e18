package cloud

import (
	"giggle/builds"
	"giggle/engine"
)

// limits are what containers may use of the machine, beside what each of them may.
type limits struct {
	memory  int64 // bytes of all instances that serve
	all     int64 // bytes of all containers
	builds  engine.Group
	project engine.Group // of one project's builds
}

// The processes of all builds together, beside those of Dockerfiles: the kernel's usual number is 32,768 in all, of which
// containers have three quarters.
const buildsPids = 8192

// share divides the machine's memory. Said is what all instances that serve may use by the user's word, 0 for the usual.
func share(said, whole int64) limits {
	l := limits{memory: memoryBudget(said, whole)}
	l.builds = engine.Group{Name: "builds", Memory: min(stepSlots*stepMemory, whole/2), Pids: buildsPids}
	l.project = engine.Group{Memory: max(l.builds.Memory/4*3, min(stepMemory, l.builds.Memory)), Pids: buildsPids / 4 * 3}
	// The platform itself, and whatever else runs on the machine, are left a twentieth, unless the user said otherwise.
	dockerfiles, _, _, _ := dockerLimits(whole)
	l.all = min(l.memory+l.builds.Memory+dockerfiles.Memory, max(said, whole/20*19))
	return l
}

// buildGroups are what a build's containers share limits with: those of its project's builds, and of all.
func (l limits) buildGroups(b builds.Build) []engine.Group {
	project := l.project
	project.Name = b.Project
	return []engine.Group{l.builds, project}
}
