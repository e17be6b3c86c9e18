// Package giggle is the platform's own API: what no API of Google's has. It is plain HTTP and JSON, on the socket in
// the data directory.
//
// It serves the giggle command. Who the caller is, the listener says; what they may is asked of the same evaluator as
// in every other API. It has no rules table: its few calls name their permission where they are.
package giggle

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/logging"
	"giggle/logging/audit"
	"giggle/shell"
)

// Identity is the identity side: *iam.IAM.
type Identity interface {
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
	Explain(p iam.Principal, permission, resource string) iam.Explanation
	AccessToken(p iam.Principal, scopes []string) (token string, expires time.Time, err error)
	IDToken(p iam.Principal, audience string) (string, error)
}

// Config is what a Server needs.
type Config struct {
	Identity Identity
	Audit    logging.Reader // the audit log
	Log      logging.Reader // all others
	Models   Models

	Databases Databases
	Loads     func() Top      // of all projects
	Projects  func() []string // ids of all projects
	// Caller returns who a local user is, by uid; -1 where that isn't known. It fails with PermissionDenied.
	Caller func(uid int) (iam.Principal, error)
	// OpenShell opens a shell in a step of a build that failed: by its id or number, or "" for the one that failed.
	OpenShell func(ctx context.Context, who iam.Principal, build, step string) (Shell, error)
	Status    func(ctx context.Context) (Status, error)
	// Session signs a local user in.
	Session func(ctx context.Context, uid int, who iam.Principal) (shell.Session, error)
}

// Server serves the API.
type Server struct{ cfg Config }

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{cfg} }

// HTTP returns the server of the platform's socket, which knows the local user on the other end.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ConnContext:       withLocalUser,
	}
}

// Handler returns the routes.
func (s *Server) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /status", s.serve(s.status))
	m.HandleFunc("POST /session", s.serve(s.session))
	m.HandleFunc("GET /v1/audit", s.serve(s.audit))
	m.HandleFunc("GET /v1/logs", s.serve(s.logs))
	m.HandleFunc("GET /v1/top", s.serve(s.top))
	m.HandleFunc("GET /v1/explain", s.serve(s.explain))
	m.HandleFunc("GET /v1/accessToken", s.serve(s.accessToken))
	m.HandleFunc("GET /v1/idToken", s.serve(s.idToken))
	m.HandleFunc("GET /v1/shell", s.serve(s.shell))
	m.HandleFunc("GET /v1/models", s.serve(s.listModels))
	m.HandleFunc("PUT /v1/models", s.serve(s.useModel))
	m.HandleFunc("PUT /v1/models:add", s.serve(s.addModel))
	m.HandleFunc("DELETE /v1/models", s.serve(s.forgetModel))
	m.HandleFunc("POST /v1/models:try", s.serve(s.tryModel))
	m.HandleFunc("GET /v1/sql", s.serve(s.listDatabases))
	m.HandleFunc("PUT /v1/sql", s.serve(s.mapDatabase))
	m.HandleFunc("DELETE /v1/sql", s.serve(s.unmapDatabase))
	return m
}

// serve answers with what a handler returns, in JSON; nil where it has written itself.
func (s *Server) serve(
	h func(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error),
) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := s.cfg.Caller(localUser(r.Context()))
		var out any
		if err == nil {
			out, err = h(w, r, who)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case err != nil:
			f := fault.From(err)
			w.WriteHeader(f.Code.HTTPStatus())
			_ = json.NewEncoder(w).Encode(Error{Code: uint32(f.Code), Message: f.Text()})
		case out != nil:
			_ = json.NewEncoder(w).Encode(out)
		}
	}
}

// Error is the body of an answer that is no success.
type Error struct {
	Code    uint32 `json:"code"` // google.rpc.Code
	Message string `json:"message"`
}

// Explanation is why a permission is or was given or refused.
type Explanation struct {
	Allowed bool           `json:"allowed"`
	Text    string         `json:"text"`            // for a person to read, in lines
	Entry   *logging.Entry `json:"entry,omitempty"` // the call that was asked about
}

// explain says why the principal in the query has a permission on a resource or not, or why the principal of a request
// had.
func (s *Server) explain(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	q := r.URL.Query()
	principal, permission, resource := q.Get("principal"), q.Get("permission"), q.Get("resource")
	var entry *logging.Entry
	if id := q.Get("request"); id != "" {
		entries, err := logging.Collect(s.cfg.Audit.Read(r.Context(), logging.Filter{ID: id}))
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, fault.New(fault.NotFound,
				"No request %.80q is in the audit log: it holds what changed something and what was refused.", id)
		}
		entry = &entries[0]
		call, err := audit.PayloadOf(entry)
		if err != nil {
			return nil, err
		}
		principal = call.Authentication.PrincipalSubject
		if len(call.Authorization) == 0 {
			return Explanation{
				Text:    withoutPermission(call),
				Allowed: !call.Refused(),
				Entry:   entry,
			}, s.mayExplain(r.Context(), who, call.ResourceName)
		}
		permission, resource = call.Authorization[0].Permission, call.Authorization[0].Resource
	}
	p, err := iam.ParsePrincipal(principal)
	if err != nil {
		return nil, err
	}
	resource = strings.TrimPrefix(resource, "//")
	// "//run.googleapis.com/projects/…", as IAM's own tools write it
	if i := strings.Index(resource, "projects/"); i > 0 {
		resource = resource[i:]
	}
	if permission == "" || !strings.HasPrefix(resource, "projects/") {
		return nil, fault.New(fault.InvalidArgument,
			"Name a permission (\"run.routes.invoke\") and a resource (\"projects/giggle/locations/europe-north1/services/jokes\"), or a request's id.")
	}
	if err := s.mayExplain(r.Context(), who, resource); err != nil {
		return nil, err
	}
	e := s.cfg.Identity.Explain(p, permission, resource)
	return Explanation{Allowed: e.Allowed, Text: e.String(), Entry: entry}, nil
}

// mayExplain asks for what shows the policies that an explanation quotes.
func (s *Server) mayExplain(ctx context.Context, who iam.Principal, resource string) error {
	part := strings.Split(resource, "/")
	projects := s.cfg.Projects()
	if len(part) > 1 && part[0] == "projects" && slices.Contains(projects, part[1]) {
		projects = part[1:2]
	}
	for _, p := range projects {
		if err := s.cfg.Identity.Authorize(ctx, who, "resourcemanager.projects.getIamPolicy",
			"projects/"+p); err != nil {
			return err
		}
	}
	return nil
}

// withoutPermission says what came of a call that no permission of its own decided.
func withoutPermission(p audit.Payload) string {
	if p.Status.Code == 0 {
		return p.MethodName + " needs no permission of its own, and succeeded.\n"
	}
	if p.Authentication.PrincipalEmail == "" {
		return p.MethodName + " came without valid credentials: " + p.Status.Message + "\n"
	}
	return p.MethodName + " was not decided by a permission: " + p.Status.Message + "\n"
}

// Token is a token of the caller's.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// maxScopes and maxAudience bound what is put into a token, in number and bytes.
const (
	maxScopes   = 50
	maxAudience = 1024
)

// accessToken makes an access token of the caller's, for their shell's metadata server.
func (s *Server) accessToken(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	scopes := r.URL.Query()["scope"]
	if len(scopes) > maxScopes {
		return nil, fault.Invalid("scope", "more than %d", maxScopes)
	}
	token, expires, err := s.cfg.Identity.AccessToken(who, scopes)
	return Token{token, expires}, err
}

// idToken makes an ID token of the caller's for one audience.
func (s *Server) idToken(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	audience := r.URL.Query().Get("audience")
	if audience == "" || len(audience) > maxAudience {
		return nil, fault.Invalid("audience", "must be of 1 to %d bytes", maxAudience)
	}
	token, err := s.cfg.Identity.IDToken(who, audience)
	return Token{Token: token}, err
}
