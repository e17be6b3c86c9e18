package cloudbuild

import (
	"fmt"
	"time"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/builds"
	"giggle/resource"
)

// ToProto writes a build.
func ToProto(b *builds.Build, p resource.Project) *cloudbuildpb.Build {
	w := &cloudbuildpb.Build{
		Name:         "projects/" + p.Number + "/locations/" + b.Name.Location.Location + "/builds/" + b.Name.ID,
		Id:           b.Name.ID,
		ProjectId:    p.ID,
		Status:       toStatus(b.Status),
		StatusDetail: b.Detail,
		CreateTime:   timestamppb.New(b.Created),
		StartTime:    stamp(b.Started),
		FinishTime:   stamp(b.Finished),
		Timeout:      durationpb.New(b.Timeout),
		LogUrl: "https://console.cloud.google.com/cloud-build/builds;region=" + b.Name.Location.Location + "/" +
			b.Name.ID + "?project=" + p.Number,
		Tags: b.Tags,
	}
	if b.Account != "" { // a build that could not begin has none
		w.ServiceAccount = "projects/" + p.ID + "/serviceAccounts/" + b.Account
	}
	if b.LogsIn != "" {
		w.LogsBucket = "gs://" + b.LogsIn
		if b.LogsDir != "" {
			w.LogsBucket += "/" + b.LogsDir[:len(b.LogsDir)-1]
		}
	}
	if b.Source.Bucket != "" {
		source := &cloudbuildpb.StorageSource{
			Bucket:     b.Source.Bucket,
			Object:     b.Source.Object,
			Generation: b.Source.Generation,
			SourceFetcher: cloudbuildpb.StorageSource_SourceFetcher(
				cloudbuildpb.StorageSource_SourceFetcher_value[b.Source.Fetcher]),
		}
		w.Source = &cloudbuildpb.Source{Source: &cloudbuildpb.Source_StorageSource{StorageSource: source}}
		w.SourceProvenance = &cloudbuildpb.SourceProvenance{ResolvedStorageSource: source}
		if len(b.Hashes) > 0 {
			of := &cloudbuildpb.FileHashes{}
			for _, h := range b.Hashes {
				of.FileHash = append(of.FileHash, &cloudbuildpb.Hash{Type: hashKind(h.Kind), Value: h.Value})
			}
			w.SourceProvenance.FileHashes = map[string]*cloudbuildpb.FileHashes{
				fmt.Sprintf("gs://%s/%s#%d", source.Bucket, source.Object, source.Generation): of,
			}
		}
	}
	w.BuildTriggerId = b.Trigger
	if r := b.Source.Repo; r != nil {
		w.Source = &cloudbuildpb.Source{
			Source: &cloudbuildpb.Source_RepoSource{RepoSource: repoSource(p, r, r.Branch, r.Tag)},
		}
		w.SourceProvenance = &cloudbuildpb.SourceProvenance{ResolvedRepoSource: repoSource(p, r, "", "")}
	}
	if b.Status == builds.Failure || b.Status == builds.InternalError {
		w.FailureInfo = &cloudbuildpb.Build_FailureInfo{
			Type:   cloudbuildpb.Build_FailureInfo_USER_BUILD_STEP,
			Detail: b.Detail,
		}
	}
	specToProto(b, w)
	return w
}

func hashKind(s string) cloudbuildpb.Hash_HashType {
	return cloudbuildpb.Hash_HashType(cloudbuildpb.Hash_HashType_value[s])
}

// repoSource writes a commit of a repository by a branch, a tag or its hash.
func repoSource(p resource.Project, r *builds.Repo, branch, tag string) *cloudbuildpb.RepoSource {
	w := &cloudbuildpb.RepoSource{ProjectId: p.ID, RepoName: r.Name, Dir: r.Dir}
	switch {
	case tag != "":
		w.Revision = &cloudbuildpb.RepoSource_TagName{TagName: tag}
	case branch != "":
		w.Revision = &cloudbuildpb.RepoSource_BranchName{BranchName: branch}
	default:
		w.Revision = &cloudbuildpb.RepoSource_CommitSha{CommitSha: r.Commit}
	}
	return w
}

// specToProto writes what a build is to do, and how far it is.
func specToProto(b *builds.Build, w *cloudbuildpb.Build) {
	s, o := &b.Spec, &b.Spec.Options
	w.Images, w.Substitutions = s.Images, s.Substitutions
	ttl := s.QueueTTL
	if ttl == 0 {
		ttl = builds.DefaultQueueTTL
	}
	w.QueueTtl = durationpb.New(ttl)
	w.Options = &cloudbuildpb.BuildOptions{
		MachineType: cloudbuildpb.BuildOptions_MachineType(cloudbuildpb.BuildOptions_MachineType_value[o.MachineType]),
		Logging:     cloudbuildpb.BuildOptions_LoggingMode(cloudbuildpb.BuildOptions_LoggingMode_value[o.Logging]),
		SubstitutionOption: cloudbuildpb.BuildOptions_SubstitutionOption(
			cloudbuildpb.BuildOptions_SubstitutionOption_value[o.Substitution]),
		RequestedVerifyOption: cloudbuildpb.BuildOptions_VerifyOption(cloudbuildpb.BuildOptions_VerifyOption_value[o.Verify]),
		LogStreamingOption: cloudbuildpb.BuildOptions_LogStreamingOption(
			cloudbuildpb.BuildOptions_LogStreamingOption_value[o.Streaming]),
		DynamicSubstitutions: o.Dynamic,
		AutomapSubstitutions: o.Automap,
		Env:                  o.Env,
		Volumes:              fromVolumes(o.Volumes),
		DiskSizeGb:           o.DiskGB,
	}
	for _, kind := range o.Hashes {
		w.Options.SourceProvenanceHash = append(w.Options.SourceProvenanceHash, hashKind(kind))
	}
	if w.Options.Logging == cloudbuildpb.BuildOptions_LOGGING_UNSPECIFIED {
		w.Options.Logging = cloudbuildpb.BuildOptions_LEGACY
	}
	if s.Objects.Location != "" {
		w.Artifacts = &cloudbuildpb.Artifacts{
			Objects: &cloudbuildpb.Artifacts_ArtifactObjects{Location: s.Objects.Location, Paths: s.Objects.Paths},
		}
	}
	if len(s.Images) > 0 && w.Artifacts == nil {
		w.Artifacts = &cloudbuildpb.Artifacts{}
	}
	if w.Artifacts != nil {
		w.Artifacts.Images = s.Images
	}
	if !b.Uploaded.Started.IsZero() && w.Artifacts.GetObjects() != nil {
		w.Artifacts.Objects.Timing = span(b.Uploaded.Started, b.Uploaded.Finished)
	}
	ran := len(b.Images) > 0
	var outputs [][]byte // nil while no step has left any
	digests := make([]string, len(s.Steps))
	var firstStart, lastEnd time.Time
	for i := range s.Steps {
		t, st := &s.Steps[i], builds.StepStatus{}
		if i < len(b.Steps) {
			st = b.Steps[i]
		}
		x := &cloudbuildpb.BuildStep{
			Name:                 t.Name,
			Id:                   t.ID,
			Args:                 t.Args,
			Env:                  t.Env,
			Dir:                  t.Dir,
			Entrypoint:           t.Entrypoint,
			Script:               t.Script,
			WaitFor:              t.WaitFor,
			Volumes:              fromVolumes(t.Volumes),
			AutomapSubstitutions: t.Automap,
			AllowFailure:         t.AllowFailure,
			AllowExitCodes:       t.AllowExitCodes,
			ExitCode:             st.ExitCode,
			Timing:               span(st.Started, st.Finished),
		}
		if t.Builtin == "" { // what is built in has no image to be pulled
			x.PullTiming = span(st.Started, st.Pulled)
		}
		if t.Timeout > 0 {
			x.Timeout = durationpb.New(t.Timeout)
		}
		if st.Status != "" {
			x.Status = toStatus(st.Status)
		} else if !b.Status.Terminal() {
			x.Status = cloudbuildpb.Build_QUEUED
		}
		w.Steps = append(w.Steps, x)
		if len(st.Output) > 0 {
			if outputs == nil {
				outputs = make([][]byte, len(s.Steps))
			}
			outputs[i] = st.Output
		}
		digests[i], ran = st.Image, ran || st.Image != ""
		if !st.Started.IsZero() && (firstStart.IsZero() || st.Started.Before(firstStart)) {
			firstStart = st.Started
		}
		if st.Finished.After(lastEnd) {
			lastEnd = st.Finished
		}
	}
	if ran && b.Status.Terminal() {
		w.Results = &cloudbuildpb.Results{
			BuildStepImages:  digests,
			BuildStepOutputs: outputs,
			NumArtifacts:     int64(b.Objects),
			ArtifactManifest: b.Manifest,
			ArtifactTiming:   span(b.Uploaded.Started, b.Uploaded.Finished),
		}
		for _, i := range b.Images {
			w.Results.Images = append(w.Results.Images, &cloudbuildpb.BuiltImage{
				Name:       i.Name,
				Digest:     i.Digest,
				PushTiming: span(i.Started, i.Finished),
			})
		}
		w.Timing = map[string]*cloudbuildpb.TimeSpan{"BUILD": span(firstStart, lastEnd),
			"FETCHSOURCE": span(b.Started, firstStart)}
		if n := len(b.Images); n > 0 {
			w.Timing["PUSH"] = span(b.Images[0].Started, b.Images[n-1].Finished)
		}
		for k, v := range w.Timing {
			if v == nil {
				delete(w.Timing, k)
			}
		}
	}
	if a := b.Approval; a != nil {
		w.Approval = &cloudbuildpb.BuildApproval{
			Config: &cloudbuildpb.ApprovalConfig{ApprovalRequired: true},
			State:  cloudbuildpb.BuildApproval_PENDING,
		}
		if a.Approver != "" {
			w.Approval.State = cloudbuildpb.BuildApproval_APPROVED
			decision := cloudbuildpb.ApprovalResult_APPROVED
			if a.Rejected {
				w.Approval.State, decision = cloudbuildpb.BuildApproval_REJECTED, cloudbuildpb.ApprovalResult_REJECTED
			}
			w.Approval.Result = &cloudbuildpb.ApprovalResult{
				ApproverAccount: a.Approver,
				ApprovalTime:    stamp(a.Time),
				Decision:        decision,
				Comment:         a.Comment,
				Url:             a.URL,
			}
		} else if b.Status.Terminal() {
			w.Approval.State = cloudbuildpb.BuildApproval_CANCELLED
		}
	}
}

func fromVolumes(in []builds.Volume) (out []*cloudbuildpb.Volume) {
	for _, v := range in {
		out = append(out, &cloudbuildpb.Volume{Name: v.Name, Path: v.Path})
	}
	return out
}

func toStatus(s builds.Status) cloudbuildpb.Build_Status {
	return cloudbuildpb.Build_Status(cloudbuildpb.Build_Status_value[string(s)])
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// span is nil until it has started.
func span(from, to time.Time) *cloudbuildpb.TimeSpan {
	if from.IsZero() {
		return nil
	}
	return &cloudbuildpb.TimeSpan{StartTime: stamp(from), EndTime: stamp(to)}
}
