package storagejson

import (
	"context"

	"giggle/api/guard"
	"giggle/iam"
)

// Access says whether the caller of a request has a permission on an object that the request names beside the one that
// the guard has asked about. Its Allow is a Config.Allow.
type Access struct {
	Identity interface {
		Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
	}
	Buckets interface {
		BucketProject(ctx context.Context, bucket string) (string, error)
	}
	// Enabled fails when a service is not enabled in a project.
	Enabled func(project, service string) error
}

// Allow fails when the caller of ctx lacks a permission on an object.
func (a Access) Allow(ctx context.Context, permission, bucket, object string) error {
	project, err := a.Buckets.BucketProject(ctx, bucket)
	if err != nil {
		return err
	}
	on := "projects/" + project + "/buckets/" + bucket + "/objects/" + object
	if err := a.Identity.Authorize(ctx, guard.Caller(ctx), permission, on); err != nil {
		return err
	}
	return a.Enabled(project, "storage.googleapis.com")
}
