package mirror

import (
	"context"
	"errors"
	"os"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// Copy puts all that an image is made of, by its familiar name, among other blobs, and returns it: to run it, or to
// build on it. All of it is young when it returns, what was there already, too, so that no collection removes it before
// somebody needs it where a marker looks. It fails with NotFound.
func (m *Mirror) Copy(ctx context.Context, name string, into *blob.Dir) (_ oci.Manifest, err error) {
	defer fault.Wrap(&err, "mirror.Copy(%s)", name)
	img, err := m.Get(name)
	if err != nil {
		return oci.Manifest{}, err
	}
	blobs, err := m.Blobs()
	if err != nil {
		return oci.Manifest{}, err
	}
	return copyImage(ctx, blobs, into, img.Digest)
}

// copyImage copies an image by the digest of its manifest.
func copyImage(ctx context.Context, blobs, into *blob.Dir, digest string) (_ oci.Manifest, err error) {
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
	manifest, err := images.Inspect(ctx, digest)
	if err != nil {
		return oci.Manifest{}, err
	}
	needed := []string{manifest.ConfigDigest, manifest.Digest}
	for _, l := range manifest.Layers {
		needed = append(needed, l.Digest.String())
	}
	for _, d := range needed {
		defer into.Reserve(blob.Digest(d))() // the first may be old by the time that the last is there
		if err := copyBlob(ctx, blobs, into, blob.Digest(d)); err != nil {
			return oci.Manifest{}, err
		}
	}
	return manifest, nil
}

func copyBlob(ctx context.Context, from *blob.Dir, into *blob.Dir, d blob.Digest) error {
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
