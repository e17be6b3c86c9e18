// Package iam is the wire form of IAM v1, as far as the deploy road needs it: looking a service account up.
//
// It translates for package giggle/iam. Every other RPC of the API answers UNIMPLEMENTED.
package iam

import (
	"context"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

// Accounts looks service accounts up: *iam.IAM.
type Accounts interface {
	Account(ctx context.Context, project, id string) (iam.Account, error)
}

// Server serves the API.
type Server struct {
	adminpb.UnimplementedIAMServer

	Accounts Accounts
	// ProjectID returns the id of a project named by id or number.
	ProjectID func(ref string) (string, error)
}

const service = "google.iam.admin.v1.IAM"

// Rules says what each RPC needs. What is not implemented still needs a signed-in caller.
var Rules = func() guard.Rules {
	r := guard.Rules{}
	for _, m := range rest.Describe(service, &Server{}).Methods {
		r["/"+service+"/"+m.MethodName] = guard.Rule{}
	}
	r["/"+service+"/GetServiceAccount"] = guard.Rule{Permission: "iam.serviceAccounts.get", On: "{name}"}
	return r
}()

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) { m.RegisterService(rest.Describe(service, s), s) }

// GetServiceAccount returns a service account by "projects/P/serviceAccounts/EMAIL", P being "-" for any project.
func (s *Server) GetServiceAccount(ctx context.Context, r *adminpb.GetServiceAccountRequest) (*adminpb.ServiceAccount, error) {
	rest, ok := strings.CutPrefix(r.GetName(), "projects/")
	project, id, found := strings.Cut(rest, "/serviceAccounts/")
	if !ok || !found {
		return nil, fault.Invalid("name", "%.100q is not of the form projects/PROJECT/serviceAccounts/EMAIL", r.GetName())
	}
	if project != "-" {
		p, err := s.ProjectID(project)
		if err != nil {
			return nil, err
		}
		project = p
	}
	a, err := s.Accounts.Account(ctx, project, id)
	if err != nil {
		return nil, err
	}
	return &adminpb.ServiceAccount{
		Name: a.Name(), ProjectId: a.Project, UniqueId: a.UniqueID, Email: a.Email, DisplayName: a.DisplayName,
		Description: a.Description, Disabled: a.Disabled, Oauth2ClientId: a.UniqueID,
	}, nil
}
