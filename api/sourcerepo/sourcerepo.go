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
	"slices"
	"strconv"
	"strings"

	"giggle/api/guard"
	"giggle/api/iampolicy"
	"giggle/fault"
	"giggle/git"
	"giggle/resource"
	"giggle/rest"
)

// Server serves the API.
type Server struct {
	Repos     *git.Repos
	Policies  iampolicy.Policies
	ProjectID func(ref string) (string, error) // by id or number
	Pages     *resource.Pages
	Host      string // of the URLs to clone from
}

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
	m.HandleFunc("POST", all, rpc+"create", s.create)
	m.HandleFunc("GET", all, rpc+"list", s.list)
	m.HandleFunc("GET", one, rpc+"get", s.get)
	m.HandleFunc("DELETE", one, rpc+"delete", s.delete)
	iampolicy.Register(m, s.Policies, iampolicy.Routes{
		Pattern: "/v1/{resource=projects/*/repos/*}", RPC: strings.TrimSuffix(rpc, "."),
		Resolve: func(name string) (string, error) {
			project, repo, err := s.parse(name)
			return git.Resource(project, repo), err
		},
		Exists: func(ctx context.Context, name string) error {
			project, repo, err := s.parse(name)
			if err != nil {
				return err
			}
			_, err = s.Repos.Get(ctx, project, repo)
			return err
		},
	})
}

// parse reads "projects/PROJECT/repos/REPO" and names the project by its id.
func (s *Server) parse(name string) (project, repo string, err error) {
	f := strings.Split(name, "/")
	if len(f) != 4 || f[0] != "projects" || f[2] != "repos" || f[3] == "" {
		return "", "", fault.Invalid("name", "%.200q is not projects/PROJECT/repos/REPO", name)
	}
	project, err = s.ProjectID(f[1])
	return project, f[3], err
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
	}
	if err := r.DecodeJSON(&body); err != nil {
		return nil, err
	}
	project, err := s.ProjectID(r.Params["project"])
	if err != nil {
		return nil, err
	}
	in, name, err := s.parse(body.Name)
	if err != nil {
		return nil, err
	}
	if in != project {
		return nil, fault.Invalid("repo.name", "%.200q is not in the project %s", body.Name, project)
	}
	made, err := s.Repos.Create(ctx, project, name)
	if err != nil {
		return nil, err
	}
	return s.wire(made), nil
}

// maxPage is the most repositories of one page.
const maxPage = 500

func (s *Server) list(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.ProjectID(r.Params["project"])
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(cmp.Or(r.Query.Get("pageSize"), "0"))
	if err != nil || size < 0 {
		return nil, fault.Invalid("pageSize", "must be a number")
	}
	if size == 0 || size > maxPage {
		size = maxPage
	}
	query := "projects/" + project + "/repos"
	last, err := s.Pages.Last(query, r.Query.Get("pageToken"))
	if err != nil {
		return nil, err
	}
	all, err := s.Repos.List(ctx, project)
	if err != nil {
		return nil, err
	}
	from, _ := slices.BinarySearchFunc(all, last+"\x00", func(r git.Repo, after string) int { return strings.Compare(r.Name, after) })
	var out struct {
		Repos []repo `json:"repos,omitempty"`
		Next  string `json:"nextPageToken,omitempty"`
	}
	for _, x := range all[from:] {
		if len(out.Repos) == size {
			out.Next = s.Pages.Token(query, last)
			break
		}
		out.Repos = append(out.Repos, s.wire(x))
		last = x.Name
	}
	return out, nil
}

func (s *Server) get(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.ProjectID(r.Params["project"])
	if err != nil {
		return nil, err
	}
	found, err := s.Repos.Get(ctx, project, r.Params["repo"])
	if err != nil {
		return nil, err
	}
	out := s.wire(found)
	out.Size, err = s.Repos.Size(found)
	return out, err
}

func (s *Server) delete(ctx context.Context, r *rest.Request) (any, error) {
	project, err := s.ProjectID(r.Params["project"])
	if err != nil {
		return nil, err
	}
	return nil, s.Repos.Delete(ctx, project, r.Params["repo"])
}
