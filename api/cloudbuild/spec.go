package cloudbuild

import (
	"fmt"
	"slices"
	"time"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"giggle/builds"
	"giggle/fault"
)

// ToRequest reads a build that is asked for. Fields that only the server sets count for nothing, as in Cloud Build;
// what is not implemented is refused with its path.
func ToRequest(w *cloudbuildpb.Build) (builds.Request, error) {
	if err := refuse(w); err != nil {
		return builds.Request{}, err
	}
	o := w.GetOptions()
	r := builds.Request{
		Tags:    w.GetTags(),
		Timeout: w.GetTimeout().AsDuration(),
		Spec: builds.Spec{
			Images:        w.GetImages(),
			Substitutions: w.GetSubstitutions(),
			QueueTTL:      w.GetQueueTtl().AsDuration(),
			LogsBucket:    w.GetLogsBucket(),
			Account:       w.GetServiceAccount(),
			Options: builds.Options{
				Dynamic: o.GetDynamicSubstitutions(),
				Automap: o.GetAutomapSubstitutions(),
				Env:     o.GetEnv(),
				Volumes: toVolumes(o.GetVolumes()),
				DiskGB:  o.GetDiskSizeGb(),
			},
		},
	}
	for _, e := range []struct {
		to   *string
		name string
		from interface{ String() string }
	}{
		{&r.Spec.Options.MachineType, "options.machineType", o.GetMachineType()},
		{&r.Spec.Options.Logging, "options.logging", o.GetLogging()},
		{&r.Spec.Options.Substitution, "options.substitutionOption", o.GetSubstitutionOption()},
		{&r.Spec.Options.Verify, "options.requestedVerifyOption", o.GetRequestedVerifyOption()},
		{&r.Spec.Options.Streaming, "options.logStreamingOption", o.GetLogStreamingOption()},
	} {
		if *e.to = e.from.String(); len(*e.to) > 0 && (*e.to)[0] >= '0' && (*e.to)[0] <= '9' ||
			len(*e.to) > 0 && (*e.to)[0] == '-' {
			return r, fault.Invalid(e.name, "%s is not a value of this field", *e.to)
		}
	}
	for _, kind := range o.GetSourceProvenanceHash() {
		if kind != cloudbuildpb.Hash_NONE {
			r.Spec.Options.Hashes = append(r.Spec.Options.Hashes, kind.String())
		}
	}
	if a := w.GetArtifacts(); a != nil {
		switch {
		case len(r.Spec.Images) == 0:
			r.Spec.Images = a.GetImages()
		case len(a.GetImages()) > 0 && !slices.Equal(a.GetImages(), r.Spec.Images):
			return r, fault.Invalid("artifacts.images", "cannot specify different .images and .artifacts.images")
		}
		r.Spec.Objects = builds.Objects{Location: a.GetObjects().GetLocation(), Paths: a.GetObjects().GetPaths()}
	}
	if s := w.GetSource().GetStorageSource(); s != nil {
		if s.GetBucket() == "" || s.GetObject() == "" {
			return r, fault.Invalid("source.storageSource", "bucket and object are needed")
		}
		r.Source = builds.Source{Bucket: s.GetBucket(), Object: s.GetObject(), Generation: s.GetGeneration()}
		if f := s.GetSourceFetcher(); f != cloudbuildpb.StorageSource_SOURCE_FETCHER_UNSPECIFIED {
			r.Source.Fetcher = f.String()
		}
	}
	for _, t := range w.GetSteps() {
		r.Spec.Steps = append(r.Spec.Steps, builds.Step{
			Name:           t.GetName(),
			ID:             t.GetId(),
			Args:           t.GetArgs(),
			Env:            t.GetEnv(),
			Dir:            t.GetDir(),
			Entrypoint:     t.GetEntrypoint(),
			Script:         t.GetScript(),
			WaitFor:        t.GetWaitFor(),
			Timeout:        t.GetTimeout().AsDuration(),
			Volumes:        toVolumes(t.GetVolumes()),
			Automap:        t.AutomapSubstitutions,
			AllowFailure:   t.GetAllowFailure(),
			AllowExitCodes: t.GetAllowExitCodes(),
		})
	}
	return r, nil
}

func toVolumes(in []*cloudbuildpb.Volume) (out []builds.Volume) {
	for _, v := range in {
		out = append(out, builds.Volume{Name: v.GetName(), Path: v.GetPath()})
	}
	return out
}

// refuse refuses what this platform can't do, and durations that are none.
func refuse(w *cloudbuildpb.Build) error {
	if err := buildFields.check("", w.ProtoReflect()); err != nil {
		return err
	}
	o := w.GetOptions()
	if o.GetDefaultLogsBucketBehavior() == cloudbuildpb.BuildOptions_REGIONAL_USER_OWNED_BUCKET &&
		w.GetLogsBucket() == "" {
		return fault.NotImplemented("options.defaultLogsBucketBehavior",
			"logs are kept in the platform's own bucket; name another one in logsBucket")
	}
	for i, t := range w.GetSteps() {
		if err := duration(fmt.Sprintf("steps[%d].timeout", i), t.GetTimeout()); err != nil {
			return err
		}
	}
	if err := duration("timeout", w.GetTimeout()); err != nil {
		return err
	}
	return duration("queueTtl", w.GetQueueTtl())
}

// duration refuses one that is negative or no duration at all.
func duration(path string, d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() < 0 || d.AsDuration() > builds.MaxTimeout {
		return fault.Invalid(path, "must be between 0s and %s", builds.MaxTimeout.Round(time.Hour))
	}
	return nil
}
