// Package cloudbilling is the one method of the Cloud Billing API that tools ask before anything else: Terraform's
// google_project reads whom a project's use is billed to. Here that is nobody. The API is plain JSON.
//
// Rules: https://cloud.google.com/billing/docs/reference/rest/v1/projects/getBillingInfo.
package cloudbilling

import (
	"context"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Project resource.FindProject
}

// Server serves the API.
type Server struct {
	Config
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const rpc = "cloudbilling.projects."

// Rules says what each method needs.
var Rules = guard.Rules{
	rpc + "getBillingInfo":    {Permission: "resourcemanager.projects.get", On: "projects/{project}"},
	rpc + "updateBillingInfo": {Authenticated: true}, // not implemented: authenticated callers are told
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	const path = "/v1/projects/{project}/billingInfo"
	m.HandleFunc("GET", path, rpc+"getBillingInfo", s.get, rest.Query())
	m.HandleFunc("PUT", path, rpc+"updateBillingInfo", func(context.Context, *rest.Request) (any, error) {
		return nil, fault.NotImplemented("billingAccountName",
			"billing accounts are not implemented: nothing is billed")
	})
}

// get says that the project has no billing account.
func (s *Server) get(_ context.Context, r *rest.Request) (any, error) {
	p, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	return map[string]any{"name": p.String() + "/billingInfo", "projectId": p.ID, "billingAccountName": "",
		"billingEnabled": false}, nil
}
