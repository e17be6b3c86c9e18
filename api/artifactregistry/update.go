package artifactregistry

import (
	"context"
	"encoding/json"
	"strings"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/encoding/protojson"

	"giggle/artifacts"
	"giggle/fault"
)

// changes are the fields of a repository that can be changed, each with what changes it. A path below one of them
// ("labels.team") changes the whole of it, as it stands in the request.
var changes = map[string]func(r *artifacts.Repository, want artifacts.Repository){
	"description":            func(r *artifacts.Repository, want artifacts.Repository) { r.Description = want.Description },
	"labels":                 func(r *artifacts.Repository, want artifacts.Repository) { r.Labels = want.Labels },
	"docker_config":          func(r *artifacts.Repository, want artifacts.Repository) { r.ImmutableTags = want.ImmutableTags },
	"cleanup_policies":       func(r *artifacts.Repository, want artifacts.Repository) { r.Cleanup = want.Cleanup },
	"cleanup_policy_dry_run": func(r *artifacts.Repository, want artifacts.Repository) { r.CleanupDryRun = want.CleanupDryRun },
	// Nothing scans, which the request may say, too.
	"vulnerability_scanning_config": func(*artifacts.Repository, artifacts.Repository) {},
}

// UpdateRepository changes what the mask names, and all that can be changed for an empty mask.
func (s *Server) UpdateRepository(
	ctx context.Context, r *artifactregistrypb.UpdateRepositoryRequest,
) (*artifactregistrypb.Repository, error) {
	n, err := s.repository(r.GetRepository().GetName())
	if err != nil {
		return nil, err
	}
	want, err := fromProto(r.GetRepository())
	if err != nil {
		return nil, err
	}
	var apply []func(*artifacts.Repository, artifacts.Repository)
	paths := r.GetUpdateMask().GetPaths()
	if len(paths) == 0 || len(paths) == 1 && paths[0] == "*" {
		paths = []string{"description", "labels", "docker_config", "cleanup_policies", "cleanup_policy_dry_run"}
	}
	for _, p := range paths {
		top, _, _ := strings.Cut(p, ".")
		change, ok := changes[top]
		if !ok {
			return nil, fault.Invalid("updateMask", "%.60q of a repository can't be changed", p)
		}
		apply = append(apply, change)
	}
	have, err := s.Artifacts.UpdateRepository(ctx, n, func(r *artifacts.Repository) {
		for _, change := range apply {
			change(r, want)
		}
	})
	if err != nil {
		return nil, err
	}
	return s.toProto(ctx, have)
}

// cleanupFromProto writes cleanup policies as they are kept.
func cleanupFromProto(all map[string]*artifactregistrypb.CleanupPolicy) (map[string]json.RawMessage, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(all))
	for id, p := range all {
		b, err := protojson.Marshal(p)
		if err != nil {
			return nil, err
		}
		out[id] = b
	}
	return out, nil
}

// cleanupToProto reads cleanup policies as they are kept.
func cleanupToProto(all map[string]json.RawMessage) (map[string]*artifactregistrypb.CleanupPolicy, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := make(map[string]*artifactregistrypb.CleanupPolicy, len(all))
	for id, b := range all {
		p := new(artifactregistrypb.CleanupPolicy)
		if err := protojson.Unmarshal(b, p); err != nil {
			return nil, err
		}
		out[id] = p
	}
	return out, nil
}

// GetProjectSettings says that gcr.io is served by Artifact Registry, which it always is here.
func (s *Server) GetProjectSettings(
	_ context.Context, r *artifactregistrypb.GetProjectSettingsRequest,
) (*artifactregistrypb.ProjectSettings, error) {
	ref, ok := strings.CutSuffix(strings.TrimPrefix(r.GetName(), "projects/"), "/projectSettings")
	if !ok {
		return nil, fault.New(fault.InvalidArgument, "%.200q is not the name of a project's settings.", r.GetName())
	}
	project, err := s.Project(ref)
	if err != nil {
		return nil, err
	}
	return &artifactregistrypb.ProjectSettings{
		Name:                   project.String() + "/projectSettings",
		LegacyRedirectionState: artifactregistrypb.ProjectSettings_REDIRECTION_FROM_GCR_IO_ENABLED,
		PullPercent:            100,
	}, nil
}
