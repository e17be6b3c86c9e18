// Package runv2 is the wire form of Cloud Run's v2 API, which Terraform and Google's client libraries use: services,
// revisions, operations and their policies, and the builds that gcloud 528 submits for sources.
//
// It translates between google.cloud.run.v2 and package run's model, which v1 has in common; rules are package run's.
// Jobs, worker pools and instances answer UNIMPLEMENTED.
package runv2

import (
	"context"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/grpc"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/api/policies"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
)

// Config is what a Server needs.
type Config struct {
	Services   *run.Services
	Operations *operation.Operations
	Project    resource.FindProject
	// ActAs fails when the caller may not let a revision run as a service account, or when there is none of that
	// address. An empty address is the project's default account.
	ActAs    func(ctx context.Context, who iam.Principal, p resource.Project, email string) error
	Policies policies.Policies
	Pages    *resource.Pages
}

// Server serves the API but for its builds.
type Server struct {
	Config
	absent
	policies.IAMPolicy
	operations.Operations
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	runpb.UnimplementedServicesServer
	runpb.UnimplementedRevisionsServer
	longrunningpb.UnimplementedOperationsServer
}

// New returns the server of the API.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.IAMPolicy = policies.New(cfg.Policies, policies.Resource{
		Resolve: func(_ context.Context, name string) (string, error) {
			n, _, err := s.service(name)
			return n.String(), err
		},
		Exists: func(ctx context.Context, name string) error {
			n, err := resource.ParseChild("services", name)
			if err == nil {
				_, err = s.Services.Get(ctx, n)
			}
			return notFound(err, "Service", n.ID)
		},
	})
	s.Operations = operations.New(operations.Reader{
		Store:   cfg.Operations,
		Kind:    run.OperationKind,
		Project: cfg.Project,
		Pages:   cfg.Pages,
	}, s.toOperation)
	return s
}

const (
	rpc = "/google.cloud.run.v2."
	ops = operations.RPC
)

// Rules says what each RPC needs.
var Rules = guard.Absent(unimplemented...).With(guard.Rules{
	rpc + "Builds/SubmitBuild": {Permission: "run.builds.create", On: "{parent}"},

	rpc + "Services/CreateService":      {Permission: "run.services.create", On: "{parent}"},
	rpc + "Services/GetService":         {Permission: "run.services.get", On: "{name}"},
	rpc + "Services/ListServices":       {Permission: "run.services.list", On: "{parent}"},
	rpc + "Services/UpdateService":      {Permission: "run.services.update", On: "{service.name}"},
	rpc + "Services/DeleteService":      {Permission: "run.services.delete", On: "{name}"},
	rpc + "Services/GetIamPolicy":       {Permission: "run.services.getIamPolicy", On: "{resource}"},
	rpc + "Services/SetIamPolicy":       {Permission: "run.services.setIamPolicy", On: "{resource}"},
	rpc + "Services/TestIamPermissions": {Authenticated: true},

	rpc + "Revisions/GetRevision":    {Permission: "run.revisions.get", On: "{name}"},
	rpc + "Revisions/ListRevisions":  {Permission: "run.revisions.list", On: "{parent}"},
	rpc + "Revisions/DeleteRevision": {Permission: "run.revisions.delete", On: "{name}"},

	ops + "GetOperation":    {Permission: "run.operations.get", On: "{name}"},
	ops + "ListOperations":  {Permission: "run.operations.list", On: "{name}"},
	ops + "WaitOperation":   {Permission: "run.operations.get", On: "{name}"},
	ops + "DeleteOperation": {Permission: "run.operations.delete", On: "{name}"},
	ops + "CancelOperation": {Permission: "run.operations.delete", On: "{name}"}, // not implemented
})

// unimplemented are the services that are not.
var unimplemented = []*grpc.ServiceDesc{
	&runpb.Jobs_ServiceDesc, &runpb.Executions_ServiceDesc, &runpb.Tasks_ServiceDesc, &runpb.WorkerPools_ServiceDesc,
	&runpb.Instances_ServiceDesc,
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	runpb.RegisterServicesServer(m, s)
	runpb.RegisterRevisionsServer(m, s)
	longrunningpb.RegisterOperationsServer(m, s)
	runpb.RegisterJobsServer(m, runpb.UnimplementedJobsServer{})
	runpb.RegisterExecutionsServer(m, runpb.UnimplementedExecutionsServer{})
	runpb.RegisterTasksServer(m, runpb.UnimplementedTasksServer{})
	runpb.RegisterWorkerPoolsServer(m, runpb.UnimplementedWorkerPoolsServer{})
	runpb.RegisterInstancesServer(m, runpb.UnimplementedInstancesServer{})
	operations.Bind(m, "v2", "GetOperation", "WaitOperation", "ListOperations")
}

// location reads the name of a location and names its project by id.
func (s *Server) location(name string) (resource.Location, resource.Project, error) {
	in, err := resource.ParseLocation(name)
	if err != nil {
		return in, resource.Project{}, err
	}
	if in.Location != "-" {
		if err := resource.CheckRegion(in.Location); err != nil {
			return in, resource.Project{}, err
		}
	}
	p, err := s.Project(in.Project)
	in.Project = p.ID
	return in, p, err
}

// service reads the name of a service and names its project by id.
func (s *Server) service(name string) (resource.Child, resource.Project, error) {
	return s.Project.Child("services", name)
}

// maxPage is the most entries of one page, and how many there are where a client names no number.
const maxPage = 1000
