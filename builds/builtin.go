package builds

import (
	"maps"
	"slices"
	"strings"

	"giggle/fault"
)

// Builtin is what does a step in place of a container: it makes an image of the build's source. A deploy from source is
// a build with one such step; no configuration can ask for one.
type Builtin string

// What there is built in.
const (
	Buildpack  Builtin = "buildpack"  // finds out the language of the source
	Dockerfile Builtin = "dockerfile" // builds the Dockerfile at the root of the source
)

// standsFor are the images that do the same on Cloud Build, as gcloud 528 has them in submit_util.py.
var standsFor = map[Builtin]string{
	Buildpack:  "gcr.io/k8s-skaffold/pack",
	Dockerfile: "gcr.io/cloud-builders/docker",
}

// ImageOf is the spec of a build that makes an image of its source. The variables are for what makes it.
func ImageOf(by Builtin, image string, variables map[string]string) Spec {
	step := Step{Name: standsFor[by], Builtin: by, Image: image}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		step.Env = append(step.Env, name+"="+variables[name])
	}
	return Spec{Steps: []Step{step}, Images: []string{image}}
}

// Variables is the step's environment by name.
func (t *Step) Variables() map[string]string {
	out := make(map[string]string, len(t.Env))
	for _, e := range t.Env {
		name, value, _ := strings.Cut(e, "=")
		out[name] = value
	}
	return out
}

// BuiltIn returns the step that is built in; nil for a build of containers.
func (s *Spec) BuiltIn() *Step {
	for i := range s.Steps {
		if s.Steps[i].Builtin != "" {
			return &s.Steps[i]
		}
	}
	return nil
}

// repeatable reports whether a build that was interrupted is run again. What is built in makes the same image of the
// same source, while a container may have done something that must not be done twice.
func (s *Spec) repeatable() bool { return s.BuiltIn() != nil }

// checkBuiltin refuses a built-in step that is not alone: it has the source as it was uploaded, and what other steps
// make of it could lead anywhere.
func (s *Spec) checkBuiltin() error {
	t := s.BuiltIn()
	switch {
	case t == nil:
		return nil
	case standsFor[t.Builtin] == "":
		return fault.Invalid("steps", "%.50q is not built in", t.Builtin)
	case len(s.Steps) > 1:
		return fault.Invalid("steps", "the built-in step %q stands alone", t.Builtin)
	}
	return nil
}
