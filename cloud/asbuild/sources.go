package asbuild

import (
	"context"
	"io"
	"os"

	"giggle/builds"
	"giggle/fault"
	"giggle/git"
	"giggle/storage"
)

// maxSource is the most bytes of a commit's files.
const maxSource = 4 << 30

// Open opens what a build is of: an archive that was uploaded, or a commit of a repository, which is made into one. It
// fails with NotFound, and with PermissionDenied where the build's account may not read it.
func (a *Access) Open(ctx context.Context, b builds.Build) (io.ReadSeekCloser, int64, error) {
	if b.Source.Repo != nil {
		return a.openCommit(ctx, b)
	}
	src := b.Source
	project, err := a.cfg.Storage.BucketProject(ctx, src.Bucket)
	if err != nil {
		return nil, 0, err
	}
	on := object(project, src.Bucket, src.Object)
	if err := a.cfg.Identity.Authorize(ctx, account(b.Account), "storage.objects.get", on); err != nil {
		return nil, 0, err
	}
	o, r, err := a.cfg.Storage.Open(ctx, src.Bucket, src.Object, src.Generation, storage.Conditions{})
	return r, o.Size, err
}

// openCommit makes an archive of a shallow clone of a commit.
func (a *Access) openCommit(ctx context.Context, b builds.Build) (_ io.ReadSeekCloser, _ int64, err error) {
	src := b.Source.Repo
	on := git.Resource(b.Project, src.Name)
	if err := a.cfg.Identity.Authorize(ctx, account(b.Account), "source.repos.get", on); err != nil {
		return nil, 0, err
	}
	repo, err := a.cfg.Repos.Get(ctx, b.Project, src.Name)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.CreateTemp(a.cfg.Dir, "commit-")
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
	w := &limitWriter{w: a.cfg.Writer(f), left: maxSource}
	if err := a.cfg.Repos.Clone(ctx, repo, src.Commit, git.URL(b.Project, src.Name), w); err != nil {
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
