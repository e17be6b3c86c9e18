// Package sourcerepo is the wire form of Cloud Source Repositories v1: repositories are created, listed, read and
// deleted, and have policies. The API is plain JSON; there is no proto of it.
//
// It translates for package git. Mirrors of other hosts are made by build triggers; notifications to Pub/Sub and the
// key check of project configurations are not implemented.
//
// Rules: https://cloud.google.com/source-repositories/docs/reference/rest.
package sourcerepo

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/fault"
	"giggle/git"
	"giggle/resource"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Repos    *git.Repos
	Policies policies.Policies
	Project  resource.FindProject
	Pages    *resource.Pages
	Host     string // of the URLs to clone from
}

// Server serves the API.
type Server struct {
	Config
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const rpc = "sourcerepo.projects.repos."

// Rules says what each method needs.
var Rules = guard.Rules{
	rpc + "create":             {Permission: "source.repos.create", On: "projects/{project}"},
	rpc + "list":               {Permission: "source.repos.list", On: "projects/{project}"},
	rpc + "get":                {Permission: "source.repos.get", On: "projects/{project}/repos/{repo}"},
	rpc + "delete":             {Permission: "source.repos.delete", On: "projects/{project}/repos/{repo}"},
	rpc + "getIamPolicy":       {Permission: "source.repos.getIamPolicy", On: "{resource}"},
	rpc + "setIamPolicy":       {Permission: "source.repos.setIamPolicy", On: "{resource}"},
	rpc + "testIamPermissions": {Authenticated: true},
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	const all, one = "/v1/projects/{project}/repos", "/v1/projects/{project}/repos/{repo}"
	m.HandleFunc("POST", all, rpc+"create", s.create, rest.Query())
	m.HandleFunc("GET", all, rpc+"list", s.list, rest.Query("pageSize", "pageToken"))
	m.HandleFunc("GET", one, rpc+"get", s.get, rest.Query())
	m.HandleFunc("DELETE", one, rpc+"delete", s.delete, rest.Query())
	policies.Register(m, s.Policies, policies.Routes{
		Resource: policies.Resource{
			Resolve: func(_ context.Context, name string) (string, error) {
				n, _, err := s.Project.Global("repos", name)
				return n.String(), err
			},
			Exists: func(ctx context.Context, name string) error {
				n, err := resource.ParseGlobal("repos", name)
				if err == nil {
					_, err = s.Repos.Get(ctx, n.Project, n.ID)
				}
				return err
			},
		},
		Pattern: "/v1/{resource=projects/*/repos/*}",
		RPC:     strings.TrimSuffix(rpc, "."),
	})
}

// repo is a repository on the wire.
type repo struct {
	Name         string  `json:"name"`
	Size         int64   `json:"size,string,omitempty"`
	URL          string  `json:"url"`
	MirrorConfig *mirror `json:"mirrorConfig,omitempty"`
}

type mirror struct {
	URL string `json:"url"`
}

func (s *Server) wire(r git.Repo) repo {
	out := repo{Name: r.Resource(), URL: "https://" + s.Host + "/p/" + r.Project + "/r/" + r.Name}
	if r.Mirror != "" {
		out.MirrorConfig = &mirror{r.Mirror}
	}
	return out
}

func (s *Server) create(ctx context.Context, r *rest.Request) (any, error) {
	var body struct {
		Name string `json:"name"`
		// What clients send back of a repository that they have read.
		Size          json.RawMessage `json:"size"`
		URL           json.RawMessage `json:"url"`
		MirrorConfig  json.RawMessage `json:"mirrorConfig"`
		PubsubConfigs map[string]any  `json:"pubsubConfigs"`
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	if len(body.PubsubConfigs) > 0 {
		return nil, fault.NotImplemented("repo.pubsubConfigs", "there are no topics to publish to")
	}
	project, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	n, in, err := s.Project.Global("repos", body.Name)
	if err != nil {
		return nil, err
	}
	if in != project {
		return nil, fault.Invalid("repo.name", "%.200q is not in the project %s", body.Name, project.ID)
	}
	made, err := s.Repos.Create(ctx, project.ID, n.ID)
	if err != nil {
		return nil, err
	}
	return s.wire(made), nil
}

// maxPage is the most repositories of one page.
const maxPage = 500

func (s *Server) list(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(cmp.Or(r.Query.Get("pageSize"), "0"))
	if err != nil {
		return nil, fault.Invalid("pageSize", "must be a number")
	}
	all, err := s.Repos.List(ctx, project.ID)
	if err != nil {
		return nil, err
	}
	key := func(r git.Repo) string { return r.Name }
	list := resource.List{
		Query: project.String() + "/repos",
		Size:  size,
		Most:  maxPage,
		Token: r.Query.Get("pageToken"),
	}
	page, next, err := resource.Page(s.Pages, list, resource.Rows(all, key), key)
	if err != nil {
		return nil, err
	}
	out := struct {
		Repos []repo `json:"repos,omitempty"`
		Next  string `json:"nextPageToken,omitempty"`
	}{Next: next}
	for _, x := range page {
		out.Repos = append(out.Repos, s.wire(x))
	}
	return out, nil
}

func (s *Server) get(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	found, err := s.Repos.Get(ctx, project.ID, r.Params["repo"])
	if err != nil {
		return nil, err
	}
	out := s.wire(found)
	out.Size, err = s.Repos.Size(found)
	return out, err
}

func (s *Server) delete(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, err
	}
	return nil, s.Repos.Delete(ctx, project.ID, r.Params["repo"])
}
