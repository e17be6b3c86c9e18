package cloud

import (
	"context"

	"github.com/google/uuid"

	"giggle/api/guard"
	"giggle/artifacts"
	"giggle/oci"
	"giggle/storage"
)

// openImages opens what is in the blob store: images by their names, layers by their content, objects.
func (c *Cloud) openImages(ctx context.Context) (err error) {
	if c.images, err = oci.New(c.path("layers"), c.blobs, oci.Limits{}); err != nil {
		return err
	}
	c.onClose(c.images.Close)
	c.onClose(func() error { c.background.Wait(); return nil })
	c.artifacts = artifacts.New(c.store, c.blobs, uuid.NewString)
	c.storage, err = storage.New(ctx, storage.Options{Store: c.store, Blobs: c.blobs, Logs: c.path("storage"), Now: c.cfg.Now})
	return err
}

// allowOnObject fails when the caller of ctx lacks a permission on an object.
func (c *Cloud) allowOnObject(ctx context.Context, permission, bucket, object string) error {
	project, err := c.storage.BucketProject(ctx, bucket)
	if err != nil {
		return err
	}
	return c.identity.Authorize(ctx, guard.Caller(ctx), permission, "projects/"+project+"/buckets/"+bucket+"/objects/"+object)
}
