// Package cloudbuild is the wire form of Cloud Build v1: builds are created, read, listed, cancelled, retried and
// approved, and their operations waited for.
//
// Triggers are made, read, changed, removed and run, and webhooks start them.
//
// It translates for packages builds and builds/trigger. Worker pools answer UNIMPLEMENTED.
package cloudbuild

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Builds     *builds.Builds
	Operations *operation.Operations
	Project    resource.FindProject
	Account    func(p resource.Project) string // that builds run as which name none
	// ActAs fails when the caller may not act as a service account, or when there is none of that address.
	ActAs func(ctx context.Context, who iam.Principal, p resource.Project, email string) error
	// LogsBucket makes sure that the bucket of a project's build logs is there, and returns its name.
	LogsBucket func(ctx context.Context, p resource.Project) (string, error)
	Pages      *resource.Pages
	Triggers   *trigger.Triggers
	// Secret returns what is in a version of a secret. It fails with NotFound.
	Secret func(name string) ([]byte, error)
}

// Server serves the API.
type Server struct {
	Config
	absent
	operations.Operations
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	cloudbuildpb.UnimplementedCloudBuildServer
	longrunningpb.UnimplementedOperationsServer
}

// New returns the server of the API.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.Operations = operations.New(operations.Reader{
		Store:   cfg.Operations,
		Kind:    builds.OperationKind,
		Project: cfg.Project,
		Pages:   cfg.Pages,
	}, s.operationToProto)
	return s
}

const (
	rpc = "/google.devtools.cloudbuild.v1.CloudBuild/"
	ops = operations.RPC
)

// Rules says what each RPC needs. Cloud Build has no permissions of their own for triggers.
var Rules = guard.Absent(&cloudbuildpb.CloudBuild_ServiceDesc, &longrunningpb.Operations_ServiceDesc).With(guard.Rules{
	rpc + "GetBuild":                 {Permission: "cloudbuild.builds.get", On: named},
	rpc + "ListBuilds":               {Permission: "cloudbuild.builds.list", On: parented},
	rpc + "CreateBuild":              {Permission: "cloudbuild.builds.create", On: parented},
	rpc + "RetryBuild":               {Permission: "cloudbuild.builds.create", On: named},
	rpc + "ApproveBuild":             {Permission: "cloudbuild.builds.approve", On: "{name}"},
	rpc + "CancelBuild":              {Permission: "cloudbuild.builds.update", On: named},
	rpc + "GetDefaultServiceAccount": {Permission: "cloudbuild.builds.get", On: "{name}"},

	rpc + "CreateBuildTrigger": {Permission: "cloudbuild.builds.create", On: parented},
	rpc + "GetBuildTrigger":    {Permission: "cloudbuild.builds.get", On: named},
	rpc + "ListBuildTriggers":  {Permission: "cloudbuild.builds.list", On: parented},
	rpc + "DeleteBuildTrigger": {Permission: "cloudbuild.builds.create", On: named},
	rpc + "UpdateBuildTrigger": {
		Permission: "cloudbuild.builds.create",
		On:         "{trigger.resource_name}|projects/{project_id}",
	},
	rpc + "RunBuildTrigger": {Permission: "cloudbuild.builds.create", On: named},

	// Who knows the secret may, with credentials or without.
	rpc + "ReceiveTriggerWebhook": {Open: true},
	githubRPC:                     {Open: true},

	ops + "GetOperation":    {Permission: "cloudbuild.builds.get", On: "{name}"},
	ops + "CancelOperation": {Permission: "cloudbuild.builds.update", On: "{name}"},
})

// How requests name what they are about: by its name or its parent's, or by a project, which means the location global.
const (
	named    = "{name}|projects/{project_id}"
	parented = "{parent}|projects/{project_id}"
)

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	cloudbuildpb.RegisterCloudBuildServer(m, s)
	longrunningpb.RegisterOperationsServer(m, s)
	operations.Bind(m, "v1", "GetOperation", "CancelOperation")
	m.HandleFunc("POST", "/v1/projects/{project}/githubWebhook", githubRPC, s.receiveGitHub, rest.MaxBody(maxDelivery))
	m.Unknown(notServed)
	m.Before(githubRPC, s.beforeGitHub)
	m.Before(rpc+"ReceiveTriggerWebhook", s.beforeWebhook)
}

// name reads which build a request means: its name, or a project and an id, which mean the location global.
func (s *Server) name(name, project, id string) (resource.Child, resource.Project, error) {
	if parts := strings.Split(name, "/"); len(parts) == 4 && parts[0] == "projects" && parts[2] == "builds" {
		// The older form: `gcloud alpha builds reject` of gcloud 528 sends it.
		name, project, id = "", parts[1], parts[3]
	}
	if name == "" {
		name = resource.Build(project, "global", id).String()
	}
	return s.Project.Child("builds", name)
}

// CreateBuild queues a build of steps.
func (s *Server) CreateBuild(
	ctx context.Context, r *cloudbuildpb.CreateBuildRequest,
) (*longrunningpb.Operation, error) {
	in := resource.Location{Project: r.GetProjectId(), Location: "global"}
	if r.GetParent() != "" {
		var err error
		if in, err = resource.ParseLocation(r.GetParent()); err != nil {
			return nil, err
		}
	}
	if in.Location != "global" && !resource.IsRegion(in.Location) {
		return nil, fault.New(fault.NotFound, "Location %.50q is not one of Cloud Build's.", in.Location)
	}
	req, err := ToRequest(r.GetBuild())
	if err != nil {
		return nil, err
	}
	return s.submit(ctx, in, req)
}

// submit queues a build as the caller.
func (s *Server) submit(
	ctx context.Context, in resource.Location, req builds.Request,
) (*longrunningpb.Operation, error) {
	p, err := s.Project(in.Project)
	if err != nil {
		return nil, err
	}
	in.Project = p.ID
	who := guard.Caller(ctx)
	req.Creator, req.ProjectNumber = who.Email(), p.Number
	req.Account = func(ctx context.Context, given string) (string, error) {
		if given == "" {
			return s.Account(p), nil
		}
		a, err := resource.ParseAccountOrEmail(given)
		if err != nil || !a.In(p) {
			return "", fault.Invalid("serviceAccount",
				"%.200q is not projects/PROJECT/serviceAccounts/EMAIL of this project", given)
		}
		return a.ID, s.ActAs(ctx, who, p, a.ID)
	}
	if req.LogsIn, err = s.LogsBucket(ctx, p); err != nil {
		return nil, err
	}
	b, err := s.Builds.Submit(ctx, in, req)
	if err != nil {
		return nil, err
	}
	return s.operation(ctx, b.Name, p)
}

// operation returns a build's operation.
func (s *Server) operation(
	ctx context.Context, n resource.Child, p resource.Project,
) (*longrunningpb.Operation, error) {
	b, err := s.Builds.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	op, err := s.Config.Operations.Get(ctx, builds.OperationKind,
		resource.Operation(n.Project, n.Location.Location, n.ID).String())
	if err != nil {
		return nil, err
	}
	return Operation(&b, p, op)
}

// RetryBuild submits a build that has ended once more, with the same source and substitutions.
func (s *Server) RetryBuild(ctx context.Context, r *cloudbuildpb.RetryBuildRequest) (*longrunningpb.Operation, error) {
	n, _, err := s.name(r.GetName(), r.GetProjectId(), r.GetId())
	if err != nil {
		return nil, err
	}
	b, err := s.Builds.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	req, err := b.Again()
	if err != nil {
		return nil, err
	}
	return s.submit(ctx, n.Location, req)
}

// ApproveBuild decides on a build that waits for an approval.
func (s *Server) ApproveBuild(
	ctx context.Context, r *cloudbuildpb.ApproveBuildRequest,
) (*longrunningpb.Operation, error) {
	n, p, err := s.name(r.GetName(), "", "")
	if err != nil {
		return nil, err
	}
	a := r.GetApprovalResult()
	d := a.GetDecision()
	if d != cloudbuildpb.ApprovalResult_APPROVED && d != cloudbuildpb.ApprovalResult_REJECTED {
		return nil, fault.Invalid("approvalResult.decision", "APPROVED or REJECTED is needed")
	}
	if len(a.GetComment()) > 10_000 || len(a.GetUrl()) > 2000 {
		return nil, fault.Invalid("approvalResult.comment", "is too long")
	}
	_, err = s.Builds.Approve(ctx, n, builds.Approval{
		Rejected: d == cloudbuildpb.ApprovalResult_REJECTED,
		Approver: guard.Caller(ctx).Email(),
		Comment:  a.GetComment(),
		URL:      a.GetUrl(),
	})
	if err != nil {
		return nil, err
	}
	return s.operation(ctx, n, p)
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

// ListBuilds lists the builds of a location, newest first.
func (s *Server) ListBuilds(
	ctx context.Context, r *cloudbuildpb.ListBuildsRequest,
) (*cloudbuildpb.ListBuildsResponse, error) {
	in := resource.Location{Project: r.GetProjectId(), Location: "global"}
	if r.GetParent() != "" {
		var err error
		if in, err = resource.ParseLocation(r.GetParent()); err != nil {
			return nil, err
		}
	}
	matches, err := builds.ParseFilter(r.GetFilter())
	if err != nil {
		return nil, err
	}
	p, err := s.Project(in.Project)
	if err != nil {
		return nil, err
	}
	in.Project = p.ID
	query := in.String() + "?" + r.GetFilter()
	all, err := s.Builds.List(ctx, in)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b builds.Build) bool { return !matches(&b) })
	list := resource.List{Query: query, Size: int(r.GetPageSize()), Most: maxPage, Token: r.GetPageToken()}
	page, next, err := resource.Page(s.Pages, list, resource.Rows(all, newest), newest)
	if err != nil {
		return nil, err
	}
	out := &cloudbuildpb.ListBuildsResponse{NextPageToken: next}
	for i := range page {
		out.Builds = append(out.Builds, ToProto(&page[i], p))
	}
	return out, nil
}

// newest is the key of a list of builds.
func newest(b builds.Build) string { return resource.Descending(b.Created, b.Name.String()) }

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
func (s *Server) GetDefaultServiceAccount(
	_ context.Context, r *cloudbuildpb.GetDefaultServiceAccountRequest,
) (*cloudbuildpb.DefaultServiceAccount, error) {
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

// operationToProto writes a build's operation. Its id is the build's.
func (s *Server) operationToProto(ctx context.Context, op operation.Operation) (*longrunningpb.Operation, error) {
	n, p, err := s.Project.Child("operations", op.Name)
	if err != nil {
		return nil, err
	}
	b, err := s.Builds.Get(ctx, resource.Build(n.Project, n.Location.Location, n.ID))
	if err != nil {
		return nil, err
	}
	return Operation(&b, p, op)
}

// CancelOperation cancels the operation's build.
func (s *Server) CancelOperation(ctx context.Context, r *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	n, p, err := s.Project.Child("operations", r.GetName())
	if err != nil {
		return nil, err
	}
	_, err = s.Builds.Cancel(ctx, resource.Build(p.ID, n.Location.Location, n.ID))
	return &emptypb.Empty{}, err
}

// Operation writes a build's operation. Its response is the build, whatever came of it, as Cloud Build's is.
func Operation(b *builds.Build, p resource.Project, op operation.Operation) (*longrunningpb.Operation, error) {
	w := ToProto(b, p)
	meta := &cloudbuildpb.BuildOperationMetadata{Build: w}
	switch {
	case !op.Done:
		return operations.Pending(op.Name, meta)
	case op.Error != nil:
		return operations.Failed(op.Name, meta, op.Error.Code, op.Error.Message)
	}
	return operations.Done(op.Name, meta, w)
}
