// Package resourcemanager is the wire form of Resource Manager: v1, which gcloud 528's projects commands use and which
// has no proto, and v3's projects.
//
// It translates for package projects and, for policies, package iam. Folders, organizations, tags and deletion of
// projects are not implemented.
package resourcemanager

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/api/policies"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/projects"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Projects *projects.Projects
	Policies policies.Policies
}

// Server serves both versions.
type Server struct {
	Config
	absent
	policies.IAMPolicy
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	resourcemanagerpb.UnimplementedProjectsServer
}

// New returns the server of the API.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.IAMPolicy = policies.New(cfg.Policies, policies.Resource{Resolve: s.policed})
	return s
}

// Rules says what each RPC needs. Listing shows only what the caller may see; making a
// project takes a permission on the platform, which no account of a project has.
var Rules = guard.Rules{
	"cloudresourcemanager.projects.list": {Authenticated: true},
	"cloudresourcemanager.projects.create": {
		Permission: "resourcemanager.projects.create",
		On:         iam.Platform,
	},
	"cloudresourcemanager.projects.get": {
		Permission: "resourcemanager.projects.get",
		On:         "projects/{project}",
	},
	"cloudresourcemanager.projects.getIamPolicy": {
		Permission: "resourcemanager.projects.getIamPolicy",
		On:         "projects/{resource}",
	},
	"cloudresourcemanager.projects.setIamPolicy": {
		Permission: "resourcemanager.projects.setIamPolicy",
		On:         "projects/{resource}",
	},
	"cloudresourcemanager.projects.testIamPermissions": {Authenticated: true},
	"cloudresourcemanager.operations.get":              {Authenticated: true},

	"/google.cloud.resourcemanager.v3.Projects/GetProject": {
		Permission: "resourcemanager.projects.get",
		On:         "{name}",
	},
	"/google.cloud.resourcemanager.v3.Projects/ListProjects":   {Authenticated: true},
	"/google.cloud.resourcemanager.v3.Projects/SearchProjects": {Authenticated: true},
	"/google.cloud.resourcemanager.v3.Projects/CreateProject": {
		Permission: "resourcemanager.projects.create",
		On:         iam.Platform,
	},
	"/google.cloud.resourcemanager.v3.Projects/UpdateProject": {
		Permission: "resourcemanager.projects.update",
		On:         "{project.name}",
	},
	"/google.cloud.resourcemanager.v3.Projects/MoveProject": {
		Permission: "resourcemanager.projects.move",
		On:         "{name}",
	},
	"/google.cloud.resourcemanager.v3.Projects/DeleteProject": {
		Permission: "resourcemanager.projects.delete",
		On:         "{name}",
	},
	"/google.cloud.resourcemanager.v3.Projects/UndeleteProject": {
		Permission: "resourcemanager.projects.undelete",
		On:         "{name}",
	},
	"/google.cloud.resourcemanager.v3.Projects/GetIamPolicy": {
		Permission: "resourcemanager.projects.getIamPolicy",
		On:         "{resource}",
	},
	"/google.cloud.resourcemanager.v3.Projects/SetIamPolicy": {
		Permission: "resourcemanager.projects.setIamPolicy",
		On:         "{resource}",
	},
	"/google.cloud.resourcemanager.v3.Projects/TestIamPermissions": {Authenticated: true},
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	resourcemanagerpb.RegisterProjectsServer(m, s)
	m.HandleFunc("GET", "/v1/projects", "cloudresourcemanager.projects.list", s.listV1)
	m.HandleFunc("POST", "/v1/projects", "cloudresourcemanager.projects.create", s.createV1)
	m.HandleFunc("GET", "/v1/projects/{project}", "cloudresourcemanager.projects.get", s.getV1)
	m.HandleFunc("GET", "/v1/{name=operations/*}", "cloudresourcemanager.operations.get", s.operationV1)
	policies.Register(m, s.Policies, policies.Routes{
		Resource: policies.Resource{Resolve: s.policed},
		Pattern:  "/v1/projects/{resource}",
		RPC:      "cloudresourcemanager.projects",
		GetVerb:  "POST",
	})
}

// policed returns the name that a project's policy is kept under, of "projects/REF" or REF.
func (s *Server) policed(_ context.Context, name string) (string, error) {
	p, err := s.Projects.Get(strings.TrimPrefix(name, "projects/"))
	return "projects/" + p.ID, err
}

// visible returns the projects that the caller may see.
func (s *Server) visible(ctx context.Context) []projects.Project {
	who := guard.Caller(ctx)
	var out []projects.Project
	for _, p := range s.Projects.List() {
		if s.Policies.Allowed(who, "resourcemanager.projects.get", "projects/"+p.ID) {
			out = append(out, p)
		}
	}
	return out
}

// create makes a project whose maker owns it.
func (s *Server) create(ctx context.Context, id, name string, labels map[string]string) (projects.Project, error) {
	audit.Note(ctx, func(e *audit.Event) { e.Project = id })
	return s.Projects.Create(ctx, id, name, labels, guard.Caller(ctx).Member)
}

func projectV1(p projects.Project) map[string]any {
	out := map[string]any{
		"projectNumber": p.Number, "projectId": p.ID, "lifecycleState": "ACTIVE", "name": p.Name,
		"createTime": p.Created.Format(time.RFC3339Nano),
	}
	if len(p.Labels) > 0 {
		out["labels"] = p.Labels
	}
	return out
}

func (s *Server) listV1(ctx context.Context, r *rest.Request) (any, error) {
	match, err := parseFilter(r.Query.Get("filter"))
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, p := range s.visible(ctx) {
		if match(p) {
			out = append(out, projectV1(p))
		}
	}
	return map[string]any{"projects": out}, nil
}

// parseFilter reads the terms of a v1 filter that the reference names: KEY:VALUE, space-separated, * at the end of a
// value as a wildcard.
func parseFilter(s string) (func(projects.Project) bool, error) {
	type term struct{ key, value string }
	var terms []term
	for _, t := range strings.Fields(s) {
		key, value, ok := strings.Cut(t, ":")
		if !ok {
			key, value, ok = strings.Cut(t, "=")
		}
		key = strings.ToLower(key)
		known := key == "id" || key == "projectid" || key == "name" || key == "lifecyclestate" ||
			strings.HasPrefix(key, "labels.")
		if !ok || !known {
			return nil, fault.Invalid("filter",
				"the term %.60q is not one of id:, name:, lifecycleState: or labels.KEY:", t)
		}
		terms = append(terms, term{key, strings.Trim(value, `"`)})
	}
	return func(p projects.Project) bool {
		for _, t := range terms {
			have := p.ID
			switch {
			case t.key == "name":
				have = p.Name
			case t.key == "lifecyclestate":
				have = "ACTIVE"
			case strings.HasPrefix(t.key, "labels."):
				have = p.Labels[strings.TrimPrefix(t.key, "labels.")]
			}
			prefix, wild := strings.CutSuffix(t.value, "*")
			if !(strings.EqualFold(have, t.value) ||
				wild && strings.HasPrefix(strings.ToLower(have), strings.ToLower(prefix))) {
				return false
			}
		}
		return true
	}, nil
}

func (s *Server) getV1(_ context.Context, r *rest.Request) (any, error) {
	p, err := s.Projects.Get(r.Params["project"])
	if err != nil {
		return nil, err
	}
	return projectV1(p), nil
}

func (s *Server) createV1(ctx context.Context, r *rest.Request) (any, error) {
	var body struct {
		ProjectID string            `json:"projectId"`
		Name      string            `json:"name"`
		Labels    map[string]string `json:"labels"`
		Parent    json.RawMessage   `json:"parent"`
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	p, err := s.create(ctx, body.ProjectID, body.Name, body.Labels)
	if err != nil {
		return nil, err
	}
	return operationOf(p), nil
}

// operationOf is the operation that made a project: it is done when it is answered, so its name says it all.
func operationOf(p projects.Project) map[string]any {
	response := projectV1(p)
	response["@type"] = "type.googleapis.com/google.cloudresourcemanager.v1.Project"
	return map[string]any{"name": "operations/cp." + p.Number, "done": true, "response": response}
}

func (s *Server) operationV1(ctx context.Context, r *rest.Request) (any, error) {
	number := strings.TrimPrefix(r.Params["name"], "operations/cp.")
	for _, p := range s.visible(ctx) {
		if p.Number == number {
			return operationOf(p), nil
		}
	}
	return nil, fault.New(fault.NotFound, "Operation %.60q was not found.", r.Params["name"])
}

func projectV3(p projects.Project) *resourcemanagerpb.Project {
	return &resourcemanagerpb.Project{
		Name:        "projects/" + p.Number,
		ProjectId:   p.ID,
		State:       resourcemanagerpb.Project_ACTIVE,
		DisplayName: p.Name,
		CreateTime:  timestamppb.New(p.Created),
		UpdateTime:  timestamppb.New(p.Created),
		Labels:      p.Labels,
	}
}

// GetProject returns a project by "projects/ID" or "projects/NUMBER".
func (s *Server) GetProject(
	_ context.Context, r *resourcemanagerpb.GetProjectRequest,
) (*resourcemanagerpb.Project, error) {
	p, err := s.Projects.Get(strings.TrimPrefix(r.GetName(), "projects/"))
	if err != nil {
		return nil, err
	}
	return projectV3(p), nil
}

// ListProjects returns the projects below a folder or organization, of which there are none here.
func (s *Server) ListProjects(
	context.Context, *resourcemanagerpb.ListProjectsRequest,
) (*resourcemanagerpb.ListProjectsResponse, error) {
	return nil, fault.NotImplemented("parent", "there are no folders and organizations; use projects:search")
}

// SearchProjects returns the projects that the caller may see.
func (s *Server) SearchProjects(
	ctx context.Context, r *resourcemanagerpb.SearchProjectsRequest,
) (*resourcemanagerpb.SearchProjectsResponse, error) {
	match, err := parseFilter(r.GetQuery())
	if err != nil {
		return nil, err
	}
	out := &resourcemanagerpb.SearchProjectsResponse{}
	for _, p := range s.visible(ctx) {
		if match(p) {
			out.Projects = append(out.Projects, projectV3(p))
		}
	}
	return out, nil
}

// CreateProject makes a project. The operation is done when it is answered.
func (s *Server) CreateProject(
	ctx context.Context, r *resourcemanagerpb.CreateProjectRequest,
) (*longrunningpb.Operation, error) {
	p, err := s.create(ctx, r.GetProject().GetProjectId(), r.GetProject().GetDisplayName(), r.GetProject().GetLabels())
	if err != nil {
		return nil, err
	}
	return operations.Done("operations/cp."+p.Number, nil, projectV3(p))
}
