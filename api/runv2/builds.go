package runv2

import (
	"context"
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/protobuf/types/known/anypb"

	"giggle/api/cloudbuild"
	"giggle/api/guard"
	"giggle/builds"
	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
	"giggle/rest"
)

// Builds serves builds:submit, with which gcloud 528 deploys from source.
type Builds struct {
	runpb.UnimplementedBuildsServer

	Builds  *builds.Builds
	Project func(ref string) (resource.Project, error) // by id or number
	Account func(p resource.Project) string            // that builds run as which name none
	// ActAs fails when the caller may not act as a service account, or when there is none of that address.
	ActAs func(ctx context.Context, who iam.Principal, project, email string) error
	// LogsBucket makes sure that the bucket of a project's build logs is there, and returns its name.
	LogsBucket func(ctx context.Context, p resource.Project) (string, error)
}

// defaultBase is the base image that gcloud 528 names when the user names none.
const defaultBase = "gcr.io/buildpacks/google-22/run"

// Register adds the routes of builds.
func (s *Builds) Register(m *rest.Mux) { runpb.RegisterBuildsServer(m, s) }

// SubmitBuild queues a build of an uploaded source. The operation that it returns is polled at Cloud Build, by the
// build's id.
func (s *Builds) SubmitBuild(ctx context.Context, r *runpb.SubmitBuildRequest) (*runpb.SubmitBuildResponse, error) {
	in, err := resource.ParseLocation(r.GetParent())
	if err != nil {
		return nil, err
	}
	p, err := s.Project(in.Project)
	if err != nil {
		return nil, err
	}
	in.Project = p.ID
	if !resource.IsRegion(in.Location) {
		return nil, fault.New(fault.NotFound, "Location %q is not one of Cloud Run's.", in.Location)
	}
	if r.GetWorkerPool() != "" {
		return nil, fault.NotImplemented("workerPool", "worker pools are not implemented")
	}
	if r.GetMachineType() != "" {
		return nil, fault.NotImplemented("machineType", "builds have the machine that Giggle runs on")
	}
	src := r.GetStorageSource()
	b := builds.Build{
		Source: builds.Source{Bucket: src.GetBucket(), Object: src.GetObject(), Generation: src.GetGeneration()},
		Image:  r.GetImageUri(), Tags: r.GetTags(), Account: s.Account(p), Creator: guard.Caller(ctx).Email(),
	}
	if sa := r.GetServiceAccount(); sa != "" {
		if email := sa[strings.LastIndexByte(sa, '/')+1:]; email != b.Account {
			if err := s.ActAs(ctx, guard.Caller(ctx), p.ID, email); err != nil {
				return nil, err
			}
			b.Account = email
		}
	}
	switch t := r.GetBuildType().(type) {
	case *runpb.SubmitBuildRequest_BuildpackBuild:
		switch p := t.BuildpackBuild; {
		case p.GetFunctionTarget() != "":
			return nil, fault.NotImplemented("buildpackBuild.functionTarget", "functions are not implemented")
		case p.GetBaseImage() != "" && p.GetBaseImage() != defaultBase:
			return nil, fault.NotImplemented("buildpackBuild.baseImage", "base images are the builder's choice so far")
		case p.GetCacheImageUri() != "":
			return nil, fault.NotImplemented("buildpackBuild.cacheImageUri", "cache images are not implemented; builds are cached without one")
		case p.GetProjectDescriptor() != "":
			return nil, fault.NotImplemented("buildpackBuild.projectDescriptor", "project descriptors are not implemented")
		case p.GetEnableAutomaticUpdates():
			return nil, fault.NotImplemented("buildpackBuild.enableAutomaticUpdates", "automatic base image updates are not implemented")
		}
		b.Env = t.BuildpackBuild.GetEnvironmentVariables()
	case *runpb.SubmitBuildRequest_DockerBuild_:
		b.Docker = true
	default:
		return nil, fault.Invalid("buildType", "buildpackBuild or dockerBuild is needed")
	}
	if b.LogsIn, err = s.LogsBucket(ctx, p); err != nil {
		return nil, err
	}
	made, err := s.Builds.Create(ctx, in, b)
	if err != nil {
		return nil, err
	}
	meta, err := anypb.New(&cloudbuildpb.BuildOperationMetadata{Build: cloudbuild.ToProto(&made, p)})
	if err != nil {
		return nil, err
	}
	return &runpb.SubmitBuildResponse{
		BuildOperation: &longrunningpb.Operation{Name: resource.Operation(p.ID, in.Location, made.Name.ID).String(), Metadata: meta},
	}, nil
}
