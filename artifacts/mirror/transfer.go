package mirror

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

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
		layer.CreatedBy = "giggle: root file system"
		digest, _, err := images.Assemble(ctx, []oci.Layer{layer}, v1.ConfigFile{
			Created:      v1.Time{Time: now.UTC().Truncate(time.Second)},
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
	image := oci.Archived{Digest: img.Digest}
	if tag, err := name.NewTag(familiar); err == nil { // else it is kept by its digest
		image.Tags = []name.Tag{tag}
	}
	return oci.WriteArchive(ctx, w, blobs, image)
}

// maxDocument bounds a manifest and a configuration, in bytes.
const maxDocument = 4 << 20
