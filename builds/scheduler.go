package builds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Sources opens uploaded archives.
type Sources interface {
	// Open returns the build's source and its size in bytes. It fails with PermissionDenied when the build's account
	// may not read it.
	Open(ctx context.Context, b Build) (r io.ReadSeekCloser, size int64, err error)
}

// Logs keeps the logs of builds as storage objects that grow while they are read.
type Logs interface {
	// Create starts a build's log again. What is written can be read at once; Close makes the object final.
	Create(ctx context.Context, b Build) (io.WriteCloser, error)
}

// Pusher takes the images that builds make.
type Pusher interface {
	// Push gives the image with this manifest digest, which the platform's blobs hold, a name. It fails with
	// PermissionDenied when the build's account may not push there.
	Push(ctx context.Context, b Build, image, digest string) error
}

// Scheduler runs queued builds, a few at a time and the oldest first. A build that was working when the platform was
// killed ends with a reason at the next start: a step may have done something that must not be done twice. What is
// built in may be done twice, and is: the same source makes the same image. It is not when it was running at two such
// ends, which it may have been the cause of.
type Scheduler struct {
	Store   *store.Store
	Sources Sources
	Logs    Logs
	Images  Pusher
	Steps   Steps
	Objects ObjectStore
	Slots   int // builds at once
	// Begin counts a beginning of a build, and fails with Aborted when it was running at too many unclean stops.
	Begin func(ctx context.Context, name string) (end func(), err error)
	Log   *slog.Logger

	mu      sync.Mutex
	running map[string]context.CancelCauseFunc // by build name
}

// Why a build's context ends before the build does. When it ends for another reason, the platform stops.
var (
	errCancelled = errors.New("the build was cancelled")
	errTimeout   = errors.New("the build ran out of time")
)

// Run runs builds until ctx ends. What is built in and working then is run again by the next Run.
func (s *Scheduler) Run(ctx context.Context) error {
	s.running = make(map[string]context.CancelCauseFunc)
	w := s.Store.Watch(builds.Kind())
	defer w.Close()
	var workers sync.WaitGroup
	defer workers.Wait()
	freed := make(chan struct{}, 1)
	expiry := time.NewTimer(0)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.C:
		case <-freed:
		case <-expiry.C:
		}
		next, err := s.sweep(ctx)
		var due []Build
		if err == nil {
			if !next.IsZero() {
				expiry.Reset(next.Sub(s.Store.Now()) + time.Millisecond)
			}
			due, err = s.due(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, b := range due {
			buildCtx, ok := s.take(ctx, b)
			if !ok {
				break
			}
			workers.Go(func() {
				s.work(buildCtx, b)
				s.release(b)
				select {
				case freed <- struct{}{}:
				default:
				}
			})
		}
	}
}

// due returns the builds that should run and do not yet, oldest first, and stops those that were cancelled.
func (s *Scheduler) due(ctx context.Context) ([]Build, error) {
	var out []Build
	err := s.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := builds.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range rows {
			cancel, runs := s.running[r.Name]
			switch {
			case r.Value.Status == Cancelled && runs:
				cancel(errCancelled)
			case (r.Value.Status == Queued || r.Value.Status == Working) && !runs:
				out = append(out, fromRow(r))
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Build) int { return a.Created.Compare(b.Created) })
	return out, err
}

// take claims a slot for a build.
func (s *Scheduler) take(ctx context.Context, b Build) (context.Context, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) >= s.Slots {
		return nil, false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.running[b.Name.String()] = cancel
	return ctx, true
}

func (s *Scheduler) release(b Build) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[b.Name.String()](nil)
	delete(s.running, b.Name.String())
}

// work runs one build to its end.
func (s *Scheduler) work(ctx context.Context, b Build) {
	started, err := s.start(ctx, b)
	if err != nil {
		if ctx.Err() == nil && !fault.Is(err, fault.Canceled) {
			s.Log.Error("start build", "build", b.Name, "err", err)
		}
		return
	}
	finish, err := s.Begin(ctx, b.Name.String())
	ctx, cancel := context.WithTimeoutCause(ctx, b.Timeout, errTimeout)
	defer cancel()
	if err == nil {
		defer finish()
		err = s.run(ctx, started)
	}
	status, detail := outcome(ctx, b, err)
	switch status {
	case Working:
		return // the platform stops: the next start runs it again
	case Cancelled:
		return // Cancel wrote the end already
	case InternalError:
		s.Log.Error("build", "build", b.Name, "err", err)
	}
	err = s.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		row, err := builds.Get(tx, b.Name.String())
		if err != nil || row.Value.Status.Terminal() {
			return err
		}
		_, err = end(tx, row, status, detail)
		return err
	})
	if err != nil {
		s.Log.Error("end build", "build", b.Name, "err", err)
	}
}

// outcome is how a build ended whose run returned err, and what to tell people. Working means that it did not end: the
// platform stops.
func outcome(ctx context.Context, b Build, err error) (Status, string) {
	switch cause := context.Cause(ctx); {
	case err == nil:
		return Success, ""
	case errors.Is(cause, errCancelled):
		return Cancelled, "Build was cancelled."
	case errors.Is(cause, errTimeout):
		return Timeout, fmt.Sprintf("The build did not end within its timeout of %s.", b.Timeout)
	case cause != nil && !b.Spec.repeatable():
		return InternalError, interrupted
	case cause == nil && fault.Is(err, fault.DeadlineExceeded):
		return Timeout, fault.From(err).Message
	case cause != nil:
		return Working, "The platform stops; the build runs again at its next start."
	}
	if f := fault.From(err); f.Code != fault.Internal && f.Code != fault.Aborted {
		return Failure, f.Message
	}
	return InternalError, fault.From(err).Message
}

// start marks the build as working, as if it had never been begun.
func (s *Scheduler) start(ctx context.Context, b Build) (out Build, err error) {
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := builds.Get(tx, b.Name.String())
		if err != nil {
			return err
		}
		if row.Value.Status.Terminal() {
			return fault.New(fault.Canceled, "The build has ended.")
		}
		row.Value.Status, row.Value.Started = Working, tx.Now()
		row.Value.Steps, row.Value.Images = make([]StepStatus, len(row.Value.Spec.Steps)), nil
		row, err = builds.SetStatus(tx, row)
		out = fromRow(row)
		return err
	})
	return out, err
}

// run runs a build with its log. All of the log is readable when it returns.
func (s *Scheduler) run(ctx context.Context, b Build) (err error) {
	// However short the time that a build has: it has a log that says so.
	log, err := s.Logs.Create(context.WithoutCancel(ctx), b)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }
	defer func() {
		switch status, detail := outcome(ctx, b, err); status {
		case Success:
			say("DONE")
		case Working, Cancelled:
			say("%s", detail)
		case Timeout:
			say("TIMEOUT\nERROR: %s", detail)
		default:
			say("ERROR\nERROR: %s", detail)
		}
		err = errors.Join(err, log.Close())
	}()
	return s.execute(ctx, b, log, say)
}

func newestFirst(bs []Build) {
	slices.SortStableFunc(bs, func(a, b Build) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Name.ID, b.Name.ID))
	})
}
