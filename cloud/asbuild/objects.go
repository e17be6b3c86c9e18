package asbuild

import (
	"context"
	"io"

	"giggle/builds"
	"giggle/storage"
)

// Put writes a file that a build has made, and returns the object's generation. It fails with PermissionDenied where
// the build's account may not make the object, or may not replace the one that is there.
func (a *Access) Put(ctx context.Context, b builds.Build, bucket, name string, r io.Reader) (int64, error) {
	replace, err := a.mayWrite(ctx, b, bucket, name)
	if err != nil {
		return 0, err
	}
	made, err := a.cfg.Storage.Put(ctx, storage.Insert{Bucket: bucket, Name: name, MayReplace: replace}, r)
	return made.Generation, err
}

// mayWrite fails when a build's account may not create an object. What it returns asks whether it may replace one.
func (a *Access) mayWrite(ctx context.Context, b builds.Build, bucket, name string) (replace func() error, err error) {
	project, err := a.cfg.Storage.BucketProject(ctx, bucket)
	if err != nil {
		return nil, err
	}
	on, who := object(project, bucket, name), account(b.Account)
	replace = func() error { return a.cfg.Identity.Authorize(ctx, who, "storage.objects.delete", on) }
	return replace, a.cfg.Identity.Authorize(ctx, who, "storage.objects.create", on)
}
