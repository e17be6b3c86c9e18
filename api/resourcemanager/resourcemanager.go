// Package resourcemanager is the wire form of Resource Manager: v1, which gcloud 528's projects commands use and which
// has no proto, and v3's projects.
//
// It translates for package projects and, for policies, package iam. Folders, organizations, tags and deletion of
// projects are not implemented.
package resourcemanager

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
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
	"cloudresourcemanager.projects.update": {
		Permission: "resourcemanager.projects.update",
		On:         "projects/{project}",
	},
	"cloudresourcemanager.projects.delete": {
		Permission: "resourcemanager.projects.delete",
		On:         "projects/{project}",
	},
	"cloudresourcemanager.projects.undelete": {
		Permission: "resourcemanager.projects.undelete",
		On:         "projects/{project}",
	},
	"cloudresourcemanager.projects.getAncestry": {
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
	m.HandleFunc("GET", "/v1/projects", "cloudresourcemanager.projects.list", s.listV1,
		rest.Query("filter", "pageSize", "pageToken"))
	m.HandleFunc("POST", "/v1/projects", "cloudresourcemanager.projects.create", s.createV1, rest.Query())
	m.HandleFunc("GET", "/v1/projects/{project}", "cloudresourcemanager.projects.get", s.getV1, rest.Query())
	m.HandleFunc("PUT", "/v1/projects/{project}", "cloudresourcemanager.projects.update", s.updateV1, rest.Query())
	m.HandleFunc("DELETE", "/v1/projects/{project}", "cloudresourcemanager.projects.delete", s.deleteV1, rest.Query())
	m.HandleFunc("POST", "/v1/projects/{project}:undelete", "cloudresourcemanager.projects.undelete",
		s.undeleteV1, rest.Query())
	m.HandleFunc("POST", "/v1/projects/{project}:getAncestry", "cloudresourcemanager.projects.getAncestry",
		s.ancestryV1, rest.Query())
	m.HandleFunc("GET", "/v1/{name=operations/*}", "cloudresourcemanager.operations.get", s.operationV1, rest.Query())
	policies.Register(m, s.Policies, policies.Routes{
		Resource: policies.Resource{Resolve: s.policed},
		Pattern:  "/v1/projects/{resource}",
		RPC:      "cloudresourcemanager.projects",
		GetVerb:  "POST",
	})
}

// policed returns the name that a project's policy is kept under, of "projects/REF" or REF.
func (s *Server) policed(_ context.Context, name string) (string, error) {
	p, err := s.Projects.Get(refOf(name))
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
func (s *Server) create(ctx context.Context, p projects.Project) (projects.Project, error) {
	audit.Note(ctx, func(e *audit.Event) { e.Project = p.ID })
	return s.Projects.Create(ctx, p, guard.Caller(ctx).Member)
}

func projectV1(p projects.Project) map[string]any {
	out := map[string]any{
		"projectNumber": p.Number, "projectId": p.ID, "lifecycleState": state(p), "name": p.Name,
		"createTime": p.Created.Format(time.RFC3339Nano),
	}
	if len(p.Labels) > 0 {
		out["labels"] = p.Labels
	}
	if kind, id, ok := strings.Cut(p.Parent, "/"); ok {
		out["parent"] = parent{Type: strings.TrimSuffix(kind, "s"), ID: id}
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
		Parent    parent            `json:"parent"`
		Tags      map[string]string `json:"tags"`
		readOnly
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	if len(body.Tags) > 0 {
		return nil, fault.NotImplemented("project.tags", "there are no tags of resources")
	}
	p, err := s.create(ctx, projects.Project{
		ID:     body.ProjectID,
		Name:   body.Name,
		Parent: body.Parent.name(),
		Labels: body.Labels,
	})
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

// parent is a ResourceId of v1, of what a project is below.
type parent struct {
	Type string `json:"type,omitempty"`
	ID   string `json:"id,omitempty"`
}

// name is the parent's name in v3, "folders/1".
func (p parent) name() string {
	if p == (parent{}) {
		return ""
	}
	return p.Type + "s/" + p.ID
}

// readOnly is what clients send back of a project that they have read, and can't change.
type readOnly struct {
	ProjectNumber          json.RawMessage `json:"projectNumber"`
	LifecycleState         json.RawMessage `json:"lifecycleState"`
	CreateTime             json.RawMessage `json:"createTime"`
	ConfiguredCapabilities json.RawMessage `json:"configuredCapabilities"`
}

// updateV1 replaces what can be changed of a project: gcloud reads it, changes it and sends all of it.
func (s *Server) updateV1(ctx context.Context, r *rest.Request) (any, error) {
	var body struct {
		Name      string            `json:"name"`
		Labels    map[string]string `json:"labels"`
		ProjectID string            `json:"projectId"`
		Parent    parent            `json:"parent"`
		Tags      map[string]string `json:"tags"`
		readOnly
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	if len(body.Tags) > 0 {
		return nil, fault.NotImplemented("project.tags", "there are no tags of resources")
	}
	p, err := s.Projects.Update(ctx, r.Params["project"], func(p *projects.Project) error {
		p.Name, p.Parent, p.Labels = body.Name, body.Parent.name(), body.Labels
		return p.Validate()
	})
	if err != nil {
		return nil, err
	}
	return projectV1(p), nil
}

func (s *Server) deleteV1(ctx context.Context, r *rest.Request) (any, error) {
	_, err := s.Projects.Delete(ctx, r.Params["project"])
	return struct{}{}, err
}

func (s *Server) undeleteV1(ctx context.Context, r *rest.Request) (any, error) {
	_, err := s.Projects.Undelete(ctx, r.Params["project"])
	return struct{}{}, err
}

// ancestryV1 names a project's ancestors, itself first, and what it is said to be below: Giggle has no folders and
// organizations.
func (s *Server) ancestryV1(_ context.Context, r *rest.Request) (any, error) {
	p, err := s.Projects.Get(r.Params["project"])
	if err != nil {
		return nil, err
	}
	out := []any{map[string]any{"resourceId": parent{Type: "project", ID: p.ID}}}
	if kind, id, ok := strings.Cut(p.Parent, "/"); ok {
		out = append(out, map[string]any{"resourceId": parent{Type: strings.TrimSuffix(kind, "s"), ID: id}})
	}
	return map[string]any{"ancestor": out}, nil
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
	out := &resourcemanagerpb.Project{
		Name:        "projects/" + p.Number,
		ProjectId:   p.ID,
		State:       resourcemanagerpb.Project_State(resourcemanagerpb.Project_State_value[state(p)]),
		DisplayName: p.Name,
		CreateTime:  timestamppb.New(p.Created),
		UpdateTime:  timestamppb.New(p.Created),
		Parent:      p.Parent,
		Labels:      p.Labels,
	}
	if !p.Active() {
		out.DeleteTime = timestamppb.New(p.Deleted)
	}
	return out
}

// GetProject returns a project by "projects/ID" or "projects/NUMBER".
func (s *Server) GetProject(
	_ context.Context, r *resourcemanagerpb.GetProjectRequest,
) (*resourcemanagerpb.Project, error) {
	p, err := s.Projects.Get(refOf(r.GetName()))
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
	p, err := s.create(ctx, projects.Project{
		ID:     r.GetProject().GetProjectId(),
		Name:   r.GetProject().GetDisplayName(),
		Parent: r.GetProject().GetParent(),
		Labels: r.GetProject().GetLabels(),
	})
	if err != nil {
		return nil, err
	}
	return operations.Done("operations/cp."+p.Number, nil, projectV3(p))
}

// UpdateProject changes a project's name and labels, or those of both that the mask names.
func (s *Server) UpdateProject(
	ctx context.Context, r *resourcemanagerpb.UpdateProjectRequest,
) (*longrunningpb.Operation, error) {
	paths := r.GetUpdateMask().GetPaths()
	if len(paths) == 0 || slices.Equal(paths, []string{"*"}) {
		paths = []string{"display_name", "labels"}
	}
	p, err := s.Projects.Update(ctx, refOf(r.GetProject().GetName()), func(p *projects.Project) error {
		for _, path := range paths {
			switch key, isLabel := strings.CutPrefix(path, "labels."); {
			case path == "display_name":
				p.Name = r.GetProject().GetDisplayName()
			case path == "labels":
				p.Labels = r.GetProject().GetLabels()
			case isLabel:
				p.Labels = maps.Clone(p.Labels)
				if v, ok := r.GetProject().GetLabels()[key]; ok {
					if p.Labels == nil {
						p.Labels = make(map[string]string)
					}
					p.Labels[key] = v
				} else {
					delete(p.Labels, key)
				}
			default:
				return fault.Invalid("updateMask", "%.60q can't be changed; displayName and labels can", path)
			}
		}
		return p.Validate()
	})
	return doneV3("up", p, err)
}

// DeleteProject marks a project for deletion.
func (s *Server) DeleteProject(
	ctx context.Context, r *resourcemanagerpb.DeleteProjectRequest,
) (*longrunningpb.Operation, error) {
	p, err := s.Projects.Delete(ctx, refOf(r.GetName()))
	return doneV3("dp", p, err)
}

// UndeleteProject brings a project back that is marked for deletion.
func (s *Server) UndeleteProject(
	ctx context.Context, r *resourcemanagerpb.UndeleteProjectRequest,
) (*longrunningpb.Operation, error) {
	p, err := s.Projects.Undelete(ctx, refOf(r.GetName()))
	return doneV3("up", p, err)
}

// refOf is the id or number in "projects/giggle".
func refOf(name string) string { return strings.TrimPrefix(name, "projects/") }

// doneV3 is the operation of a change, which is done when it is answered.
func doneV3(verb string, p projects.Project, err error) (*longrunningpb.Operation, error) {
	if err != nil {
		return nil, err
	}
	return operations.Done("operations/"+verb+"."+p.Number, nil, projectV3(p))
}
