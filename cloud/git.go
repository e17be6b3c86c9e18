package cloud

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"giggle/api/sourcerepo"
	"giggle/git"
	"giggle/git/githttp"
	"giggle/rest"
)

// openGit opens the repositories.
func (c *Cloud) openGit(ctx context.Context) (err error) {
	c.repos, err = git.Open(ctx, git.Config{Store: c.store, Dir: c.path("git"), NewID: uuid.NewString, Log: c.cfg.Log})
	return err
}

// gitHost serves the repositories to git.
func (c *Cloud) gitHost() http.Handler {
	return githttp.New(githttp.Config{
		Repos: c.repos, Identity: c.identity, ProjectID: c.projectID, Enabled: c.projects.CheckEnabled, Audit: c.audit, NewID: uuid.NewString, Log: c.cfg.Log,
	})
}

// registerRepos adds the routes of Cloud Source Repositories' API.
func (c *Cloud) registerRepos(m *rest.Mux) {
	(&sourcerepo.Server{Repos: c.repos, Policies: c.identity, ProjectID: c.projectID, Pages: c.pages, Host: githttp.Host}).Register(m)
}
