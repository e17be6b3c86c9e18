package git

import (
	"context"
	"errors"

	"giggle/fault"
)

// Mirror makes or renews a copy of a repository elsewhere: its branches, its tags and the heads of its pull requests.
// It fails with FailedPrecondition when the other side can't be read.
func (g *Repos) Mirror(ctx context.Context, project, name, url string) (err error) {
	defer fault.Wrap(&err, "git.Mirror(%s, %s)", project, name)
	r, err := g.Get(ctx, project, name)
	first := fault.Is(err, fault.NotFound)
	if first {
		r, err = g.create(ctx, Repo{Project: project, Name: name, Mirror: url})
	}
	if err != nil {
		return err
	}
	if r.Mirror != url {
		return fault.New(fault.FailedPrecondition, "The repository %s is no mirror of %s.", name, url)
	}
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	leave, err := g.gate.enter(ctx, project)
	if err != nil {
		return err
	}
	defer leave()
	err = g.stream(ctx, g.dir(r), nil, nil, &tail{}, "fetch", "--quiet", "--prune", "--no-tags", "--end-of-options",
		url,
		"+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/pull/*/head:refs/pull/*/head")
	if err != nil && first { // nothing came of it
		err = errors.Join(err, g.Delete(context.WithoutCancel(ctx), project, name))
	}
	if err != nil && exitCode(err) < 0 {
		return err
	}
	if err != nil {
		return &fault.Error{
			Code:    fault.FailedPrecondition,
			Message: "The repository " + url + " can't be fetched from here.",
			Cause:   err,
		}
	}
	return g.Sync(ctx, r)
}
