// Package runv1 is the wire form of Cloud Run's v1 API: the Knative objects under /apis/serving.knative.dev/v1, and
// the OnePlatform paths beside them for locations, IAM policies and operations. gcloud 528 uses it for everything
// about services and revisions.
//
// It translates and decides nothing: rules are package run's. Jobs, worker pools and domain mappings are not there.
package runv1

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/api/policies"
	"giggle/fault"
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

// Server serves the API.
type Server struct {
	Config
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const knative = "/apis/serving.knative.dev/v1/namespaces/{namespace}"

// Rules says what each RPC needs.
var Rules = guard.Rules{
	"run.namespaces.services.list":       {Permission: "run.services.list", On: location},
	"run.namespaces.services.create":     {Permission: "run.services.create", On: location},
	"run.namespaces.services.get":        {Permission: "run.services.get", On: svc},
	"run.namespaces.services.replace":    {Permission: "run.services.update", On: svc},
	"run.namespaces.services.delete":     {Permission: "run.services.delete", On: svc},
	"run.namespaces.revisions.list":      {Permission: "run.revisions.list", On: location},
	"run.namespaces.revisions.get":       {Permission: "run.revisions.get", On: location},
	"run.namespaces.revisions.delete":    {Permission: "run.revisions.delete", On: location},
	"run.namespaces.configurations.list": {Permission: "run.configurations.list", On: location},
	"run.namespaces.configurations.get":  {Permission: "run.configurations.get", On: svc},
	"run.namespaces.routes.list":         {Permission: "run.routes.list", On: location},
	"run.namespaces.routes.get":          {Permission: "run.routes.get", On: svc},

	"run.namespaces.jobs":           {Authenticated: true}, // not implemented, as are those beside them
	"run.namespaces.domainmappings": {Authenticated: true},

	"run.projects.locations.list":                        {Permission: "run.locations.list", On: "projects/{project}"},
	"run.projects.locations.services.list":               {Permission: "run.services.list", On: "{parent}"},
	"run.projects.locations.services.create":             {Permission: "run.services.create", On: "{parent}"},
	"run.projects.locations.services.get":                {Permission: "run.services.get", On: "{name}"},
	"run.projects.locations.services.replace":            {Permission: "run.services.update", On: "{name}"},
	"run.projects.locations.services.delete":             {Permission: "run.services.delete", On: "{name}"},
	"run.projects.locations.revisions.list":              {Permission: "run.revisions.list", On: "{parent}"},
	"run.projects.locations.configurations.list":         {Permission: "run.configurations.list", On: "{parent}"},
	"run.projects.locations.routes.list":                 {Permission: "run.routes.list", On: "{parent}"},
	"run.projects.locations.services.getIamPolicy":       {Permission: "run.services.getIamPolicy", On: "{resource}"},
	"run.projects.locations.services.setIamPolicy":       {Permission: "run.services.setIamPolicy", On: "{resource}"},
	"run.projects.locations.services.testIamPermissions": {Authenticated: true},
	"run.projects.locations.operations.wait":             {Permission: "run.operations.get", On: "{name}"},
	"run.projects.locations.operations.get":              {Permission: "run.operations.get", On: "{name}"},
	"run.projects.locations.operations.list":             {Permission: "run.operations.list", On: "{parent}"},
}

// How Knative's paths name what they are about.
const (
	location = "projects/{namespace}/locations/{region}"
	svc      = location + "/services/{id}"
)

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	k := rest.Errors(writeStatus)
	one, write := rest.Query(), rest.Query("dryRun")
	remove := rest.Query("dryRun", "apiVersion", "kind", "propagationPolicy", "orphanDependents")
	many := rest.Query("limit", "labelSelector", "fieldSelector", "continue", "watch", "resourceVersion",
		"includeUninitialized", "resourceVersionMatch", "timeoutSeconds")
	m.HandleFunc("GET", knative+"/services", "run.namespaces.services.list", s.knative(s.listServices), k, many)
	m.HandleFunc("POST", knative+"/services", "run.namespaces.services.create", s.knative(s.createService), k, write)
	m.HandleFunc("GET", knative+"/services/{id}", "run.namespaces.services.get", s.knative(s.getService), k, one)
	m.HandleFunc("PUT", knative+"/services/{id}", "run.namespaces.services.replace",
		s.knative(s.replaceService), k, write)
	m.HandleFunc("DELETE", knative+"/services/{id}", "run.namespaces.services.delete",
		s.knative(s.deleteService), k, remove)
	m.HandleFunc("GET", knative+"/revisions", "run.namespaces.revisions.list", s.knative(s.listRevisions), k, many)
	m.HandleFunc("GET", knative+"/revisions/{id}", "run.namespaces.revisions.get", s.knative(s.getRevision), k, one)
	m.HandleFunc("DELETE", knative+"/revisions/{id}", "run.namespaces.revisions.delete",
		s.knative(s.deleteRevision), k, remove)
	m.HandleFunc("GET", knative+"/configurations", "run.namespaces.configurations.list",
		s.knative(listOf(s, "ConfigurationList", configurationOf)), k, many)
	m.HandleFunc("GET", knative+"/configurations/{id}", "run.namespaces.configurations.get",
		s.knative(getOf(s, configurationOf)), k, one)
	m.HandleFunc("GET", knative+"/routes", "run.namespaces.routes.list",
		s.knative(listOf(s, "RouteList", routeOf)), k, many)
	m.HandleFunc("GET", knative+"/routes/{id}", "run.namespaces.routes.get", s.knative(getOf(s, routeOf)), k, one)

	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		m.HandleFunc(method, "/apis/run.googleapis.com/v1/{kind=**}", "run.namespaces.jobs",
			absent("jobs, executions, tasks and worker pools are"), k)
		m.HandleFunc(method, "/apis/domains.cloudrun.com/v1/{kind=**}", "run.namespaces.domainmappings",
			absent("domain mappings are"), k)
	}

	m.HandleFunc("GET", "/v1/projects/{project}/locations", "run.projects.locations.list", s.listLocations)
	const parent, name = "/v1/{parent=projects/*/locations/*}", "/v1/{name=projects/*/locations/*/services/*}"
	m.HandleFunc("GET", parent+"/services", "run.projects.locations.services.list", s.oneplatform(s.listServices), many)
	m.HandleFunc("POST", parent+"/services", "run.projects.locations.services.create",
		s.oneplatform(s.createService), write)
	m.HandleFunc("GET", name, "run.projects.locations.services.get", s.oneplatform(s.getService), one)
	m.HandleFunc("PUT", name, "run.projects.locations.services.replace", s.oneplatform(s.replaceService), write)
	m.HandleFunc("DELETE", name, "run.projects.locations.services.delete", s.oneplatform(s.deleteService), remove)
	m.HandleFunc("GET", parent+"/revisions", "run.projects.locations.revisions.list",
		s.oneplatform(s.listRevisions), many)
	m.HandleFunc("GET", parent+"/configurations", "run.projects.locations.configurations.list",
		s.oneplatform(listOf(s, "ConfigurationList", configurationOf)), many)
	m.HandleFunc("GET", parent+"/routes", "run.projects.locations.routes.list",
		s.oneplatform(listOf(s, "RouteList", routeOf)), many)
	policies.Register(m, s.Policies, policies.Routes{
		Resource: policies.Resource{
			Resolve: func(_ context.Context, name string) (string, error) {
				n, _, err := s.Project.Child("services", name)
				return n.String(), err
			},
			Exists: func(ctx context.Context, name string) error {
				n, err := resource.ParseChild("services", name)
				if err == nil {
					_, err = s.Services.Get(ctx, n)
				}
				return err
			},
		},
		Pattern: "/v1/{resource=projects/*/locations/*/services/*}",
		RPC:     "run.projects.locations.services",
	})
	m.HandleFunc("POST", "/v1/{name=projects/*/locations/*/operations/*}:wait",
		"run.projects.locations.operations.wait", s.waitOperation)
	m.HandleFunc("GET", "/v1/{name=projects/*/locations/*/operations/*}", "run.projects.locations.operations.get",
		s.getOperation)
	m.HandleFunc("GET", parent+"/operations", "run.projects.locations.operations.list", s.listOperations)
}

// absent answers for kinds that are not there.
func absent(what string) rest.Func {
	return func(context.Context, *rest.Request) (any, error) {
		return nil, fault.New(fault.Unimplemented, "Cloud Run's %s not implemented by Giggle; services are.", what)
	}
}

// target is what a request is about, whichever path it took.
type target struct {
	project  resource.Project
	location resource.Location
	id       string
}

func (t target) service() resource.Child {
	return resource.Service(t.location.Project, t.location.Location, t.id)
}

type handler func(ctx context.Context, r *rest.Request, t target) (any, error)

// knative serves a path under /apis: the location is the region in the host name.
func (s *Server) knative(h handler) rest.Func {
	return func(ctx context.Context, r *rest.Request) (any, error) {
		region := guard.Region(r.Host)
		if region == "" {
			return nil, fault.New(fault.InvalidArgument,
				"The Knative API is served for each region: call https://REGION-run.googleapis.com.")
		}
		return s.at(ctx, h, r, r.Params["namespace"], region, r.Params["id"])
	}
}

// oneplatform serves a path under /v1: the location is in the path.
func (s *Server) oneplatform(h handler) rest.Func {
	return func(ctx context.Context, r *rest.Request) (any, error) {
		if name := r.Params["name"]; name != "" {
			n, err := resource.ParseChild("services", name)
			if err != nil {
				return nil, err
			}
			return s.at(ctx, h, r, n.Project, n.Location.Location, n.ID)
		}
		n, err := resource.ParseLocation(r.Params["parent"])
		if err != nil {
			return nil, err
		}
		return s.at(ctx, h, r, n.Project, n.Location, "")
	}
}

func (s *Server) at(ctx context.Context, h handler, r *rest.Request, project, region, id string) (any, error) {
	p, err := s.Project(project)
	if err != nil {
		return nil, err
	}
	if region != "-" {
		if err := resource.CheckRegion(region); err != nil {
			return nil, err
		}
	}
	return h(ctx, r, target{p, resource.Location{Project: p.ID, Location: region}, id})
}

func (s *Server) listLocations(_ context.Context, r *rest.Request) (any, error) {
	p, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for _, region := range resource.Regions() {
		out = append(out, map[string]string{"name": "projects/" + p.ID + "/locations/" + region, "locationId": region,
			"displayName": region})
	}
	return map[string]any{"locations": out}, nil
}

// decodeService reads the body of a create or replace.
func (s *Server) decodeService(r *rest.Request, t target) (run.Service, bool, error) {
	body, err := r.ReadBody()
	if err != nil {
		return run.Service{}, false, err
	}
	if err := checkFields(body); err != nil {
		return run.Service{}, false, err
	}
	var w service
	if err := json.Unmarshal(body, &w); err != nil {
		return run.Service{}, false, fault.New(fault.InvalidArgument, "The body is not a Service: %v", err)
	}
	svc, err := fromWire(t.location, &w)
	if err != nil {
		return run.Service{}, false, err
	}
	if ns := w.Metadata.Namespace; ns != "" && ns != t.project.ID && ns != t.project.Number {
		return run.Service{}, false, fault.Invalid("metadata.namespace", "%.60q is not the project of the request", ns)
	}
	dry := r.Query.Get("dryRun") == "all"
	return svc, dry, nil
}

func (s *Server) createService(ctx context.Context, r *rest.Request, t target) (any, error) {
	return s.writeService(ctx, r, t, s.Services.Create)
}

func (s *Server) replaceService(ctx context.Context, r *rest.Request, t target) (any, error) {
	return s.writeService(ctx, r, t, s.Services.Replace)
}

// writeService reads a service from the body, checks it, and, unless the caller only wants to know, writes it.
func (s *Server) writeService(
	ctx context.Context,
	r *rest.Request,
	t target,
	write func(context.Context, run.Service, string) (run.Service, error),
) (any, error) {
	svc, dry, err := s.decodeService(r, t)
	if err != nil {
		return nil, err
	}
	if t.id != "" && svc.Name.ID != t.id {
		return nil, fault.Invalid("metadata.name", "%.60q is not the service of the path", svc.Name.ID)
	}
	if svc, err = s.Services.Complete(svc); err != nil {
		return nil, fieldNames.Translate(err)
	}
	who := guard.Caller(ctx)
	if err := s.ActAs(ctx, who, t.project, svc.Template.ServiceAccount); err != nil {
		return nil, err
	}
	if !dry {
		if svc, err = write(ctx, svc, who.Email()); err != nil {
			return nil, fieldNames.Translate(err)
		}
	}
	return toWire(&svc, t.project), nil
}

func (s *Server) getService(ctx context.Context, _ *rest.Request, t target) (any, error) {
	svc, err := s.Services.Get(ctx, t.service())
	if err != nil {
		return nil, notFound(err, "Service", t.id)
	}
	return toWire(&svc, t.project), nil
}

// notFound says in Cloud Run's words which resource is not there.
func notFound(err error, kind, id string) error {
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "Resource '%s' of kind '%s' in region was not found.", id,
			strings.ToUpper(kind))
	}
	return err
}

func (s *Server) deleteService(ctx context.Context, _ *rest.Request, t target) (any, error) {
	if _, err := s.Services.Delete(ctx, t.service(), 0); err != nil {
		return nil, notFound(err, "Service", t.id)
	}
	return map[string]any{"metadata": map[string]any{}, "status": "Success",
		"details": map[string]string{"name": t.id, "kind": "service"}}, nil
}

// active returns the names of the revisions that the service's traffic leads to.
func (s *Server) active(ctx context.Context, in resource.Location) (map[string]bool, error) {
	svcs, _, err := s.Services.List(ctx, in, "", 0)
	out := make(map[string]bool)
	for _, svc := range svcs {
		for _, t := range svc.Status.Traffic {
			out[svc.Name.String()+"/revisions/"+t.Revision] = true
		}
	}
	return out, err
}

func (s *Server) getRevision(ctx context.Context, _ *rest.Request, t target) (any, error) {
	rev, err := s.Services.GetRevision(ctx, t.location, t.id)
	if err != nil {
		return nil, notFound(err, "Revision", t.id)
	}
	active, err := s.active(ctx, t.location)
	if err != nil {
		return nil, err
	}
	return revisionToWire(&rev, t.project, active[rev.Name.String()]), nil
}

func (s *Server) deleteRevision(ctx context.Context, _ *rest.Request, t target) (any, error) {
	rev, err := s.Services.GetRevision(ctx, t.location, t.id)
	if err == nil {
		_, err = s.Services.DeleteRevision(ctx, rev.Name)
	}
	if err != nil {
		return nil, notFound(err, "Revision", t.id)
	}
	return map[string]any{"metadata": map[string]any{}, "status": "Success"}, nil
}

// operations reads Cloud Run's operations.
func (s *Server) operations() operations.Reader {
	return operations.Reader{Store: s.Operations, Kind: run.OperationKind, Project: s.Project, Pages: s.Pages}
}

// waitOperation blocks until the operation is done: gcloud 528 asks for 30 s and calls again.
func (s *Server) waitOperation(ctx context.Context, r *rest.Request) (any, error) {
	var body struct {
		Timeout string `json:"timeout"`
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	var timeout time.Duration
	if body.Timeout != "" {
		var err error
		if timeout, err = time.ParseDuration(body.Timeout); err != nil || timeout < 0 {
			return nil, fault.Invalid("timeout", "%.40q is not a duration such as 30s", body.Timeout)
		}
	}
	op, err := s.operations().Wait(ctx, r.Params["name"], timeout)
	if err != nil {
		return nil, err
	}
	return s.operationToWire(ctx, op)
}

func (s *Server) getOperation(ctx context.Context, r *rest.Request) (any, error) {
	op, err := s.operations().Get(ctx, r.Params["name"])
	if err != nil {
		return nil, err
	}
	return s.operationToWire(ctx, op)
}

func (s *Server) listOperations(ctx context.Context, r *rest.Request) (any, error) {
	size, err := strconv.Atoi(cmp.Or(r.Query.Get("pageSize"), "0"))
	if err != nil {
		return nil, fault.Invalid("pageSize", "must be a number")
	}
	ops, next, err := s.operations().List(ctx, r.Params["parent"], size, r.Query.Get("pageToken"))
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, op := range ops {
		w, err := s.operationToWire(ctx, op)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return map[string]any{"operations": out, "nextPageToken": next}, nil
}

// operationToWire writes an operation with the service as its response: gcloud 528 reads the conditions from there.
func (s *Server) operationToWire(ctx context.Context, op operation.Operation) (any, error) {
	out := map[string]any{"name": op.Name, "done": op.Done}
	if len(op.Metadata) > 0 {
		out["metadata"] = map[string]any{"@type": "type.googleapis.com/google.cloud.run.v1.OperationMetadata",
			"target": op.Target, "verb": op.Verb}
	}
	if !op.Done {
		return out, nil
	}
	if op.Error != nil {
		out["error"] = map[string]any{"code": op.Error.Code, "message": op.Error.Message}
		return out, nil
	}
	if op.Verb == "delete" {
		out["response"] = map[string]any{"@type": "type.googleapis.com/google.protobuf.Empty",
			"value": map[string]any{}}
		return out, nil
	}
	n, err := resource.ParseChild("services", op.Target)
	if err != nil {
		return nil, err
	}
	svc, err := s.Services.Get(ctx, n)
	if fault.Is(err, fault.NotFound) {
		out["error"] = map[string]any{"code": fault.NotFound, "message": "The service was deleted since."}
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := s.Project(n.Project)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(toWire(&svc, p))
	if err != nil {
		return nil, err
	}
	response := make(map[string]any)
	if err := json.Unmarshal(body, &response); err != nil {
		return nil, err
	}
	response["@type"] = "type.googleapis.com/google.cloud.run.v1.Service"
	out["response"] = response
	return out, nil
}

// reasons are the reasons of a Kubernetes Status for codes of ours.
var reasons = map[fault.Code]string{
	fault.NotFound: "NotFound", fault.AlreadyExists: "AlreadyExists", fault.Aborted: "Conflict",
	fault.InvalidArgument:  "Invalid",
	fault.PermissionDenied: "Forbidden", fault.Unauthenticated: "Unauthorized", fault.Unavailable: "ServiceUnavailable",
	fault.DeadlineExceeded: "Timeout", fault.ResourceExhausted: "TooManyRequests", fault.OutOfRange: "Expired",
	fault.Unimplemented: "NotImplemented",
}

// writeStatus writes a failure as a Kubernetes Status, which gcloud 528 parses on the paths under /apis
// (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status).
func writeStatus(w http.ResponseWriter, _ *http.Request, f *rest.Failure) {
	status := statusOf(f.Error, f.HTTP)
	rest.SetRequired(w, f)
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status.Code)
	_ = json.NewEncoder(w).Encode(status)
}

type statusObject struct {
	Kind       string        `json:"kind"`
	APIVersion string        `json:"apiVersion"`
	Metadata   struct{}      `json:"metadata"`
	Status     string        `json:"status"`
	Message    string        `json:"message"`
	Reason     string        `json:"reason"`
	Details    statusDetails `json:"details"`
	Code       int           `json:"code"`
	// Error says the same in Google's form: gcloud 528 prints the message of that one, and a Status as raw JSON.
	Error googleError `json:"error"`
}

type googleError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Status  string `json:"status"`
}

type statusDetails struct {
	Group  string        `json:"group,omitempty"`
	Causes []statusCause `json:"causes,omitempty"`
}

type statusCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

func statusOf(e *fault.Error, code int) statusObject {
	s := statusObject{
		Kind:       "Status",
		APIVersion: "v1",
		Status:     "Failure",
		Message:    e.Text(),
		Reason:     reasons[e.Code],
		Code:       code,
	}
	if s.Reason == "" {
		s.Reason = "InternalError"
	}
	if e.Code == fault.OutOfRange {
		s.Code = http.StatusGone
	}
	for _, f := range e.Fields {
		reason := "FieldValueInvalid"
		if e.Code == fault.Unimplemented {
			reason = "FieldValueNotSupported"
		}
		s.Details.Causes = append(s.Details.Causes, statusCause{reason, f.Description, f.Path})
	}
	s.Error = googleError{s.Code, e.Text(), e.Code.String()}
	return s
}
