package asbuild

import (
	"context"
	"errors"
	"io"

	"giggle/builds"
	"giggle/logging"
	"giggle/storage"
)

// Create begins the log of a build: an object that grows, and an entry for each line. The platform itself writes the
// object to the project's own bucket of logs; to one that the user named, the build's account does.
func (a *Access) Create(ctx context.Context, b builds.Build) (io.WriteCloser, error) {
	object, err := a.logObject(ctx, b)
	if err != nil || !b.LogsEntries() {
		return object, err
	}
	return tee{object, a.logEntries(b)}, nil
}

// logObject begins the object of a build's log.
func (a *Access) logObject(ctx context.Context, b builds.Build) (io.WriteCloser, error) {
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

// logEntries makes entries of what is written, as Cloud Build does.
func (a *Access) logEntries(b builds.Build) *logging.Splitter {
	about := logging.Build(b.Project, b.Name.ID, b.Trigger)
	return logging.NewSplitter(func(line string) {
		e := logging.Entry{
			Project:  b.Project,
			Log:      logging.Builds,
			Time:     a.cfg.Now(),
			Severity: logging.Info,
			Resource: about,
		}
		a.cfg.Entries.Append(logging.Plain(e, line))
	})
}

// tee writes a log to its object, and then makes entries of it. The entries go on where the object fails.
type tee struct {
	object  io.WriteCloser
	entries *logging.Splitter
}

func (t tee) Write(p []byte) (int, error) {
	n, err := t.object.Write(p)
	_, _ = t.entries.Write(p) // it never fails
	return n, err
}

func (t tee) Close() error { return errors.Join(t.entries.Close(), t.object.Close()) }

// logObject is a log that is closed whatever became of its build.
type logObject struct {
	*storage.Log
	ctx context.Context
}

func (l logObject) Close() error { return l.Log.Close(l.ctx) }

// noLog is the log of a build that keeps none.
type noLog struct{ io.Writer }

func (noLog) Close() error { return nil }
