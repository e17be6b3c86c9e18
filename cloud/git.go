package cloud

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"giggle/api/cloudbuild"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/disk"
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
	c.repos, err = git.Open(ctx, git.Config{Store: c.store, Dir: c.path("git"), NewID: uuid.NewString, Quotas: c.quotas, Log: c.cfg.Log})
	return err
}

// gitHost serves the repositories to git.
func (c *Cloud) gitHost() http.Handler {
	return githttp.New(githttp.Config{
		Repos: c.repos, Identity: c.identity, Project: c.projects.Find, Enabled: c.projects.CheckEnabled, Audit: c.audit, NewID: uuid.NewString, Log: c.cfg.Log,
		Admit: c.disk.Admit,
	})
}

// repositories are the repositories as triggers ask them.
type repositories struct {
	*git.Repos
	disk *disk.Disk
}

func (r repositories) Commit(ctx context.Context, project, repo, branch, tag, commit string) (string, error) {
	found, err := r.Get(ctx, project, repo)
	if err != nil {
		return "", err
	}
	rev := git.Revision{Branch: branch, Tag: tag, Commit: commit}
	if commit != "" { // the hash says more than the name that it had
		rev = git.Revision{Commit: commit}
	}
	return r.Resolve(ctx, found, rev)
}

// maxConfig is the most bytes of a build configuration.
const maxConfig = 1 << 20

func (r repositories) File(ctx context.Context, project, repo, commit, path string) ([]byte, error) {
	found, err := r.Get(ctx, project, repo)
	if err != nil {
		return nil, err
	}
	return r.Repos.File(ctx, found, commit, path, maxConfig)
}

func (r repositories) Changed(ctx context.Context, project, repo, from, to string) ([]string, error) {
	found, err := r.Get(ctx, project, repo)
	if err != nil {
		return nil, err
	}
	return r.Repos.Changed(ctx, found, from, to)
}

func (r repositories) Mirror(ctx context.Context, project, repo, owner, name string) error {
	if err := r.disk.Admit(0); err != nil {
		return err
	}
	watched, stop := r.disk.Watch(ctx)
	defer stop()
	return disk.Cause(watched, r.Repos.Mirror(watched, project, repo, "https://github.com/"+owner+"/"+name))
}

func (r repositories) Pending(ctx context.Context) (out []trigger.Event, err error) {
	all, err := r.Pushes(ctx)
	for _, p := range all {
		out = append(out, trigger.Event{ID: p.ID, Project: p.Project, Repo: p.Repo, Ref: p.Ref, Old: p.Old, New: p.New})
	}
	return out, err
}

// openTriggers puts the triggers together.
func (c *Cloud) openTriggers(context.Context) error {
	c.triggers = &trigger.Triggers{
		Quotas: c.quotas,
		Store:  c.store, Builds: c.builds, Repos: repositories{c.repos, c.disk}, Events: repositories{c.repos, c.disk}, Kind: git.PushKind, NewID: uuid.NewString,
		Read: cloudbuild.ReadRequest, Log: c.cfg.Log,
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
