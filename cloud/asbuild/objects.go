package asbuild

import (
	"context"
	"io"

	"giggle/builds"
	"giggle/storage"
)

// Put writes a file that a build has made, and returns the object's generation. It fails with PermissionDenied where the
// build's account may not make the object, or may not replace the one that is there.
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

// Create begins the log of a build, as an object that grows. The platform itself writes to the project's own bucket of
// logs; to one that the user named, the build's account does.
func (a *Access) Create(ctx context.Context, b builds.Build) (io.WriteCloser, error) {
	if b.LogsIn == "" {
		return noLog{io.Discard}, nil
	}
	p, err := a.cfg.Project(b.Project)
	if err != nil {
		return nil, err
	}
	in := storage.Insert{
		Bucket: b.LogsIn,
		Name:   b.LogObject(),
		Attrs:  storage.Attrs{ContentType: "text/plain; charset=utf-8"},
	}
	if b.LogsIn != storage.LogsBucketName(p) {
		if in.MayReplace, err = a.mayWrite(ctx, b, b.LogsIn, b.LogObject()); err != nil {
			return nil, err
		}
	}
	log, err := a.cfg.Storage.CreateLog(ctx, in)
	if err != nil {
		return nil, err
	}
	return logObject{log, context.WithoutCancel(ctx)}, nil
}

// logObject is a log that is closed whatever became of its build.
type logObject struct {
	*storage.Log
	ctx context.Context
}

func (l logObject) Close() error { return l.Log.Close(l.ctx) }

// noLog is the log of a build that keeps none.
type noLog struct{ io.Writer }

func (noLog) Close() error { return nil }
