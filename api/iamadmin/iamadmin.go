// Package iamadmin is the wire form of IAM v1 (google.iam.admin.v1): service accounts, their keys, the policies on
// them, and roles.
//
// It translates for package giggle/iam. What is not implemented answers UNIMPLEMENTED.
package iamadmin

import (
	"context"
	"encoding/base64"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/iam"
	"giggle/resource"
	"giggle/rest"
)

// Identity is the identity side: *iam.IAM.
type Identity interface {
	policies.Policies
	Account(ctx context.Context, project, id string) (iam.Account, error)
	Accounts(ctx context.Context, project string) ([]iam.Account, error)
	CreateAccount(ctx context.Context, id string, a iam.Account) (iam.Account, error)
	UpdateAccount(ctx context.Context, project, id string, change func(*iam.Account) error) (iam.Account, error)
	DeleteAccount(ctx context.Context, project, id string) error
	UndeleteAccount(ctx context.Context, project, uniqueID string) (iam.Account, error)
	CreateKey(ctx context.Context, project, account string) (k iam.Key, file []byte, err error)
	UploadKey(ctx context.Context, project, account string, certificate []byte) (iam.Key, error)
	Keys(ctx context.Context, project, account string) ([]iam.Key, error)
	Key(ctx context.Context, project, account, id string) (iam.Key, error)
	DeleteKey(ctx context.Context, project, account, id string) error
	SignBlob(ctx context.Context, a iam.Account, payload []byte) (keyID string, signature []byte, err error)
	SignJWT(ctx context.Context, a iam.Account, claims string) (keyID, token string, err error)
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
	Roles(project string) []iam.Role
	Role(name string) (iam.Role, error)
	Permissions() []string
	CreateRole(ctx context.Context, project, id string, r iam.Role) (iam.Role, error)
	UpdateRole(ctx context.Context, name, etag string, change func(*iam.Role) error) (iam.Role, error)
	DeleteRole(ctx context.Context, name, etag string) (iam.Role, error)
	UndeleteRole(ctx context.Context, name, etag string) (iam.Role, error)
	DisableKey(ctx context.Context, project, account, id string, disabled bool) error
}

// Config is what a Server needs.
type Config struct {
	Identity Identity
	Project  resource.FindProject
	Pages    *resource.Pages
	// Audited are the services that write audit logs, such as run.googleapis.com.
	Audited []string
}

// Server serves the API.
type Server struct {
	Config
	absent
	policies.IAMPolicy
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	adminpb.UnimplementedIAMServer
}

// New returns the server of the API.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.IAMPolicy = policies.New(cfg.Identity,
		policies.Resource{Resolve: func(ctx context.Context, name string) (string, error) {
			a, err := s.get(ctx, name)
			return a.Name(), err
		}})
	return s
}

const (
	service = "google.iam.admin.v1.IAM"
	rpc     = "/" + service + "/"
)

// Rules says what each RPC needs. What is not implemented still needs a signed-in caller.
var Rules = guard.Absent(rest.Describe(service, &Server{})).With(guard.Rules{
	rpc + "CreateServiceAccount":   {Permission: "iam.serviceAccounts.create", On: "{name}"},
	rpc + "ListServiceAccounts":    {Permission: "iam.serviceAccounts.list", On: "{name}"},
	rpc + "GetServiceAccount":      {Permission: "iam.serviceAccounts.get", On: "{name}"},
	rpc + "UpdateServiceAccount":   {Permission: "iam.serviceAccounts.update", On: "{name}"},
	rpc + "PatchServiceAccount":    {Permission: "iam.serviceAccounts.update", On: "{service_account.name}"},
	rpc + "DeleteServiceAccount":   {Permission: "iam.serviceAccounts.delete", On: "{name}"},
	rpc + "UndeleteServiceAccount": {Permission: "iam.serviceAccounts.undelete", On: "{name}"},
	rpc + "EnableServiceAccount":   {Permission: "iam.serviceAccounts.enable", On: "{name}"},
	rpc + "DisableServiceAccount":  {Permission: "iam.serviceAccounts.disable", On: "{name}"},

	rpc + "SignBlob": {Data: true, Permission: "iam.serviceAccounts.signBlob", On: "{name}"},
	rpc + "SignJwt":  {Data: true, Permission: "iam.serviceAccounts.signJwt", On: "{name}"},

	rpc + "ListServiceAccountKeys":   {Permission: "iam.serviceAccountKeys.list", On: "{name}"},
	rpc + "GetServiceAccountKey":     {Permission: "iam.serviceAccountKeys.get", On: "{name}"},
	rpc + "CreateServiceAccountKey":  {Permission: "iam.serviceAccountKeys.create", On: "{name}"},
	rpc + "UploadServiceAccountKey":  {Permission: "iam.serviceAccountKeys.create", On: "{name}"},
	rpc + "DeleteServiceAccountKey":  {Permission: "iam.serviceAccountKeys.delete", On: "{name}"},
	rpc + "EnableServiceAccountKey":  {Permission: "iam.serviceAccountKeys.enable", On: "{name}"},
	rpc + "DisableServiceAccountKey": {Permission: "iam.serviceAccountKeys.disable", On: "{name}"},

	// These ask only for a project's own roles: see there.
	rpc + "ListRoles":           {Authenticated: true},
	rpc + "GetRole":             {Authenticated: true},
	rpc + "QueryGrantableRoles": {Authenticated: true},

	rpc + "QueryTestablePermissions": {Authenticated: true},

	rpc + "CreateRole":   {Permission: "iam.roles.create", On: "{parent}"},
	rpc + "UpdateRole":   {Permission: "iam.roles.update", On: "{name}"},
	rpc + "DeleteRole":   {Permission: "iam.roles.delete", On: "{name}"},
	rpc + "UndeleteRole": {Permission: "iam.roles.undelete", On: "{name}"},

	rpc + "GetIamPolicy": {Permission: "iam.serviceAccounts.getIamPolicy", On: "{resource}"},
	rpc + "SetIamPolicy": {Permission: "iam.serviceAccounts.setIamPolicy", On: "{resource}"},

	rpc + "TestIamPermissions":     {Authenticated: true},
	rpc + "QueryAuditableServices": {Authenticated: true},
	rpc + "LintPolicy":             {Authenticated: true},
})

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) { m.RegisterService(rest.Describe(service, s), s) }

// project reads "projects/P" and returns its id.
func (s *Server) project(name string) (string, error) {
	p, err := s.Project.Project(name)
	return p.ID, err
}

// account reads "projects/P/serviceAccounts/EMAIL_OR_UNIQUE_ID" with what follows it; P may be "-" for any project.
func (s *Server) account(name string) (project, id, rest string, err error) {
	name, key, found := strings.Cut(name, "/keys")
	a, err := resource.ParseAccount(name)
	if err != nil {
		return "", "", "", err
	}
	if a.Project != "-" {
		p, err := s.Project(a.Project)
		if err != nil {
			return "", "", "", err
		}
		a.Project = p.ID
	}
	if found {
		rest = "keys" + key
	}
	return a.Project, a.ID, rest, nil
}

// The most rows of one page, from IAM's reference.
const (
	maxAccountPage    = 100
	maxPage           = 1000
	maxPermissionPage = 1000
)

// page cuts one page out of all, which are sorted by the key.
func page[T any](s *Server, l resource.List, all []T, key func(T) string) ([]T, string, error) {
	return resource.Page(s.Pages, l, resource.Rows(all, key), key)
}

// etag is an etag as protos have it.
func etag(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}
