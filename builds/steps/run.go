package steps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"giggle/builds"
	"giggle/builds/volumes"
	"giggle/engine"
	"giggle/fault"
)

// Where a step finds what the steps share, as on Cloud Build.
const (
	workspaceDir = "/workspace"
	homeDir      = "/builder/home"
	scriptFile   = "/builder/script"
	outputsDir   = "/builder/outputs"
	dockerSocket = "/var/run/docker.sock"
)

// run is one run of a build's steps.
type run struct {
	*workspace
	log    *lines
	report func(int, builds.StepStatus)
}

// Run runs the steps, each as soon as those that it waits for have succeeded. The first that fails stops the others.
func (w *workspace) Run(ctx context.Context, log io.Writer, report func(int, builds.StepStatus)) error {
	r := &run{workspace: w, log: newLines(log), report: report}
	g, ctx := errgroup.WithContext(ctx)
	steps := w.build.Spec.Steps
	done := make([]chan struct{}, len(steps))
	for i := range steps {
		done[i] = make(chan struct{})
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	var left sync.WaitGroup
	for i := range steps {
		left.Add(1)
		g.Go(func() error {
			defer left.Done()
			for _, j := range w.build.Spec.Needs(i) {
				select {
				case <-done[j]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := w.slots.Acquire(ctx, 1); err != nil {
				return err
			}
			defer w.slots.Release(1)
			if err := r.step(ctx, i); err != nil {
				return err
			}
			close(done[i])
			return nil
		})
	}
	g.Go(func() error { return w.watchDisk(watched) })
	g.Go(func() error { return w.keepCredentials(watched) })
	go func() { left.Wait(); stop() }()
	err := g.Wait()
	r.log.flush()
	return err
}

// title is how the log calls a step.
func title(i int, t *builds.Step) string {
	if t.ID == "" {
		return fmt.Sprintf("Step #%d", i)
	}
	return fmt.Sprintf("Step #%d - %q", i, t.ID)
}

// step runs one step and reports on it.
func (r *run) step(ctx context.Context, i int) error {
	t := &r.build.Spec.Steps[i]
	name, prefix := title(i, t), ""
	if len(r.build.Spec.Steps) > 1 { // the lines of an only step have no prefix, as Cloud Build's
		prefix = name + ": "
		r.log.say("", "Starting %s", name)
	}
	st := builds.StepStatus{Status: builds.Working, Started: r.cfg.Now()}
	r.report(i, st)
	inner, cancel := ctx, func() {}
	if t.Timeout > 0 {
		inner, cancel = context.WithTimeout(ctx, t.Timeout)
	}
	defer cancel()
	var err error
	if t.Builtin != "" {
		err = r.buildIn(inner, t, prefix)
	} else if program, ok := r.cfg.Programs[untagged(t.Name)]; ok {
		err = r.program(inner, program, t, prefix)
	} else {
		err = r.contain(inner, i, prefix, &st, func() { r.report(i, st) })
	}
	st.Finished = r.cfg.Now()
	failed := func(why string) error {
		return fault.New(fault.FailedPrecondition, "build step %d %q failed: %s", i, t.Name, why)
	}
	var exit exitError
	switch {
	case ctx.Err() != nil:
		st.Status = builds.Cancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			st.Status = builds.Timeout
		}
		err = ctx.Err()
	case inner.Err() != nil:
		st.Status = builds.Timeout
		err = fault.New(fault.DeadlineExceeded, "build step %d %q timed out: it did not end within %s", i, t.Name,
			t.Timeout)
	case errors.As(err, &exit):
		st.Status, st.ExitCode = builds.Failure, int32(exit.code)
		err = failed(exit.Error())
	case err != nil:
		st.Status = builds.Failure
		switch f := fault.From(err); {
		case f.Code == fault.Internal:
			st.Status = builds.InternalError
		case t.Builtin == "": // what is built in says what failed
			err = failed(f.Message)
		}
	default:
		st.Status = builds.Success
	}
	if field := allows(t, st); err != nil && field != "" {
		r.log.say(prefix, "%s (%s: the build goes on)", fault.From(err).Message, field)
		err = nil
	}
	if prefix != "" {
		r.log.say("", "Finished %s", name)
	}
	r.mu.Lock()
	if _, ran := r.specs[i]; ran && err != nil && st.Status != builds.Cancelled && r.failed < 0 {
		r.failed = i
	}
	r.mu.Unlock()
	r.report(i, st)
	return err
}

// allows returns the field of a step that lets the build go on after its failure, or "". The step itself stays failed.
// Exit codes that are listed take precedence: with another one the build fails, whatever allowFailure says
// (BuildStep.allow_exit_codes).
func allows(t *builds.Step, st builds.StepStatus) string {
	switch {
	case st.Status != builds.Failure:
	case len(t.AllowExitCodes) > 0:
		if st.ExitCode != 0 && slices.Contains(t.AllowExitCodes, st.ExitCode) {
			return "allowExitCodes"
		}
	case t.AllowFailure:
		return "allowFailure"
	}
	return ""
}

// buildIn makes the image of a step that is built in.
func (r *run) buildIn(ctx context.Context, t *builds.Step, prefix string) error {
	by, ok := r.cfg.BuiltIn[t.Builtin]
	if !ok {
		return fault.New(fault.Unimplemented, "Nothing here makes an image of a source by %q.", t.Builtin)
	}
	log := r.log.writer(prefix)
	digest, err := by.BuildSource(ctx, r.build, *t, r.source, r.size, log)
	log.end()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made[t.Image] = digest
	return nil
}

// program runs what stands in place of a step's container, and keeps the image that it makes.
func (r *run) program(ctx context.Context, p Program, t *builds.Step, prefix string) error {
	if strings.Contains(t.Name, "@") {
		return noDigest(t.Name)
	}
	r.log.say(prefix, "Already have image (with digest): %s", t.Name)
	log := r.log.writer(prefix)
	names, digest, err := p.Run(ctx, r.build, *t, log)
	log.end()
	if err != nil || digest == "" {
		return err
	}
	if r.cfg.Store != nil {
		return r.cfg.Store.Add(ctx, r.build, digest, names...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		r.made[name] = digest
	}
	return nil
}

// noDigest is the fault of a step that pins an image that is the platform's own.
func noDigest(name string) error {
	return fault.New(fault.FailedPrecondition, "%s is Giggle's own; it has no such digest. Leave the digest away.",
		untagged(name))
}

// exitError is a step that ended with a status other than 0.
type exitError struct {
	code int
	why  string
}

func (e exitError) Error() string {
	return fmt.Sprintf("step exited with non-zero status: %d%s", e.code, e.why)
}

// contain runs a step's container to its end.
func (r *run) contain(ctx context.Context, i int, prefix string, st *builds.StepStatus, pulled func()) error {
	t := &r.build.Spec.Steps[i]
	img, err := r.image(ctx, t, prefix)
	if err != nil {
		return err
	}
	st.Pulled, st.Image = r.cfg.Now(), img.Digest
	pulled()
	spec, err := r.spec(ctx, i, img, prefix)
	if err != nil {
		return err
	}
	defer func() { st.Output = r.output(i) }()
	spec.Output = func(l engine.Line) { r.log.line(prefix, l.Text) }
	r.mu.Lock()
	r.specs[i] = spec
	r.mu.Unlock()
	c, err := r.cfg.Engine.Prepare(ctx, spec)
	if err != nil {
		return err
	}
	exit, err := c.Run(ctx)
	if err != nil {
		return err
	}
	switch {
	case exit.OOM && exit.Code != 0:
		return exitError{exit.Code, fmt.Sprintf(" (it ran out of its memory of %d MiB)", r.cfg.Memory>>20)}
	case exit.Code != 0:
		return exitError{code: exit.Code}
	}
	return nil
}

// image finds a step's image: one of the platform's own builders, one that an earlier step made, or one of a registry.
func (r *run) image(ctx context.Context, t *builds.Step, prefix string) (OwnImage, error) {
	if own, ok := r.cfg.Builders[untagged(t.Name)]; ok {
		if strings.Contains(t.Name, "@") {
			return OwnImage{}, noDigest(t.Name)
		}
		r.log.say(prefix, "Already have image (with digest): %s", t.Name)
		return own(ctx, r.build)
	}
	r.log.say(prefix, "Pulling image: %s", t.Name)
	if r.cfg.Store != nil {
		if img, err := r.cfg.Store.Image(ctx, r.build, t.Name); !fault.Is(err, fault.NotFound) {
			return OwnImage{Image: img}, err
		}
	}
	img, err := r.cfg.Images.Image(ctx, r.build, t.Name, func(line string) { r.log.say(prefix, "%s", line) })
	return OwnImage{Image: img}, err
}

// untagged is an image's name without tag and digest.
func untagged(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// spec is a step's container.
func (r *run) spec(ctx context.Context, i int, img OwnImage, prefix string) (engine.Spec, error) {
	t := &r.build.Spec.Steps[i]
	dir := t.Dir
	if !path.IsAbs(dir) {
		in := ""
		if repo := r.build.Source.Repo; repo != nil {
			in = repo.Dir
		}
		dir = path.Join(workspaceDir, in, dir)
	}
	if err := r.workingDir(path.Clean(dir)); err != nil {
		return engine.Spec{}, err
	}
	s := engine.Spec{
		ID:      r.cfg.NewID(),
		Layers:  img.Layers,
		Dir:     path.Clean(dir),
		User:    img.Config.User,
		Memory:  r.cfg.Memory,
		Pids:    r.cfg.Pids,
		Disk:    true,
		Sockets: r.cfg.Sockets(r.build).Saying(func(text string) { r.log.say(prefix, "%s", text) }, r.cfg.Now),
		Files:   slices.Concat(r.cfg.Files, img.Files),
	}
	outputs := fmt.Sprint("outputs-", i)
	if err := r.mkdir(outputs); err != nil {
		return s, err
	}
	s.Mounts = []engine.Mount{
		{Source: r.path("workspace"), Target: workspaceDir}, {Source: r.path("home"), Target: homeDir},
		{Source: r.path(outputs), Target: outputsDir},
	}
	if r.cfg.Docker != nil {
		socket, err := r.cfg.Docker(r.build)
		if err != nil {
			return s, err
		}
		s.Mounts = append(s.Mounts, engine.Mount{Source: socket, Target: dockerSocket})
	}
	if r.cfg.Networks != nil {
		var err error
		if s.Networks, err = r.cfg.Networks(r.build, i); err != nil {
			return s, err
		}
	}
	s.Mounts = append(s.Mounts, img.Mounts...)
	if r.cfg.Groups != nil {
		s.Groups = r.cfg.Groups(r.build)
	}
	for _, v := range append(slices.Clone(r.build.Spec.Options.Volumes), t.Volumes...) {
		if err := r.workingDir(v.Path); err != nil { // where it is to be in the workspace
			return s, err
		}
		source, err := volumes.Open(ctx, r.path("volumes"), v.Name, img.Layers, v.Path)
		if err != nil {
			return s, err
		}
		s.Mounts = append(s.Mounts, engine.Mount{Source: source, Target: v.Path})
	}
	s.Env = slices.Concat(img.Config.Env, r.cfg.Env, []string{"HOME=" + homeDir, "BUILDER_OUTPUT=" + outputsDir}, img.Env,
		r.build.Spec.Options.Env, t.Env)
	switch {
	case t.Script != "":
		s.Files = append(s.Files, engine.File{Path: scriptFile, Data: []byte(t.Script), Mode: 0o555})
		s.Args = []string{scriptFile}
		if !strings.HasPrefix(t.Script, "#!") {
			s.Args = []string{shell(img.Layers), "-e", scriptFile}
		}
	case t.Entrypoint != "":
		s.Args = append([]string{t.Entrypoint}, t.Args...)
	case len(t.Args) > 0:
		s.Args = append(slices.Clone(img.Config.Entrypoint), t.Args...)
	default:
		s.Args = append(slices.Clone(img.Config.Entrypoint), img.Config.Cmd...)
	}
	if len(s.Args) == 0 {
		return s, fault.New(fault.FailedPrecondition,
			"the image has neither an entrypoint nor a command: give the step args, an entrypoint or a script")
	}
	return s, nil
}

// maxOutput is the most bytes that are kept of a step's output (Results.build_step_outputs).
const maxOutput = 50 << 10

// output is what a step has written to $BUILDER_OUTPUT/output; nil is nothing.
func (r *run) output(i int) []byte {
	root, err := os.OpenRoot(r.path(fmt.Sprint("outputs-", i)))
	if err != nil {
		return nil
	}
	defer func() { _ = root.Close() }() // it was only read
	f, err := root.OpenFile("output", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it was only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	out, err := io.ReadAll(io.LimitReader(f, maxOutput))
	if err != nil {
		return nil
	}
	return out
}

// workingDir makes a step's directory, when it is to be in the workspace. Links that earlier steps left lead nowhere
// else.
func (r *run) workingDir(dir string) error {
	in, ok := strings.CutPrefix(dir, workspaceDir+"/")
	if !ok {
		return nil
	}
	root, err := os.OpenRoot(r.path("workspace"))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing is written to it
	if err := root.MkdirAll(in, 0o755); err != nil {
		return fault.New(fault.FailedPrecondition, "the directory %q can't be made in the workspace", in)
	}
	return nil
}

// shell is what runs a script without a first line that says it: bash, where the image has it.
func shell(layers []string) string {
	for _, l := range layers {
		for _, p := range []string{"bin/bash", "usr/bin/bash"} {
			if _, err := os.Lstat(filepath.Join(l, p)); err == nil {
				return "bash"
			}
		}
	}
	return "sh"
}

// How often the workspace is measured, at most, and what share of the time that may take.
const (
	diskInterval = 500 * time.Millisecond
	diskShare    = 20
)

// watchDisk ends the build when its workspace outgrows the limit, or the disk is full.
func (w *workspace) watchDisk(ctx context.Context) error {
	wait := diskInterval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		start := time.Now()
		if err := w.cfg.Admit(0); err != nil {
			if fault.Is(err, fault.ResourceExhausted) {
				full := *fault.From(err)
				full.Message = "The build was stopped. " + full.Message
				err = &full
			}
			return err
		}
		used, err := usage(ctx, w.dir)
		if err != nil {
			return err
		}
		if used > w.cfg.Disk {
			return fault.New(fault.ResourceExhausted,
				"The build was stopped: its workspace uses more than %d MiB of disk.", w.cfg.Disk>>20)
		}
		wait = max(diskInterval, diskShare*time.Since(start))
	}
}
