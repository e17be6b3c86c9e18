// Package cloudbuild is the wire form of Cloud Build v1, as far as source deploys need it: builds are read, listed and
// cancelled, and their operations waited for.
//
// It translates for package build. Builds of steps (`gcloud builds submit`), triggers and worker pools answer
// UNIMPLEMENTED.
package cloudbuild

import (
	"context"
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/api/guard"
	"giggle/build"
	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
)

// Server serves the API.
type Server struct {
	cloudbuildpb.UnimplementedCloudBuildServer
	longrunningpb.UnimplementedOperationsServer

	Builds     *build.Builds
	Operations *operation.Operations
	Project    func(ref string) (run.Project, error) // by id or number
	Account    func(p run.Project) string            // that builds run as
	Pages      *resource.Pages
}

const (
	rpc = "/google.devtools.cloudbuild.v1.CloudBuild/"
	ops = "/google.longrunning.Operations/"
)

// Rules says what each RPC needs. What is not implemented still needs a signed-in caller.
var Rules = func() guard.Rules {
	r := guard.Rules{}
	for _, m := range cloudbuildpb.CloudBuild_ServiceDesc.Methods {
		r[rpc+m.MethodName] = guard.Rule{}
	}
	for _, m := range longrunningpb.Operations_ServiceDesc.Methods {
		r[ops+m.MethodName] = guard.Rule{}
	}
	const named = "{name}|projects/{project_id}"
	r[rpc+"GetBuild"] = guard.Rule{Permission: "cloudbuild.builds.get", On: named}
	r[rpc+"ListBuilds"] = guard.Rule{Permission: "cloudbuild.builds.list", On: "{parent}|projects/{project_id}"}
	r[rpc+"CancelBuild"] = guard.Rule{Permission: "cloudbuild.builds.update", On: named}
	r[rpc+"GetDefaultServiceAccount"] = guard.Rule{Permission: "cloudbuild.builds.get", On: "{name}"}
	r[ops+"GetOperation"] = guard.Rule{Permission: "cloudbuild.builds.get", On: "{name}"}
	r[ops+"CancelOperation"] = guard.Rule{Permission: "cloudbuild.builds.update", On: "{name}"}
	return r
}()

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	cloudbuildpb.RegisterCloudBuildServer(m, s)
	longrunningpb.RegisterOperationsServer(m, s)
	const name = "/v1/{name=projects/*/locations/*/operations/*}"
	m.Bind(ops+"GetOperation", rest.HTTPRule{Method: "GET", Pattern: name})
	m.Bind(ops+"CancelOperation", rest.HTTPRule{Method: "POST", Pattern: name + ":cancel", Body: "*"})
}

// name reads which build a request means: its name, or a project and an id, which mean the location global.
func (s *Server) name(name, project, id string) (resource.Child, run.Project, error) {
	if name == "" {
		name = resource.Build(project, "global", id).String()
	}
	n, err := resource.ParseChild("builds", name)
	if err != nil {
		return n, run.Project{}, err
	}
	p, err := s.Project(n.Project)
	n.Project = p.ID
	return n, p, err
}

// GetBuild returns a build.
func (s *Server) GetBuild(ctx context.Context, r *cloudbuildpb.GetBuildRequest) (*cloudbuildpb.Build, error) {
	n, p, err := s.name(r.GetName(), r.GetProjectId(), r.GetId())
	if err != nil {
		return nil, err
	}
	b, err := s.Builds.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	return ToProto(&b, p), nil
}

// maxPage is the most builds of one page.
const maxPage = 100

// ListBuilds lists the builds of a location, newest first. Filters are not implemented.
func (s *Server) ListBuilds(ctx context.Context, r *cloudbuildpb.ListBuildsRequest) (*cloudbuildpb.ListBuildsResponse, error) {
	in := resource.Location{Project: r.GetProjectId(), Location: "global"}
	if r.GetParent() != "" {
		var err error
		if in, err = resource.ParseLocation(r.GetParent()); err != nil {
			return nil, err
		}
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of builds are not implemented yet")
	}
	p, err := s.Project(in.Project)
	if err != nil {
		return nil, err
	}
	in.Project = p.ID
	last, err := s.Pages.Last(in.String(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	if size <= 0 || size > maxPage {
		size = maxPage
	}
	all, err := s.Builds.List(ctx, in)
	if err != nil {
		return nil, err
	}
	out := &cloudbuildpb.ListBuildsResponse{}
	skip := last != ""
	for i := range all {
		if skip {
			skip = all[i].Name.String() != last
			continue
		}
		if len(out.Builds) == size {
			out.NextPageToken = s.Pages.Token(in.String(), all[i-1].Name.String())
			break
		}
		out.Builds = append(out.Builds, ToProto(&all[i], p))
	}
	return out, nil
}

// CancelBuild ends a build that has not ended.
func (s *Server) CancelBuild(ctx context.Context, r *cloudbuildpb.CancelBuildRequest) (*cloudbuildpb.Build, error) {
	n, p, err := s.name(r.GetName(), r.GetProjectId(), r.GetId())
	if err != nil {
		return nil, err
	}
	b, err := s.Builds.Cancel(ctx, n)
	if err != nil {
		return nil, err
	}
	return ToProto(&b, p), nil
}

// GetDefaultServiceAccount returns the account that builds of a location run as.
func (s *Server) GetDefaultServiceAccount(_ context.Context, r *cloudbuildpb.GetDefaultServiceAccountRequest) (*cloudbuildpb.DefaultServiceAccount, error) {
	in, err := resource.ParseLocation(strings.TrimSuffix(r.GetName(), "/defaultServiceAccount"))
	if err != nil {
		return nil, err
	}
	p, err := s.Project(in.Project)
	if err != nil {
		return nil, err
	}
	return &cloudbuildpb.DefaultServiceAccount{
		Name:                r.GetName(),
		ServiceAccountEmail: "projects/" + p.ID + "/serviceAccounts/" + s.Account(p),
	}, nil
}

// GetOperation returns a build's operation. Its id is the build's.
func (s *Server) GetOperation(ctx context.Context, r *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	n, err := resource.ParseChild("operations", r.GetName())
	if err != nil {
		return nil, err
	}
	p, err := s.Project(n.Project)
	if err != nil {
		return nil, err
	}
	n.Project = p.ID
	op, err := s.Operations.Get(ctx, n.String())
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if err != nil || op.Kind != build.OperationKind {
		return nil, fault.New(fault.NotFound, "Operation %.200q was not found.", r.GetName())
	}
	b, err := s.Builds.Get(ctx, resource.Build(n.Project, n.Location.Location, n.ID))
	if err != nil {
		return nil, err
	}
	return Operation(&b, p, op)
}

// CancelOperation cancels the operation's build.
func (s *Server) CancelOperation(ctx context.Context, r *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	n, err := resource.ParseChild("operations", r.GetName())
	if err != nil {
		return nil, err
	}
	p, err := s.Project(n.Project)
	if err != nil {
		return nil, err
	}
	_, err = s.Builds.Cancel(ctx, resource.Build(p.ID, n.Location.Location, n.ID))
	return &emptypb.Empty{}, err
}

// Operation writes a build's operation. Its response is the build, whatever came of it, as Cloud Build's is.
func Operation(b *build.Build, p run.Project, op operation.Operation) (*longrunningpb.Operation, error) {
	w := ToProto(b, p)
	meta, err := anypb.New(&cloudbuildpb.BuildOperationMetadata{Build: w})
	if err != nil {
		return nil, err
	}
	out := &longrunningpb.Operation{Name: op.Name, Metadata: meta, Done: op.Done}
	switch {
	case !op.Done:
	case op.Error != nil:
		out.Result = &longrunningpb.Operation_Error{Error: status.New(codes.Code(op.Error.Code), op.Error.Message).Proto()}
	default:
		body, err := anypb.New(w)
		if err != nil {
			return nil, err
		}
		out.Result = &longrunningpb.Operation_Response{Response: body}
	}
	return out, nil
}

// ToProto writes a build.
func ToProto(b *build.Build, p run.Project) *cloudbuildpb.Build {
	w := &cloudbuildpb.Build{
		Name: "projects/" + p.Number + "/locations/" + b.Name.Location.Location + "/builds/" + b.Name.ID, Id: b.Name.ID, ProjectId: p.ID,
		Status: cloudbuildpb.Build_Status(cloudbuildpb.Build_Status_value[string(b.Status)]), StatusDetail: b.Detail,
		Source: &cloudbuildpb.Source{Source: &cloudbuildpb.Source_StorageSource{StorageSource: &cloudbuildpb.StorageSource{
			Bucket: b.Source.Bucket, Object: b.Source.Object, Generation: b.Source.Generation,
		}}},
		CreateTime: timestamppb.New(b.Created), Timeout: durationpb.New(b.Timeout), Images: []string{b.Image}, LogsBucket: "gs://" + b.LogsIn,
		LogUrl: "https://console.cloud.google.com/cloud-build/builds;region=" + b.Name.Location.Location + "/" + b.Name.ID + "?project=" + p.Number,
		Tags:   b.Tags, ServiceAccount: "projects/" + p.ID + "/serviceAccounts/" + b.Account,
		Options: &cloudbuildpb.BuildOptions{Logging: cloudbuildpb.BuildOptions_LEGACY},
	}
	if !b.Started.IsZero() {
		w.StartTime = timestamppb.New(b.Started)
	}
	if !b.Finished.IsZero() {
		w.FinishTime = timestamppb.New(b.Finished)
	}
	if b.Status == build.Success {
		w.Results = &cloudbuildpb.Results{Images: []*cloudbuildpb.BuiltImage{{Name: b.Image, Digest: b.Digest}}}
	}
	if b.Status == build.Failure || b.Status == build.InternalError {
		w.FailureInfo = &cloudbuildpb.Build_FailureInfo{Type: cloudbuildpb.Build_FailureInfo_USER_BUILD_STEP, Detail: b.Detail}
	}
	return w
}
