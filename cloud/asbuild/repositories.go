package asbuild

import (
	"context"

	"giggle/builds/trigger"
	"giggle/disk"
	"giggle/git"
)

// Repositories are the repositories as triggers ask them.
type Repositories struct {
	*git.Repos
	Disk *disk.Disk
}

// Commit returns the commit that a branch, a tag or a commit of a repository is. It fails with NotFound.
func (r Repositories) Commit(ctx context.Context, project, repo, branch, tag, commit string) (string, error) {
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

// File returns a file of a commit, of at most 1 MiB. It fails with NotFound.
func (r Repositories) File(ctx context.Context, project, repo, commit, path string) ([]byte, error) {
	found, err := r.Get(ctx, project, repo)
	if err != nil {
		return nil, err
	}
	return r.Repos.File(ctx, found, commit, path, maxConfig)
}

// Changed returns the paths that differ between two commits.
func (r Repositories) Changed(ctx context.Context, project, repo, from, to string) ([]string, error) {
	found, err := r.Get(ctx, project, repo)
	if err != nil {
		return nil, err
	}
	return r.Repos.Changed(ctx, found, from, to)
}

// Mirror brings a repository up to date with the one on GitHub that it mirrors.
func (r Repositories) Mirror(ctx context.Context, project, repo, owner, name string) error {
	if err := r.Disk.Admit(0); err != nil {
		return err
	}
	watched, stop := r.Disk.Watch(ctx)
	defer stop()
	return disk.Cause(watched, r.Repos.Mirror(watched, project, repo, "https://github.com/"+owner+"/"+name))
}

// Pending returns the pushes that no trigger has seen yet.
func (r Repositories) Pending(ctx context.Context) (out []trigger.Event, err error) {
	all, err := r.Pushes(ctx)
	for _, p := range all {
		out = append(out, trigger.Event{
			ID:      p.ID,
			Project: p.Project,
			Repo:    p.Repo,
			Ref:     p.Ref,
			Old:     p.Old,
			New:     p.New,
		})
	}
	return out, err
}
