package runv2

import (
	"cmp"
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
	if err := resource.CheckRegion(in.Location); err != nil {
		return nil, err
	}
	if r.GetWorkerPool() != "" {
		return nil, fault.NotImplemented("workerPool", "worker pools are not implemented")
	}
	if r.GetMachineType() != "" {
		return nil, fault.NotImplemented("machineType", "builds have the machine that Giggle runs on")
	}
	src := r.GetStorageSource()
	if src.GetBucket() == "" || src.GetObject() == "" {
		return nil, fault.Invalid("storageSource", "bucket and object are needed")
	}
	if !builds.IsImageName(r.GetImageUri()) {
		return nil, fault.Invalid("imageUri", "%.100q is not a place for an image", r.GetImageUri())
	}
	spec, err := toSpec(r)
	if err != nil {
		return nil, err
	}
	logs, err := s.cfg.LogsBucket(ctx, p)
	if err != nil {
		return nil, err
	}
	// Logs go to the platform's own bucket, whatever account the build runs as.
	spec.LogsBucket = "gs://" + logs
	if sa := r.GetServiceAccount(); sa != "" {
		a, err := resource.ParseAccountOrEmail(sa)
		if err != nil || !a.In(p) {
			return nil, fault.Invalid("serviceAccount",
				"%.200q is not projects/PROJECT/serviceAccounts/EMAIL of this project", sa)
		}
		if a.ID != s.cfg.Account(p) { // which builds run as anyway
			if err := s.cfg.ActAs(ctx, guard.Caller(ctx), p, a.ID); err != nil {
				return nil, err
			}
			spec.Account = a.ID
		}
	}
	made, err := s.cfg.Builds.Submit(ctx, in, builds.Request{
		Spec:          spec,
		Source:        builds.Source{Bucket: src.GetBucket(), Object: src.GetObject(), Generation: src.GetGeneration()},
		Tags:          r.GetTags(),
		Creator:       guard.Caller(ctx).Email(),
		ProjectNumber: p.Number,
		Account: func(_ context.Context, given string) (string, error) {
			return cmp.Or(given, s.cfg.Account(p)),
				nil
		},
	})
	if err != nil {
		return nil, err
	}
	meta, err := anypb.New(&cloudbuildpb.BuildOperationMetadata{Build: cloudbuild.ToProto(&made, p)})
	if err != nil {
		return nil, err
	}
	return &runpb.SubmitBuildResponse{
		BuildOperation: &longrunningpb.Operation{
			Name:     resource.Operation(p.ID, in.Location, made.Name.ID).String(),
			Metadata: meta,
		},
	}, nil
}

// toSpec reads what makes the image.
func toSpec(r *runpb.SubmitBuildRequest) (builds.Spec, error) {
	switch t := r.GetBuildType().(type) {
	case *runpb.SubmitBuildRequest_BuildpackBuild:
		p := t.BuildpackBuild
		return builds.ImageOf(builds.Buildpack, r.GetImageUri(), p.GetEnvironmentVariables()), checkBuildpack(p)
	case *runpb.SubmitBuildRequest_DockerBuild_:
		return builds.ImageOf(builds.Dockerfile, r.GetImageUri(), nil), nil
	}
	return builds.Spec{}, fault.Invalid("buildType", "buildpackBuild or dockerBuild is needed")
}

// checkBuildpack refuses what buildpacks can't do here.
func checkBuildpack(p *runpb.SubmitBuildRequest_BuildpacksBuild) error {
	switch {
	case p.GetFunctionTarget() != "":
		return fault.NotImplemented("buildpackBuild.functionTarget", "functions are not implemented")
	case p.GetBaseImage() != "" && p.GetBaseImage() != defaultBase:
		return fault.NotImplemented("buildpackBuild.baseImage", "base images are the builder's choice so far")
	case p.GetCacheImageUri() != "":
		return fault.NotImplemented("buildpackBuild.cacheImageUri",
			"cache images are not implemented; builds are cached without one")
	case p.GetProjectDescriptor() != "":
		return fault.NotImplemented("buildpackBuild.projectDescriptor", "project descriptors are not implemented")
	case p.GetEnableAutomaticUpdates():
		return fault.NotImplemented("buildpackBuild.enableAutomaticUpdates",
			"automatic base image updates are not implemented")
	}
	return nil
}
