// Package limits shares the machine's memory and processes out among what runs in containers: instances that serve,
// steps of builds, builds of Dockerfiles. Cloud gives each its part. It is arithmetic; it measures and enforces
// nothing.
package limits

import (
	"giggle/builds"
	"giggle/engine"
)

// What a step of a build may use, and how many run at once.
const (
	Steps      = 4
	StepMemory = 4 << 30 // bytes
	StepPids   = 2048
)

// The processes of all builds together, beside those of Dockerfiles: the kernel's usual number is 32,768 in all, of
// which containers have three quarters.
const buildsPids = 8192

// Limits are what containers may use of the machine, beside what each of them may.
type Limits struct {
	Serving     int64 // bytes of all instances that serve
	All         int64 // bytes of all containers
	Builds      engine.Group
	Project     engine.Group // of one project's builds
	Dockerfiles Dockerfiles
}

// Dockerfiles are what builds of Dockerfiles may take. Each leaves something to what is beside it.
type Dockerfiles struct {
	All     engine.Limits
	Project engine.Limits // of one project's
	Steps   engine.Limits // of a project's RUN steps together
	Step    engine.Limits // of one RUN step
}

// Of divides the machine's memory. Said is what all instances that serve may use by the user's word, 0 for four fifths.
func Of(said, whole int64) Limits {
	l := Limits{Serving: said, Dockerfiles: dockerfiles(whole)}
	if said <= 0 {
		l.Serving = whole / 5 * 4
	}
	l.Builds = engine.Group{Name: "builds", Memory: min(Steps*StepMemory, whole/2), Pids: buildsPids}
	l.Project = engine.Group{
		Memory: max(l.Builds.Memory/4*3, min(StepMemory, l.Builds.Memory)),
		Pids:   buildsPids / 4 * 3,
	}
	// The platform itself, and whatever else runs on the machine, are left a twentieth, unless the user said otherwise.
	l.All = min(l.Serving+l.Builds.Memory+l.Dockerfiles.All.Memory, max(said, whole/20*19))
	return l
}

func dockerfiles(whole int64) Dockerfiles {
	all := min(8<<30, whole/2)
	part := all / 16
	return Dockerfiles{
		All:     engine.Limits{Memory: all, Pids: 12288},
		Project: engine.Limits{Memory: 12 * part, Pids: 3072},
		Steps:   engine.Limits{Memory: 11 * part, Pids: 2560},
		Step:    engine.Limits{Memory: 8 * part, Pids: 2048},
	}
}

// BuildGroups are what a build's containers share limits with: those of its project's builds, and of all.
func (l Limits) BuildGroups(b builds.Build) []engine.Group {
	project := l.Project
	project.Name = b.Project
	return []engine.Group{l.Builds, project}
}
