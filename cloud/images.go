package cloud

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/fault"
	"giggle/oci"
	"giggle/storage"
)

// openImages opens what is in the blob store: images by their names, layers by their content, objects.
func (c *Cloud) openImages(ctx context.Context) (err error) {
	if c.foreign, err = mirror.Open(c.cfg.Mirror); err != nil {
		return err
	}
	if c.puller, err = mirror.NewPuller(mirror.PullerConfig{
		Mirror: c.foreign,
		Policy: c.cfg.Pulls,
		Own:    c.ownImage,
		Now:    c.cfg.Now,
		Log:    c.cfg.Log,
	}); err != nil {
		return err
	}
	if c.images, err = oci.New(c.path("layers"), c.blobs, oci.Limits{}); err != nil {
		return err
	}
	c.images.Guard(c.disk.Admit)
	c.images.Borrow(c.foreign.Layers()) // what is built on a foreign image unpacks its own layers only
	c.onClose(c.images.Close)
	c.onClose(func() error { c.background.Wait(); return nil })
	c.artifacts = artifacts.New(artifacts.Config{
		Store:    c.store,
		Blobs:    c.blobs,
		NewID:    uuid.NewString,
		Released: c.released.Repository,
		Quotas:   c.quotas,
	})
	c.storage, err = storage.New(ctx, storage.Options{
		Store:    c.store,
		Blobs:    c.blobs,
		Logs:     c.path("storage"),
		Now:      c.cfg.Now,
		Admit:    c.disk.Admit,
		Released: c.released.Object,
		Quotas:   c.quotas,
		Bytes:    c.incoming,
	})
	return err
}

// ownImage reports whether a name can only be that of an image of this platform: of one of its projects, or of Giggle.
func (c *Cloud) ownImage(familiar string) bool {
	if strings.HasPrefix(familiar, "giggle.dev/") {
		return true
	}
	ref, err := artifacts.ParseReference(familiar)
	if err != nil {
		return false
	}
	_, err = c.projects.Find(ref.Repository.Project)
	return !fault.Is(err, fault.NotFound) // the store may have another trouble
}
