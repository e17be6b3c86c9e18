package pack

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

const (
	maxCache = 4 << 30             // bytes of one image's cache; a larger one is not kept
	cacheAge = 30 * 24 * time.Hour // after which one that nobody used is removed
)

// takeCache moves the cache of an image to a directory of the build, where its size counts as the build's, or makes an
// empty one: also when another build has it at the moment. What it returns puts it back.
//
// Each project has its own, and each image and builder of it: what a hostile build leaves in a cache is no other
// project's program.
func (l *Lifecycle) takeCache(project string, r Request, with builder, dir string) (giveBack func(), err error) {
	image := r.Image
	if ref, err := name.ParseReference(image, name.WeakValidation); err == nil {
		image = ref.Context().Name() // all tags of a repository have one
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d:%d", image, r.Builder, with.uid, with.gid))
	kept := filepath.Join(l.cfg.Caches, project, hex.EncodeToString(sum[:16]))
	if r.ClearCache {
		if err := os.RemoveAll(kept); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(kept, dir); errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(dir, 0o755)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return func() {
		if size(dir) > maxCache {
			return // it goes with the build's directory
		}
		now := l.cfg.Now()
		err := errors.Join(os.MkdirAll(filepath.Dir(kept), 0o700), os.RemoveAll(kept), os.Chtimes(dir, now, now))
		if err == nil {
			err = os.Rename(dir, kept)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) { // another build was faster
			l.cfg.Log.Warn("keep the cache of a build with buildpacks", "image", r.Image, "err", err)
		}
	}, nil
}

// size is how many bytes the files of a directory have. It follows no links.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if st, err := d.Info(); err == nil {
				n += st.Size()
			}
		}
		return nil // what can't be read has no size
	})
	return n
}

// Keep removes the caches of projects that are gone, and those that nobody has used for long.
func (l *Lifecycle) Keep(now time.Time, exists func(project string) bool) error {
	projects, err := os.ReadDir(l.cfg.Caches)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, p := range projects {
		dir := filepath.Join(l.cfg.Caches, p.Name())
		if !exists(p.Name()) {
			err = errors.Join(err, os.RemoveAll(dir))
			continue
		}
		caches, listErr := os.ReadDir(dir)
		err = errors.Join(err, listErr)
		for _, c := range caches {
			if st, statErr := c.Info(); statErr == nil && now.Sub(st.ModTime()) > cacheAge {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, c.Name())))
			}
		}
	}
	return err
}
