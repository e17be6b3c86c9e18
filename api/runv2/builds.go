package runv2

import (
	"context"

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

// BuildsConfig is what Builds needs.
type BuildsConfig struct {
	Builds  *builds.Builds
	Project resource.FindProject
	Account func(p resource.Project) string // that builds run as which name none
	// ActAs fails when the caller may not act as a service account, or when there is none of that address.
	ActAs func(ctx context.Context, who iam.Principal, p resource.Project, email string) error
	// LogsBucket makes sure that the bucket of a project's build logs is there, and returns its name.
	LogsBucket func(ctx context.Context, p resource.Project) (string, error)
}

// Builds serves builds:submit, with which gcloud 528 deploys from source.
type Builds struct {
	runpb.UnimplementedBuildsServer
	cfg BuildsConfig
}

// NewBuilds returns the server of builds.
func NewBuilds(cfg BuildsConfig) *Builds { return &Builds{cfg: cfg} }

// defaultBase is the base image that gcloud 528 names when the user names none.
const defaultBase = "gcr.io/buildpacks/google-22/run"

// Register adds the routes of builds.
func (s *Builds) Register(m *rest.Mux) { runpb.RegisterBuildsServer(m, s) }

// SubmitBuild queues a build of an uploaded source. The operation that it returns is polled at Cloud Build, by the
// build's id.
func (s *Builds) SubmitBuild(ctx context.Context, r *runpb.SubmitBuildRequest) (*runpb.SubmitBuildResponse, error) {
	in, p, err := s.cfg.Project.Location(r.GetParent())
	if err != nil {
		return nil, err
	}
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
		Image:  r.GetImageUri(), Tags: r.GetTags(), Account: s.cfg.Account(p), Creator: guard.Caller(ctx).Email(),
	}
	if sa := r.GetServiceAccount(); sa != "" {
		a, err := resource.ParseAccountOrEmail(sa)
		if err != nil || !a.In(p) {
			return nil, fault.Invalid("serviceAccount", "%.200q is not projects/PROJECT/serviceAccounts/EMAIL of this project", sa)
		}
		if a.ID != b.Account {
			if err := s.cfg.ActAs(ctx, guard.Caller(ctx), p, a.ID); err != nil {
				return nil, err
			}
			b.Account = a.ID
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
	if b.LogsIn, err = s.cfg.LogsBucket(ctx, p); err != nil {
		return nil, err
	}
	made, err := s.cfg.Builds.Create(ctx, in, b)
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
