package artifactregistry

import (
	"context"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/artifacts"
	"giggle/fault"
)

// toProto writes a repository without its size.
func toProto(r artifacts.Repository) (*artifactregistrypb.Repository, error) {
	cleanup, err := cleanupToProto(r.Cleanup)
	w := &artifactregistrypb.Repository{
		Name:        r.Name.String(),
		Format:      artifactregistrypb.Repository_Format(artifactregistrypb.Repository_Format_value[string(r.Format)]),
		Mode:        artifactregistrypb.Repository_STANDARD_REPOSITORY,
		Description: r.Description,
		Labels:      r.Labels,
		CreateTime:  timestamppb.New(r.Created),
		UpdateTime:  timestamppb.New(r.Updated),
		RegistryUri: artifacts.Host(r.Name.Location.Location) + "/" + r.Name.Project + "/" + r.Name.ID,

		CleanupPolicies:     cleanup,
		CleanupPolicyDryRun: r.CleanupDryRun,
	}
	if r.ImmutableTags {
		w.FormatConfig = &artifactregistrypb.Repository_DockerConfig{
			DockerConfig: &artifactregistrypb.Repository_DockerRepositoryConfig{ImmutableTags: true},
		}
	}
	return w, err
}

// toProto writes a repository with its size now.
func (s *Server) toProto(ctx context.Context, r artifacts.Repository) (*artifactregistrypb.Repository, error) {
	w, err := toProto(r)
	if err != nil {
		return nil, err
	}
	w.SizeBytes, err = s.Artifacts.Size(ctx, r.Name)
	return w, err
}

// fromProto reads a repository that is to be made, all but its name. What is not implemented is refused by its path.
func fromProto(w *artifactregistrypb.Repository) (artifacts.Repository, error) {
	if w == nil {
		return artifacts.Repository{}, fault.Invalid("repository", "is missing")
	}
	var refused error
	w.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		refused = refuse(fd, w)
		return refused == nil
	})
	if refused != nil {
		return artifacts.Repository{}, refused
	}
	cleanup, err := cleanupFromProto(w.GetCleanupPolicies())
	r := artifacts.Repository{
		Description:   w.GetDescription(),
		Labels:        w.GetLabels(),
		ImmutableTags: w.GetDockerConfig().GetImmutableTags(),
		Cleanup:       cleanup,
		CleanupDryRun: w.GetCleanupPolicyDryRun(),
	}
	if w.GetDisallowUnspecifiedMode() && w.GetMode() == artifactregistrypb.Repository_MODE_UNSPECIFIED {
		return r, fault.Invalid("repository.mode", "is missing")
	}
	if w.GetFormat() != artifactregistrypb.Repository_FORMAT_UNSPECIFIED {
		r.Format = artifacts.Format(w.GetFormat().String())
	}
	return r, err
}

// refuse returns nil for a field that means something here, and for one that only we fill.
func refuse(fd protoreflect.FieldDescriptor, w *artifactregistrypb.Repository) error {
	switch fd.Name() {
	case "name", "format", "description", "labels", "docker_config", "cleanup_policies", "cleanup_policy_dry_run",
		"disallow_unspecified_mode",
		"create_time", "update_time", "size_bytes", "satisfies_pzs", "satisfies_pzi", "registry_uri":
		return nil
	case "mode":
		if w.GetMode() == artifactregistrypb.Repository_STANDARD_REPOSITORY {
			return nil
		}
	case "vulnerability_scanning_config":
		const off = artifactregistrypb.Repository_VulnerabilityScanningConfig_DISABLED
		if w.GetVulnerabilityScanningConfig().GetEnablementConfig() == off {
			return nil // nothing scans
		}
	}
	return fault.NotImplemented("repository."+fd.JSONName(), "is not implemented")
}
