package storage

import (
	"context"

	"giggle/fault"
	"giggle/resource"
)

// logsSuffix ends the names of the platform's own buckets of logs, after the project's number.
const logsSuffix = ".cloudbuild-logs.googleusercontent.com"

// LogsBucketName returns the name of the bucket that a project's build logs go to.
func LogsBucketName(p resource.Project) string { return p.Number + logsSuffix }

// LogsBucket makes sure that the bucket of a project's build logs is there, and returns its name. It fails with
// FailedPrecondition where another project has it.
func (s *Storage) LogsBucket(ctx context.Context, p resource.Project) (string, error) {
	name := LogsBucketName(p)
	_, err := s.CreateBucket(ctx, Bucket{Name: name, Project: p.ID, Reserved: true})
	if fault.Is(err, fault.AlreadyExists) {
		var project string
		if project, err = s.BucketProject(ctx, name); err == nil && project != p.ID {
			err = fault.New(fault.FailedPrecondition,
				"The bucket %s, which the project's build logs go to, is another project's. Name one with --gcs-log-dir.", name)
		}
	}
	return name, err
}
