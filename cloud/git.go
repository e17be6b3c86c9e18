package cloud

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	cloudbuildapi "giggle/api/cloudbuild"
	"giggle/api/sourcerepo"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/disk"
	"giggle/fault"
	"giggle/git"
	"giggle/git/githttp"
	"giggle/iam"
	"giggle/rest"
)

// openGit opens the repositories.
func (c *Cloud) openGit(ctx context.Context) (err error) {
	// Whoever runs the platform puts secrets there, by whatever umask.
	if err := os.MkdirAll(c.path("secrets"), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(c.path("secrets"), 0o700); err != nil {
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

// registerRepos adds the routes of Cloud Source Repositories' API.
func (c *Cloud) registerRepos(m *rest.Mux) {
	sourcerepo.New(sourcerepo.Config{Repos: c.repos, Policies: c.identity, Project: c.projects.Find, Pages: c.pages, Host: githttp.Host}).Register(m)
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
		Read: cloudbuildapi.ReadRequest, Log: c.cfg.Log,
		Complete: func(ctx context.Context, project string, r *builds.Request) (account string, err error) {
			p, err := c.project(project)
			if err != nil {
				return "", err
			}
			r.ProjectNumber = p.Number
			r.LogsIn, err = c.logsBucket(ctx, p)
			return buildAccount(p), err
		},
	}
	return nil
}

// secret is what is in a version of a secret. There is no Secret Manager: a version is a file below the data directory,
// which whoever runs the platform puts there.
func (c *Cloud) secret(name string) ([]byte, error) {
	none := fault.New(fault.NotFound, "There is no secret version %.300s.", name)
	if !cloudbuildapi.IsSecretName(name) {
		return nil, none
	}
	f, err := os.Open(c.path("secrets", filepath.FromSlash(name)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return bytes.TrimRight(b, "\r\n"), err
}

// maxSource is the most bytes of a commit's files.
const maxSource = 4 << 30

// openCommit makes an archive of the commit that a build is of, as the build's account.
func (c *Cloud) openCommit(ctx context.Context, b builds.Build) (_ io.ReadSeekCloser, _ int64, err error) {
	src := b.Source.Repo
	if err := c.identity.Authorize(ctx, iam.ServiceAccount(b.Account), "source.repos.get", git.Resource(b.Project, src.Name)); err != nil {
		return nil, 0, err
	}
	repo, err := c.repos.Get(ctx, b.Project, src.Name)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.CreateTemp(c.path("build"), "commit-") // beside the sources that are unpacked, where the disk's reserve is kept
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil { // it is gone when it is closed, whatever happens
		return nil, 0, err
	}
	if err := c.repos.Archive(ctx, repo, src.Commit, src.Dir, &limitWriter{c.disk.Writer(f), maxSource}); err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, size, err
}

// limitWriter fails when more than left bytes are written.
type limitWriter struct {
	w    io.Writer
	left int64
}

func (l *limitWriter) Write(b []byte) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		return 0, fault.New(fault.ResourceExhausted, "The commit has more than %d bytes.", int64(maxSource))
	}
	return l.w.Write(b)
}
