// Package mirror keeps foreign images on this machine, under their foreign names: the builder's toolchain, and later
// the bases that Dockerfiles start from. It lies outside any data directory, so that a fresh platform has them at
// once.
//
// Images are unpacked when they are put in. Reading needs the index alone, so any number of platforms may read while
// one process writes. What is in it was made here (hack/images) or brought in by name (transfer.go). Beside that lies
// the cache of what a Puller fetched from a registry when it was asked for (pull.go).
package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// StandInLabel marks an image that was made here in place of the original.
const StandInLabel = "dev.giggle.stand-in"

// Entry is one image of the mirror.
type Entry struct {
	Name   string    // foreign name with tag, "giggle.dev/builder/go:1.26.8"
	Digest string    // of the manifest
	Index  string    `json:",omitempty"` // digest of the index that the image was chosen from, "" for none
	Origin string    // where it came from, for people
	Added  time.Time // when
	Config v1.Config
	Layers []string // directories below the mirror, bottom first
	Size   int64    // compressed bytes
	Kind   Kind     // how it came here
}

// kind is what an entry of the index is.
func (e Entry) kind() Kind {
	if e.StandIn() {
		return MadeStand
	}
	return Added
}

// StandIn reports whether the image was made here in place of the original.
func (e Entry) StandIn() bool { return e.Config.Labels[StandInLabel] == "true" }

// Mirror is one directory of foreign images.
type Mirror struct {
	dir string

	mu    sync.Mutex
	blobs map[string]*blob.Dir // that are open, by their directory in dir
}

// Open returns the mirror in a directory, and makes the directory if it is missing.
func Open(dir string) (*Mirror, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(abs, 0o755)
	}
	return &Mirror{dir: abs, blobs: map[string]*blob.Dir{}}, err
}

// Layers is the directory of the images' layers, for oci's Borrow.
func (m *Mirror) Layers() string { return filepath.Join(m.dir, "layers") }

// All returns all images by name, with those that were pulled when they were asked for.
func (m *Mirror) All() ([]Entry, error) {
	out, err := m.List()
	if err != nil {
		return nil, err
	}
	cache, err := m.cache()
	for _, c := range cache {
		out = append(out, c.Entry)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// List returns the images that were made here or added by hand, by name.
func (m *Mirror) List() ([]Entry, error) {
	b, err := os.ReadFile(m.index())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Entry
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fault.New(fault.DataLoss, "The index of the mirror is damaged: %v. Remove it and run `make setup`.",
			err)
	}
	for i := range out {
		out[i].Kind = out[i].kind()
	}
	return out, nil
}

func (m *Mirror) index() string { return filepath.Join(m.dir, "index.json") }

// is reports whether a familiar name is the entry's, by tag or by digest.
func (e Entry) is(name string) bool {
	repository, digest, pinned := strings.Cut(name, "@")
	if !pinned {
		return e.Name == name
	}
	return Repository(e.Name) == repository && (e.Digest == digest || e.Index == digest)
}

// Get returns an image by its familiar name, ready to be mounted, or NotFound.
func (m *Mirror) Get(name string) (oci.Image, error) {
	e, err := m.find(name)
	if err != nil {
		return oci.Image{}, err
	}
	img := oci.Image{Digest: e.Digest, Config: e.Config, Size: e.Size}
	for _, l := range e.Layers {
		img.Layers = append(img.Layers, filepath.Join(m.dir, l))
	}
	return img, nil
}

// find finds an image that was made here or added by hand, or fails with NotFound.
func (m *Mirror) find(name string) (Entry, error) {
	all, err := m.List()
	if err != nil {
		return Entry{}, err
	}
	for _, e := range all {
		if e.is(name) {
			return e, nil
		}
	}
	return Entry{}, fault.New(fault.NotFound, "The mirror has no image %q.", name)
}

// Put puts an image into the mirror under a name, in place of one that has it. Fill adds the image and returns its
// manifest's digest. Writers wait for one another. The image is on disk before the index names it.
func (m *Mirror) Put(
	ctx context.Context, name, origin string, now time.Time, fill func(*oci.Images) (digest string, err error),
) error {
	return m.PutAll(ctx, []string{name}, origin, now, fill)
}

// PutAll is Put under several names at once.
func (m *Mirror) PutAll(
	ctx context.Context,
	names []string,
	origin string,
	now time.Time,
	fill func(*oci.Images) (digest string, err error),
) error {
	return m.putAll(ctx, names, Entry{Origin: origin}, now,
		func(images *oci.Images, _ *blob.Dir) (string, error) { return fill(images) })
}

// locked runs fn while no other process writes.
func (m *Mirror) locked(fn func() error) (err error) {
	lock, err := os.OpenFile(filepath.Join(m.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return fn()
}

func (m *Mirror) putAll(
	ctx context.Context,
	names []string,
	e Entry,
	now time.Time,
	fill func(*oci.Images, *blob.Dir) (digest string, err error),
) (err error) {
	defer fault.Wrap(&err, "mirror.Put(%s)", strings.Join(names, ", "))
	for _, name := range names {
		if name == "" || len(name) > 512 {
			return fault.Invalid("name", "%.100q is no name for an image", name)
		}
	}
	return m.locked(func() error {
		blobs, err := m.Blobs()
		if err != nil {
			return err
		}
		images, err := oci.New(filepath.Join(m.dir, "layers"), blobs, oci.Limits{})
		if err != nil {
			return err
		}
		var img oci.Image
		digest, err := fill(images, blobs)
		if err == nil {
			img, err = images.Unpack(ctx, digest)
		}
		// Close waits until the layers are on disk and marked so: without the mark the next writer would remove them.
		if err := errors.Join(err, images.Close()); err != nil {
			return err
		}
		e.Digest, e.Added, e.Config, e.Size = img.Digest, now.UTC(), img.Config, img.Size
		e.Kind = e.kind()
		for _, l := range img.Layers {
			rel, err := filepath.Rel(m.dir, l)
			if err != nil {
				return err
			}
			e.Layers = append(e.Layers, rel)
		}
		all, err := m.List()
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(x Entry) bool { return slices.Contains(names, x.Name) })
		for _, name := range names {
			e.Name = name
			all = append(all, e)
		}
		slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
		return m.write(all)
	})
}

// write replaces the index: a reader sees the old one or the new one.
func (m *Mirror) write(all []Entry) error {
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	tmp := m.index() + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, m.index())
}
