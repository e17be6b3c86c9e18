package steps

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"giggle/builds"
	"giggle/engine"
	"giggle/fault"
)

// How long the workspaces of builds that failed are kept for a look inside, and how many.
const (
	keepFor = time.Hour
	keepMax = 5
)

// kept are the workspaces of builds that failed, oldest first.
type kept struct {
	mu   sync.Mutex
	all  []*workspace
	busy map[*workspace]int // shells in them
}

// keep keeps a workspace for a while, and removes those that are too many.
func (k *kept) keep(w *workspace, now time.Time) error {
	k.mu.Lock()
	w.until = now.Add(keepFor)
	k.all = append(k.all, w)
	k.mu.Unlock()
	return k.expire(now)
}

// expire removes the workspaces that are too old or too many, but for those with an open shell.
func (k *kept) expire(now time.Time) error {
	k.mu.Lock()
	var gone []*workspace
	over := len(k.all) - keepMax
	k.all = slices.DeleteFunc(k.all, func(w *workspace) bool {
		if k.busy[w] > 0 || over <= 0 && now.Before(w.until) {
			return false
		}
		over--
		gone = append(gone, w)
		return true
	})
	k.mu.Unlock()
	var errs []error
	for _, w := range gone {
		errs = append(errs, w.remove())
	}
	return errors.Join(errs...)
}

// enter finds a build's workspace and keeps it until leave is called.
func (k *kept) enter(id string, now time.Time) (w *workspace, leave func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.all {
		if w.build.Name.ID == id && now.Before(w.until) {
			k.busy[w]++
			return w, func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				if k.busy[w]--; k.busy[w] == 0 {
					delete(k.busy, w)
				}
			}, true
		}
	}
	return nil, nil, false
}

// endInterval is how often a shell is told that its input has ended, until it ends.
const endInterval = 200 * time.Millisecond

// Shell is a shell in the container of a step whose build failed: its image, environment, directory, identity, and the
// workspace as the failure left it.
type Shell struct {
	Build builds.Build
	Step  int
	Title string // of the step, as the log has it

	runner *Runner
	spec   engine.Spec
	leave  func()
}

// OpenShell prepares a shell in the step of a build, by its id in the build, its number, or "" for the one that failed.
// Close must follow. It fails with NotFound when the build did not fail within the last hour, or never came to the
// step.
func (r *Runner) OpenShell(buildID, step string) (_ *Shell, err error) {
	defer fault.Wrap(&err, "steps.OpenShell(%.100s)", buildID)
	w, leave, ok := r.kept.enter(buildID, r.cfg.Now())
	if !ok {
		return nil, fault.New(fault.NotFound,
			"There is nothing to look into of the build %.100s: only the last %d builds whose steps failed are kept, for %s.", buildID, keepMax, keepFor)
	}
	i, err := w.find(step)
	if err != nil {
		leave()
		return nil, err
	}
	w.mu.Lock()
	spec := w.specs[i]
	w.mu.Unlock()
	spec.ID, spec.Output = r.cfg.NewID(), nil
	// The terminal becomes the session's own, where the image can do that: job control and Ctrl-C need it.
	spec.Args = []string{"/bin/sh", "-c",
		`(: <>/proc/self/fd/0) 2>/dev/null && exec <>/proc/self/fd/0; export TERM="${TERM:-xterm}" PS1='\w \$ '; command -v bash >/dev/null && exec bash --norc -i; exec sh -i`}
	return &Shell{
		Build:  w.build,
		Step:   i,
		Title:  title(i, &w.build.Spec.Steps[i]),
		runner: r,
		spec:   spec,
		leave:  leave,
	}, nil
}

// find is the index of a step that has run, by its id, its number, or "" for the one that failed.
func (w *workspace) find(step string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if step == "" {
		return w.failed, nil
	}
	for i := range w.build.Spec.Steps {
		t := &w.build.Spec.Steps[i]
		if t.ID != step && step != strconv.Itoa(i) {
			continue
		}
		if _, ran := w.specs[i]; !ran {
			return 0, fault.New(fault.NotFound, "The build ended before it came to its step %.100q.", step)
		}
		return i, nil
	}
	return 0, fault.New(fault.NotFound, "The build has no step %.100q: name it by its id or its number.", step)
}

// Run runs the shell until it ends, ctx ends, or in ends and the shell has noticed.
func (s *Shell) Run(ctx context.Context, rows, columns uint16, in io.Reader, out io.Writer) (err error) {
	defer fault.Wrap(&err, "steps.Shell.Run(%s)", s.Title)
	person, process, err := engine.NewTerminal(rows, columns)
	if err != nil {
		return err
	}
	defer func() { _ = person.Close() }() // it ends the copying, too
	s.spec.Terminal = process
	c, err := s.runner.cfg.Engine.Prepare(ctx, s.spec)
	if err := errors.Join(err, process.Close()); err != nil {
		return err
	}
	stop := func() error { return c.Stop(context.WithoutCancel(ctx), 0) }
	if err := c.Start(ctx); err != nil {
		return errors.Join(err, stop())
	}
	go func() {
		_, err := io.Copy(person, in)
		// Ctrl-D: what a person types where input ends. More than once, because one that comes while the shell has the
		// terminal in another mode is lost.
		again := time.NewTicker(endInterval)
		defer again.Stop()
		for err == nil {
			_, err = person.Write([]byte{4})
			select {
			case <-again.C:
			case <-c.Done():
				return
			}
		}
	}()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(out, person) // ends with EIO when the last process has closed its end
	}()
	select {
	case <-c.Done():
	case <-ctx.Done():
	}
	err = stop()
	select {
	case <-copied:
	case <-time.After(time.Second): // the other side does not read
	}
	return err
}

// Close lets the workspace go.
func (s *Shell) Close() { s.leave() }
