// Package serviceusage is the wire form of Service Usage v1: which APIs there are, and which a project has enabled.
//
// It translates for package projects. Changes are done when they are answered, so its operations are always done.
package serviceusage

import (
	"context"
	"log/slog"
	"slices"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/serviceusage/apiv1/serviceusagepb"
	"google.golang.org/protobuf/proto"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/fault"
	"giggle/projects"
	"giggle/resource"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Projects *projects.Projects
	Pages    *resource.Pages
	Log      *slog.Logger
}

// Server serves the API.
type Server struct {
	Config
	absent
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	serviceusagepb.UnimplementedServiceUsageServer
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const rpc = "/google.api.serviceusage.v1.ServiceUsage/"

// Rules says what each RPC needs.
var Rules = guard.Rules{
	rpc + "GetService":            {Permission: "serviceusage.services.get", On: "{name}"},
	rpc + "ListServices":          {Permission: "serviceusage.services.list", On: "{parent}"},
	rpc + "BatchGetServices":      {Permission: "serviceusage.services.get", On: "{parent}"},
	rpc + "EnableService":         {Permission: "serviceusage.services.enable", On: "{name}"},
	rpc + "DisableService":        {Permission: "serviceusage.services.disable", On: "{name}"},
	rpc + "BatchEnableServices":   {Permission: "serviceusage.services.enable", On: "{parent}"},
	"serviceusage.operations.get": {Authenticated: true},
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	serviceusagepb.RegisterServiceUsageServer(m, s)
	m.HandleFunc("GET", "/v1/{name=operations/**}", "serviceusage.operations.get",
		func(_ context.Context, r *rest.Request) (any, error) {
			if r.Params["name"] != doneName {
				return nil, fault.New(fault.NotFound, "Operation %.60q was not found.", r.Params["name"])
			}
			return &longrunningpb.Operation{Name: doneName, Done: true}, nil
		})
}

// doneName is the name of operations that had nothing to wait for, as Service Usage itself calls them.
const doneName = "operations/noop.DONE_OPERATION"

func done(response proto.Message) (*longrunningpb.Operation, error) {
	return operations.Done(doneName, nil, response)
}

func toProto(s projects.Service) *serviceusagepb.Service {
	state := serviceusagepb.State_DISABLED
	if s.Enabled {
		state = serviceusagepb.State_ENABLED
	}
	return &serviceusagepb.Service{
		Name:   "projects/" + s.Project.Number + "/services/" + s.Name,
		Parent: "projects/" + s.Project.Number,
		State:  state,
		Config: &serviceusagepb.ServiceConfig{Name: s.Name, Title: s.Title},
	}
}

// GetService returns the state of one service.
func (s *Server) GetService(_ context.Context, r *serviceusagepb.GetServiceRequest) (*serviceusagepb.Service, error) {
	name, err := resource.ParseGlobal("services", r.GetName())
	if err != nil {
		return nil, err
	}
	x, err := s.Projects.Service(name.Project, name.ID)
	if err != nil {
		return nil, err
	}
	return toProto(x), nil
}

// BatchGetServices returns the states of up to 30 services.
func (s *Server) BatchGetServices(
	_ context.Context, r *serviceusagepb.BatchGetServicesRequest,
) (*serviceusagepb.BatchGetServicesResponse, error) {
	if len(r.GetNames()) > 30 {
		return nil, fault.Invalid("names", "more than 30")
	}
	out := &serviceusagepb.BatchGetServicesResponse{}
	for _, n := range r.GetNames() {
		name, err := resource.ParseGlobal("services", n)
		if err != nil {
			return nil, err
		}
		if "projects/"+name.Project != r.GetParent() {
			return nil, fault.Invalid("names", "%.100q is not in %s", n, r.GetParent())
		}
		x, err := s.Projects.Service(name.Project, name.ID)
		if err != nil {
			return nil, err
		}
		out.Services = append(out.Services, toProto(x))
	}
	return out, nil
}

// ListServices lists the services, by name, with the filter state:ENABLED or state:DISABLED.
func (s *Server) ListServices(
	_ context.Context, r *serviceusagepb.ListServicesRequest,
) (*serviceusagepb.ListServicesResponse, error) {
	project, err := resource.ParseProject(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Projects.Services(project)
	if err != nil {
		return nil, err
	}
	switch f := r.GetFilter(); f {
	case "":
	case "state:ENABLED", "state:DISABLED":
		all = slices.DeleteFunc(all, func(x projects.Service) bool { return x.Enabled != (f == "state:ENABLED") })
	default:
		return nil, fault.Invalid("filter", "%.60q is not state:ENABLED or state:DISABLED", f)
	}
	key := func(x projects.Service) string { return x.Name }
	list := resource.List{
		Query: r.GetParent() + " " + r.GetFilter(),
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}
	page, next, err := resource.Page(s.Pages, list, resource.Rows(all, key), key)
	if err != nil {
		return nil, err
	}
	out := &serviceusagepb.ListServicesResponse{NextPageToken: next}
	for _, x := range page {
		out.Services = append(out.Services, toProto(x))
	}
	return out, nil
}

// maxPage is the most services of one page, from the API reference.
const maxPage = 200

// EnableService enables one service.
func (s *Server) EnableService(
	ctx context.Context, r *serviceusagepb.EnableServiceRequest,
) (*longrunningpb.Operation, error) {
	x, err := s.set(ctx, r.GetName(), true)
	if err != nil {
		return nil, err
	}
	return done(&serviceusagepb.EnableServiceResponse{Service: toProto(x)})
}

// DisableService disables one service.
func (s *Server) DisableService(
	ctx context.Context, r *serviceusagepb.DisableServiceRequest,
) (*longrunningpb.Operation, error) {
	x, err := s.set(ctx, r.GetName(), false)
	if err != nil {
		return nil, err
	}
	return done(&serviceusagepb.DisableServiceResponse{Service: toProto(x)})
}

func (s *Server) set(ctx context.Context, name string, enabled bool) (projects.Service, error) {
	n, err := resource.ParseGlobal("services", name)
	if err != nil {
		return projects.Service{}, err
	}
	if err := s.setEnabled(ctx, n.Project, enabled, n.ID); err != nil {
		return projects.Service{}, err
	}
	return s.Projects.Service(n.Project, n.ID)
}

// setEnabled enables or disables services. That one is enabled which is not served here is said once: gcloud shows
// nothing of what a server could add to its answer.
func (s *Server) setEnabled(ctx context.Context, project string, enabled bool, names ...string) error {
	before, err := s.Projects.Get(project)
	if err != nil {
		return err
	}
	if _, err := s.Projects.SetEnabled(ctx, project, enabled, names...); err != nil {
		return err
	}
	for _, name := range names {
		if x, err := s.Projects.Service(project, name); err == nil && !x.Served && enabled &&
			!slices.Contains(before.Enabled, name) {
			s.Log.Warn("a service was enabled that Giggle doesn't serve: calls of it are refused", "service", name,
				"project", before.ID)
		}
	}
	return nil
}

// BatchEnableServices enables up to 20 services, all or none.
func (s *Server) BatchEnableServices(
	ctx context.Context, r *serviceusagepb.BatchEnableServicesRequest,
) (*longrunningpb.Operation, error) {
	project, err := resource.ParseProject(r.GetParent())
	if err != nil {
		return nil, err
	}
	if len(r.GetServiceIds()) > 20 {
		return nil, fault.Invalid("serviceIds", "more than 20")
	}
	if err := s.setEnabled(ctx, project, true, r.GetServiceIds()...); err != nil {
		return nil, err
	}
	out := &serviceusagepb.BatchEnableServicesResponse{}
	for _, id := range r.GetServiceIds() {
		x, err := s.Projects.Service(project, id)
		if err != nil {
			return nil, err
		}
		out.Services = append(out.Services, toProto(x))
	}
	return done(out)
}
