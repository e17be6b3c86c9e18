package buildpack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"giggle/oci"
)

// openCache returns the directory of a project's compiler caches, with the compiled standard library in it. Each
// project has its own: what a hostile build leaves in a cache is no other project's program.
//
// The library is copied, because Go removes what is old from a cache, and the files of an image have no age. It is
// copied into a directory that no build has seen, one for each version of the toolchain: in the others there may be
// links to anywhere. Those are removed.
func (b *Builder) openCache(project string, toolchain oci.Image) (string, error) {
	b.seed.Lock()
	defer b.seed.Unlock()
	version := toolchain.Config.Labels[VersionLabel]
	if !strings.HasPrefix(version, "go") || version != filepath.Base(version) {
		return "", fmt.Errorf("%q is no version of a toolchain", version)
	}
	dir := b.path("cache", project, version)
	done := filepath.Join(dir, "seeded") // beside what builds write to
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	old, err := os.ReadDir(b.path("cache", project))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range old {
		// once, they were here
		if name := e.Name(); strings.HasPrefix(name, "go") || strings.HasPrefix(name, "seeded-") || name == "mod" {
			if err := os.RemoveAll(b.path("cache", project, name)); err != nil {
				return "", err
			}
		}
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

// copyTree copies the directories and files below from, to where nobody else writes.
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
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
