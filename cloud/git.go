package cloud

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"giggle/api/cloudbuild"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/cloud/asbuild"
	"giggle/git"
	"giggle/git/githttp"
	"giggle/iam"
	"giggle/secrets"
)

// openGit opens the repositories.
func (c *Cloud) openGit(ctx context.Context) (err error) {
	if c.secrets, err = secrets.Open(c.path("secrets")); err != nil {
		return err
	}
	c.repos, err = git.Open(ctx, git.Config{
		Store:  c.store,
		Dir:    c.path("git"),
		NewID:  uuid.NewString,
		Quotas: c.quotas,
		Log:    c.cfg.Log,
	})
	return err
}

// gitHost serves the repositories to git.
func (c *Cloud) gitHost() http.Handler {
	return githttp.New(githttp.Config{
		Repos:    c.repos,
		Identity: c.identity,
		Project:  c.projects.Find,
		Enabled:  c.projects.CheckEnabled,
		Audit:    c.audit,
		NewID:    uuid.NewString,
		Log:      c.cfg.Log,
		Admit:    c.disk.Admit,
	})
}

// openTriggers puts the triggers together.
func (c *Cloud) openTriggers(context.Context) error {
	c.triggers = &trigger.Triggers{
		Quotas: c.quotas,
		Store:  c.store,
		Builds: c.builds,
		Repos:  asbuild.Repositories{Repos: c.repos, Disk: c.disk},
		Events: asbuild.Repositories{Repos: c.repos, Disk: c.disk},
		Kind:   git.PushKind,
		NewID:  uuid.NewString,
		Read:   cloudbuild.ReadRequest,
		Log:    c.cfg.Log,
		Complete: func(ctx context.Context, project string, r *builds.Request) (account string, err error) {
			p, err := c.projects.Find(project)
			if err != nil {
				return "", err
			}
			r.ProjectNumber = p.Number
			r.LogsIn, err = c.storage.LogsBucket(ctx, p)
			return iam.DefaultBuildAccount(p), err
		},
	}
	return nil
}
