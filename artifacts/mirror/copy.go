package mirror

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// Blobs is where an image of the mirror is copied to: *blob.Dir.
type Blobs interface {
	oci.Blobs
	Hold(ctx context.Context, dg blob.Digest) (release func(), err error)
}

// Copy puts the layers of an image, by its familiar name, among other blobs, and returns what it is made of: for an
// image that is built on it. Layers that are there already are only made young, so that no collection removes them
// before the new image is in a repository. It fails with NotFound.
func (m *Mirror) Copy(ctx context.Context, name string, into Blobs) (_ oci.Manifest, err error) {
	defer fault.Wrap(&err, "mirror.Copy(%s)", name)
	img, err := m.Get(name)
	if err != nil {
		return oci.Manifest{}, err
	}
	blobs, err := blob.Open(filepath.Join(m.dir, "blobs"))
	if err != nil {
		return oci.Manifest{}, err
	}
	// Nothing is unpacked: this is for reading the manifest only.
	tmp, err := os.MkdirTemp("", "giggle-mirror-")
	if err != nil {
		return oci.Manifest{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	images, err := oci.New(tmp, blobs, oci.Limits{})
	if err != nil {
		return oci.Manifest{}, err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	manifest, err := images.Inspect(ctx, img.Digest)
	if err != nil {
		return oci.Manifest{}, err
	}
	for _, l := range manifest.Layers {
		if err := copyBlob(ctx, blobs, into, blob.Digest(l.Digest.String())); err != nil {
			return oci.Manifest{}, err
		}
	}
	return manifest, nil
}

func copyBlob(ctx context.Context, from *blob.Dir, into Blobs, d blob.Digest) error {
	release, err := into.Hold(ctx, d)
	if err == nil {
		release()
		return nil
	}
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	r, _, err := from.Open(ctx, d)
	if err != nil {
		return err
	}
	_, err = into.Put(ctx, r, d)
	return errors.Join(err, r.Close())
}
