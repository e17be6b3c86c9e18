package buildpack

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"giggle/oci"
)

// openCache returns the directory of a project's compiler caches, with the compiled standard library in it. Each
// project has its own: what a hostile build leaves in a cache is no other project's program.
//
// The library is copied, because Go removes what is old from a cache, and the files of an image have no age.
func (b *Builder) openCache(project string, toolchain oci.Image) (string, error) {
	b.seed.Lock()
	defer b.seed.Unlock()
	dir := b.path("cache", project)
	done := filepath.Join(dir, "seeded-"+toolchain.Config.Labels[VersionLabel])
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	for _, sub := range []string{"go-build", "mod"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	for _, layer := range toolchain.Layers {
		err := copyTree(filepath.Join(layer, WarmCache), filepath.Join(dir, "go-build"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return dir, os.WriteFile(done, nil, 0o600)
}

// copyTree copies the directories and files below from.
func copyTree(from, to string) error {
	var g errgroup.Group
	g.SetLimit(2 * runtime.NumCPU())
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case d.Type().IsRegular():
			g.Go(func() error { return copyFile(p, at) })
		}
		return nil
	})
	return errors.Join(err, g.Wait())
}

func copyFile(from, to string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
