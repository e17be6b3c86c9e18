package git

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"giggle/fault"
)

// URL is where a repository is for git.
func URL(project, name string) string {
	return "https://source.developers.google.com/p/" + project + "/r/" + name
}

// Files of a clone's .git that are made here and not by git.
const (
	cloneConfig = CredentialConfig + `[core]
	repositoryformatversion = 0
	filemode = true
	bare = false
[remote "origin"]
	url = %s
	fetch = +refs/heads/*:refs/remotes/origin/*
`
	attributes = "info/attributes" // while the archive is made: all files, as they are
)

// Clone writes a tar archive of what "git fetch --depth=1 URL COMMIT" and a checkout of it leave behind: the files of
// the commit, and a .git that knows the commit alone, with a remote to fetch the rest from.
func (g *Repos) Clone(ctx context.Context, r Repo, commit, url string, w io.Writer) (err error) {
	defer fault.Wrap(&err, "git.Clone(%s)", r.Resource())
	if !hash().MatchString(commit) || strings.ContainsAny(url, "\n\"\\") {
		return fault.New(fault.InvalidArgument, "A commit is 40 hexadecimal digits.")
	}
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return err
	}
	defer leave()
	dir, err := os.MkdirTemp(g.cfg.Dir, "clone-") // what a crash leaves, Open removes
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := g.shallow(ctx, r, commit, url, dir); err != nil {
		return err
	}
	out := tar.NewWriter(w)
	if err := g.copyFiles(ctx, dir, commit, out); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, attributes)); err != nil {
		return err
	}
	if err := addDir(out, dir, ".git"); err != nil {
		return err
	}
	return out.Close()
}

// shallow makes the .git of a clone in dir.
func (g *Repos) shallow(ctx context.Context, r Repo, commit, url, dir string) error {
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags", "info"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	parents, err := g.output(ctx, g.dir(r), smallOutput, "rev-list", "--parents", "--max-count=1", commit)
	if err != nil {
		return err
	}
	files := map[string]string{
		"HEAD":     commit + "\n",
		"config":   fmt.Sprintf(cloneConfig, url),
		attributes: "* !export-ignore !export-subst\n",
	}
	if len(strings.Fields(string(parents))) > 1 { // else it is all of the history
		files["shallow"] = commit + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The objects of the commit alone: without --no-walk its ancestors' would follow.
	list, names := io.Pipe()
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error {
		err := g.stream(working, g.dir(r), nil, nil, names, "rev-list", "--objects", "--no-walk", commit)
		return errors.Join(err, names.CloseWithError(err))
	})
	work.Go(func() error {
		err := g.stream(working, g.dir(r), nil, list, io.Discard, "pack-objects", "-q", "--window=0",
			filepath.Join(dir, "objects/pack/pack"))
		return errors.Join(err, list.CloseWithError(err))
	})
	if err := work.Wait(); err != nil {
		return err
	}
	return g.stream(ctx, dir, nil, nil, io.Discard, "read-tree", commit)
}

// copyFiles copies the files of the commit of a clone.
func (g *Repos) copyFiles(ctx context.Context, dir, commit string, to *tar.Writer) error {
	in, out := io.Pipe()
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		err := g.stream(ctx, dir, nil, nil, out, "archive", "--format=tar", commit)
		return errors.Join(err, out.CloseWithError(err))
	})
	work.Go(func() (err error) {
		defer func() { err = errors.Join(err, in.CloseWithError(err)) }()
		for from := tar.NewReader(in); ; {
			h, err := from.Next()
			if errors.Is(err, io.EOF) {
				_, err = io.Copy(io.Discard, in) // the padding
				return err
			}
			if err != nil {
				return err
			}
			if h.Typeflag == tar.TypeXGlobalHeader { // the commit's hash
				continue
			}
			if err := to.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.Copy(to, from); err != nil {
				return err
			}
		}
	})
	return work.Wait()
}

// addDir adds a directory of plain files to an archive under a name.
func addDir(to *tar.Writer, dir, name string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.Join(name, rel), Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}
		if d.IsDir() {
			h.Name += "/"
			return to.WriteHeader(h)
		}
		h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, info.Size()
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(to, f)
		return errors.Join(err, f.Close())
	})
}
