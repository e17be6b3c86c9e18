package builds

import (
	"slices"
	"time"
)

// Spec is what a build does: the part of a cloudbuild.yaml that runs.
type Spec struct {
	Steps         []Step
	Images        []string // to be pushed from the build's image store once all steps have succeeded
	Objects       Objects
	Substitutions map[string]string // the user's, and the built-in ones that the caller may set
	Options       Options
	QueueTTL      time.Duration // how long the build may wait; 0 is DefaultQueueTTL
	LogsBucket    string        // as the user wrote it, "gs://BUCKET/DIRECTORY"; "" for the platform's own
	Account       string        // as the user wrote it; "" for the project's default
}

// Step is one container of a build, or what is built in in its place.
type Step struct {
	Name           string  // of the image
	Builtin        Builtin // does the step in place of a container; "" for nearly all
	Image          string  // that a built-in step makes
	ID             string
	Args           []string
	Env            []string // "KEY=value"
	Dir            string   // relative to /workspace
	Entrypoint     string
	Script         string   // run by its own first line or by sh, in place of Entrypoint and Args
	WaitFor        []string // ids; "-" is always done; none waits for all steps before
	Timeout        time.Duration
	Volumes        []Volume
	Automap        *bool // substitutions are environment variables; nil follows Options
	AllowFailure   bool
	AllowExitCodes []int32
}

// Volume is a directory that steps share beside /workspace.
type Volume struct{ Name, Path string }

// Objects are files of the workspace that are uploaded in the end.
type Objects struct {
	Location string   // "gs://BUCKET/DIRECTORY/"
	Paths    []string // globs, relative to the workspace
}

// Options are the build's. The values are those of google.devtools.cloudbuild.v1.BuildOptions.
type Options struct {
	MachineType  string // kept and shown; the machine is this one
	Logging      string
	Substitution string   // "ALLOW_LOOSE" lets substitutions be missing or unused
	Verify       string   // requestedVerifyOption, kept and shown
	Streaming    string   // logStreamingOption, kept and shown: logs are always streamed
	Hashes       []string // of the source, that the build's provenance is to have: sourceProvenanceHash
	Dynamic      bool     // substitutions may be made of others
	Automap      bool
	Env          []string
	Volumes      []Volume
	DiskGB       int64
}

// The options' values that something depends on.
const (
	LoggingNone      = "NONE"
	LoggingCloud     = "CLOUD_LOGGING_ONLY"
	loggingBucket    = "GCS_ONLY"
	loggingOld       = "STACKDRIVER_ONLY" // the old name of LoggingCloud
	AllowLoose       = "ALLOW_LOOSE"
	Immediately      = "-" // in WaitFor
	DefaultQueueTTL  = time.Hour
	maxSubstitutions = 200
)

// clone copies a spec deeply, so that one can be expanded and the other kept.
func (s *Spec) clone() Spec {
	out := *s
	out.Steps = slices.Clone(s.Steps)
	for i := range out.Steps {
		t := &out.Steps[i]
		t.Args, t.Env = slices.Clone(t.Args), slices.Clone(t.Env)
		t.WaitFor, t.Volumes = slices.Clone(t.WaitFor), slices.Clone(t.Volumes)
	}
	out.Images, out.Objects.Paths = slices.Clone(s.Images), slices.Clone(s.Objects.Paths)
	out.Options.Env, out.Options.Volumes = slices.Clone(s.Options.Env), slices.Clone(s.Options.Volumes)
	return out
}

// automaps reports whether a step sees the substitutions as environment variables.
func (s *Spec) automaps(t *Step) bool {
	if t.Automap != nil {
		return *t.Automap
	}
	return s.Options.Automap
}

// Needs returns the indexes of the steps that step i waits for, of a spec that was checked.
func (s *Spec) Needs(i int) []int {
	var out []int
	wait := s.Steps[i].WaitFor
	for j := range i { // Immediately is no step's id, and always done
		if len(wait) == 0 || s.Steps[j].ID != "" && slices.Contains(wait, s.Steps[j].ID) {
			out = append(out, j)
		}
	}
	return out
}

// StepStatus is how far a step is.
type StepStatus struct {
	Status            Status // "" counts as Queued
	Started, Finished time.Time
	Pulled            time.Time // when the image was there
	ExitCode          int32
	Image             string // digest of the step's image
	Output            []byte // that it left for the build's results
}

// Pushed is an image that a build pushed.
type Pushed struct {
	Name, Digest      string
	Started, Finished time.Time
}
