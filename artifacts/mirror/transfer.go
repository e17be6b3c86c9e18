package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// platform is what images of the mirror are for.
var platform = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

// Source is an image from elsewhere, to be added.
type Source struct {
	v1.Image
	Origin string // for people
	Index  string // digest of the index that it was chosen from, "" for none
}

// FromPath reads an image out of an OCI layout (a directory) or an archive of docker save or podman save. It fails with
// InvalidArgument on anything else.
func FromPath(path string) (_ Source, err error) {
	defer fault.Wrap(&err, "mirror.FromPath(%s)", path)
	info, err := os.Stat(path)
	if err != nil {
		return Source{}, fault.New(fault.NotFound, "%s can't be read: %v.", path, err)
	}
	if !info.IsDir() {
		img, err := tarball.ImageFromPath(path, nil)
		if err != nil {
			return Source{}, fault.New(fault.InvalidArgument,
				"%s is no archive of one image, as `docker save` and `podman save` write it: %v.", path, err)
		}
		return Source{Image: img, Origin: filepath.Base(path)}, nil
	}
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err != nil {
		return Source{}, fault.New(fault.InvalidArgument,
			"%s is no OCI layout: it has no file oci-layout. For a root file system use --rootfs.", path)
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return Source{}, fault.New(fault.InvalidArgument, "%s is no OCI layout: %v.", path, err)
	}
	s, err := choose(index, 3)
	s.Origin, s.Index = "OCI layout "+filepath.Base(path), "" // the index of a layout has no name of its own
	return s, err
}

// choose takes the image for this machine out of an index, which may hold indexes.
func choose(index v1.ImageIndex, depth int) (Source, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return Source{}, fault.New(fault.InvalidArgument, "The index can't be read: %v.", err)
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() && depth > 0 {
			below, err := index.ImageIndex(d.Digest)
			if err == nil {
				if s, err := choose(below, depth-1); err == nil {
					return s, nil
				}
			}
			continue
		}
		if !d.MediaType.IsImage() || d.Platform != nil && !d.Platform.Satisfies(platform) {
			continue
		}
		img, err := index.Image(d.Digest)
		return Source{Image: img}, err
	}
	return Source{}, fault.New(fault.NotFound, "There is no image for %s in it.", platform)
}

// Add puts an image from elsewhere into the mirror under a name, with the manifest that it has there, so that its
// digest stays.
func (m *Mirror) Add(ctx context.Context, familiar string, s Source, now time.Time) error {
	return m.putAll(ctx, []string{familiar}, Entry{Origin: s.Origin, Index: s.Index}, now,
		func(_ *oci.Images, blobs *blob.Dir) (string, error) {
			layers, err := s.Layers()
			if err != nil {
				return "", unreadable(err)
			}
			for _, l := range layers {
				r, err := l.Compressed()
				if err != nil {
					return "", unreadable(err)
				}
				d, err := l.Digest()
				if err == nil {
					_, err = blobs.Put(ctx, r, blob.Digest(d.String()))
				}
				if err := errors.Join(err, r.Close()); err != nil {
					return "", err
				}
			}
			config, err := s.RawConfigFile()
			if err != nil {
				return "", unreadable(err)
			}
			manifest, err := s.RawManifest()
			if err != nil {
				return "", unreadable(err)
			}
			if _, err := blobs.Put(ctx, bytes.NewReader(config), ""); err != nil {
				return "", err
			}
			info, err := blobs.Put(ctx, bytes.NewReader(manifest), "")
			return string(info.Digest), err
		})
}

// AddRoot puts a root file system, a tar stream, into the mirror as an image of one layer.
func (m *Mirror) AddRoot(ctx context.Context, familiar string, root io.Reader, now time.Time) error {
	return m.Put(ctx, familiar, "root file system", now, func(images *oci.Images) (string, error) {
		layer, err := images.AddTar(ctx, func(w io.Writer) error {
			_, err := io.Copy(w, root)
			return err
		})
		if err != nil {
			return "", err
		}
		digest, _, err := images.Assemble(ctx, []oci.Layer{layer}, v1.ConfigFile{
			Architecture: platform.Architecture, OS: platform.OS, Config: v1.Config{Cmd: []string{"/bin/sh"}},
		})
		return digest, err
	})
}

func unreadable(err error) error {
	return &fault.Error{
		Code:    fault.InvalidArgument,
		Message: "The image can't be read: " + err.Error() + ".",
		Cause:   err,
	}
}

// Remove takes a name out of the mirror. The bytes stay: a platform that runs may have them mounted. It fails with
// NotFound.
func (m *Mirror) Remove(familiar string) (err error) {
	defer fault.Wrap(&err, "mirror.Remove(%s)", familiar)
	return m.locked(func() error {
		all, err := m.List()
		if err != nil {
			return err
		}
		var left []Entry
		for _, e := range all {
			if e.Name != familiar {
				left = append(left, e)
			}
		}
		if len(left) == len(all) {
			return fault.New(fault.NotFound, "The mirror has no image %q.", familiar)
		}
		return m.write(left)
	})
}

// Export writes an image as an archive that docker load and podman load read.
func (m *Mirror) Export(ctx context.Context, familiar string, w io.Writer) (err error) {
	defer fault.Wrap(&err, "mirror.Export(%s)", familiar)
	img, err := m.Get(familiar)
	if err != nil {
		return err
	}
	blobs, err := m.Blobs()
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(familiar)
	if err != nil {
		return err
	}
	stored := &stored{ctx: ctx, blobs: blobs}
	if stored.manifest, err = stored.read(img.Digest); err != nil {
		return err
	}
	image, err := partial.CompressedToImage(stored)
	if err != nil {
		return err
	}
	return tarball.Write(ref, image, w)
}

// stored is an image of the mirror as the library reads one.
type stored struct {
	ctx      context.Context
	blobs    *blob.Dir
	manifest []byte
}

// maxDocument bounds a manifest and a configuration, in bytes.
const maxDocument = 4 << 20

func (s *stored) read(digest string) ([]byte, error) {
	r, _, err := s.blobs.Open(s.ctx, blob.Digest(digest))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument))
	return b, errors.Join(err, r.Close())
}

func (s *stored) parsed() (m v1.Manifest, err error) { return m, json.Unmarshal(s.manifest, &m) }

func (s *stored) RawManifest() ([]byte, error) { return s.manifest, nil }

func (s *stored) RawConfigFile() ([]byte, error) {
	m, err := s.parsed()
	if err != nil {
		return nil, err
	}
	return s.read(m.Config.Digest.String())
}

func (s *stored) MediaType() (types.MediaType, error) {
	m, err := s.parsed()
	return m.MediaType, err
}

func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := s.parsed()
	for _, d := range m.Layers {
		if d.Digest == h {
			return &storedLayer{s, d}, err
		}
	}
	return nil, errors.Join(err, errors.New("no layer "+h.String()))
}

type storedLayer struct {
	*stored
	d v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.d.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	r, _, err := l.blobs.Open(l.ctx, blob.Digest(l.d.Digest.String()))
	return r, err
}
