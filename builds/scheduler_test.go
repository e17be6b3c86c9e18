package builds_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/builds"
	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/store"
)

var here = resource.Location{Project: "p1", Location: "europe-north1"}

// platform is a scheduler over fakes of all that it uses but the store.
type platform struct {
	t      *testing.T
	store  *store.Store
	builds *builds.Builds
	ops    *operation.Operations

	// Build is what the builder does; "" and nil is an image made at once.
	Build  func(ctx context.Context, b builds.Build, log io.Writer) (string, error)
	Push   func(ctx context.Context) error
	Source error

	mu     sync.Mutex
	logs   map[string]*buildLog
	pushed map[string]string // digest by image
	opened int               // sources that are open
	next   int
}

// buildLog records what it got, and whether the build had ended before it was whole.
type buildLog struct {
	bytes.Buffer
	closed bool
	early  builds.Status // the status when it was closed
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	return openPlatform(t, filepath.Join(t.TempDir(), "giggle.db"))
}

// openPlatform opens a platform's state.
func openPlatform(t *testing.T, file string) *platform {
	t.Helper()
	p := &platform{t: t, logs: map[string]*buildLog{}, pushed: map[string]string{}}
	clock := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	now := func() time.Time { // each look is later, so that rows have an order
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(time.Second)
		return clock
	}
	var err error
	if p.store, err = store.Open(t.Context(), file, now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	p.builds = builds.New(p.store, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.next++
		return fmt.Sprintf("b%03d", p.next)
	})
	p.ops = operation.New(p.store)
	return p
}

type sources struct{ *platform }
type logs struct{ *platform }
type images struct{ *platform }

type nothing struct {
	*strings.Reader
	p *platform
}

func (n nothing) Close() error { n.p.mu.Lock(); defer n.p.mu.Unlock(); n.p.opened--; return nil }

func (s sources) Open(context.Context, builds.Build) (io.ReadSeekCloser, int64, error) {
	if s.Source != nil {
		return nil, 0, s.Source
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return nothing{strings.NewReader("zip"), s.platform}, 3, nil
}

type openLog struct {
	p  *platform
	id string
}

func (l logs) Create(_ context.Context, b builds.Build) (io.WriteCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.platform.logs[b.Name.ID] = &buildLog{}
	return openLog{l.platform, b.Name.ID}, nil
}

func (l openLog) Write(b []byte) (int, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.p.logs[l.id].Write(b)
}

func (l openLog) Close() error {
	b, err := l.p.builds.Get(context.Background(), resource.Build(here.Project, here.Location, l.id))
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.logs[l.id].closed, l.p.logs[l.id].early = true, b.Status
	return err
}

func (i images) Push(ctx context.Context, _ builds.Build, image, digest string) error {
	if i.platform.Push != nil {
		if err := i.platform.Push(ctx); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pushed[image] = digest
	return nil
}

// builtIn is a workspace whose one step is built in, and does what the platform's Build says.
func (p *platform) builtIn(b builds.Build) *fakeSteps {
	f := &fakeSteps{made: map[string]string{}}
	f.run = func(ctx context.Context, log io.Writer, report func(int, builds.StepStatus)) (err error) {
		report(0, builds.StepStatus{Status: builds.Working, Started: p.store.Now()})
		digest := "sha256:" + b.Name.ID
		if p.Build != nil {
			digest, err = p.Build(ctx, b, log)
		}
		if err != nil {
			return err
		}
		f.made[b.Spec.Steps[0].Image] = digest
		report(0, builds.StepStatus{Status: builds.Success, Finished: p.store.Now()})
		return nil
	}
	return f
}

// opener opens the workspaces of builds.
type opener func(b builds.Build) *fakeSteps

func (o opener) Open(_ context.Context, b builds.Build, _ io.ReadSeeker, _ int64) (builds.Workspace, error) {
	return o(b), nil
}

// run runs a scheduler until the test ends, or until stop, which waits for its end.
func (p *platform) run(slots int) (stop func()) {
	p.t.Helper()
	s := &builds.Scheduler{
		Store:   p.store,
		Sources: sources{p},
		Logs:    logs{p},
		Images:  images{p},
		Steps:   opener(p.builtIn),
		Slots:   slots,
		Begin:   operation.NewAttempts(p.store).Begin,
		Log:     slog.New(slog.NewTextHandler(p.t.Output(), nil)),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("Run: %v", err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

const app = "europe-north1-docker.pkg.dev/p1/r/app"

// create submits a deploy from source.
func (p *platform) create(change func(*builds.Request)) builds.Build {
	p.t.Helper()
	return p.submit(func(r *builds.Request) {
		r.Spec = builds.ImageOf(builds.Buildpack, app, map[string]string{"GOOGLE_ENTRYPOINT": "run $PORT"})
		r.Source = builds.Source{Bucket: "src", Object: "a.zip", Generation: 7}
		if change != nil {
			change(r)
		}
	})
}

// digest is that of the image that a build has pushed.
func digest(b builds.Build) string {
	if len(b.Images) == 0 {
		return ""
	}
	return b.Images[0].Digest
}

// end waits until a build has ended, and returns it.
func (p *platform) end(b builds.Build) builds.Build {
	p.t.Helper()
	return p.until(b, func(b builds.Build) bool { return b.Status.Terminal() })
}

func (p *platform) until(b builds.Build, ok func(builds.Build) bool) builds.Build {
	p.t.Helper()
	w := p.store.Watch("build.build")
	defer w.Close()
	late := time.After(20 * time.Second)
	for {
		got, err := p.builds.Get(p.t.Context(), b.Name)
		if err != nil {
			p.t.Fatal(err)
		}
		if ok(got) {
			return got
		}
		select {
		case <-w.C:
		case <-late:
			p.t.Fatalf("the build stays %s", got.Status)
		}
	}
}

func (p *platform) log(b builds.Build) *buildLog {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.logs[b.Name.ID]; l != nil {
		return l
	}
	p.t.Fatalf("build %s has no log", b.Name.ID)
	return nil
}

func TestOutcomes(t *testing.T) {
	crash := errors.New("disk on fire at /secret/path")
	endless := func(p *platform) {
		p.Build = func(ctx context.Context, _ builds.Build, _ io.Writer) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
	}
	for name, tc := range map[string]struct {
		set    func(*platform)
		change func(*builds.Request)
		status builds.Status
		detail string // part of the detail
		log    string // end of the log
	}{
		"success": {set: func(*platform) {}, status: builds.Success, log: "digest: sha256:b001\nDONE\n"},
		"failure": {
			set: func(p *platform) {
				p.Build = func(_ context.Context, _ builds.Build, log io.Writer) (string, error) {
					fmt.Fprintln(log, "main.go:3: syntax error")
					return "", fmt.Errorf("wrapped: %w",
						fault.New(fault.FailedPrecondition, "go build failed:\nmain.go:3: syntax error"))
				}
			},
			status: builds.Failure,
			detail: "main.go:3: syntax error",
			log:    "ERROR: go build failed:\nmain.go:3: syntax error\n",
		},
		"ours": {set: func(p *platform) {
			p.Build = func(context.Context, builds.Build, io.Writer) (string, error) { return "", crash }
		}, status: builds.InternalError, detail: "Internal error", log: "ERROR: Internal error encountered.\n"},
		"no source": {set: func(p *platform) { p.Source = fault.New(fault.NotFound, "No such object: src/a.zip") },
			status: builds.Failure, detail: "No such object", log: "ERROR: No such object: src/a.zip\n"},
		"push": {set: func(p *platform) {
			p.Push = func(context.Context) error {
				return fault.New(fault.NotFound, `Repository "r" not found.`)
			}
		}, status: builds.Failure, detail: "not found", log: "ERROR: Repository \"r\" not found.\n"},
		"timeout": {
			set:    endless,
			change: func(r *builds.Request) { r.Timeout = time.Millisecond },
			status: builds.Timeout,
			detail: "timeout of 1ms",
			log:    "timeout of 1ms.\n",
		},
		"a timeout before anything has begun": {
			set:    endless,
			change: func(r *builds.Request) { r.Timeout = time.Nanosecond },
			status: builds.Timeout,
			detail: "timeout of 1ns",
			log:    "timeout of 1ns.\n",
		},
		"a deadline of another": {
			set: func(p *platform) {
				p.Build = func(context.Context, builds.Build, io.Writer) (string, error) {
					return "",
						context.DeadlineExceeded
				}
			},
			status: builds.InternalError,
			detail: "Internal error",
			log:    "ERROR: Internal error encountered.\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			tc.set(p)
			stop := p.run(1)
			b := p.end(p.create(tc.change))
			stop()
			if b.Status != tc.status || !strings.Contains(b.Detail, tc.detail) || strings.Contains(b.Detail, "secret") {
				t.Errorf("ended as %s %q", b.Status, b.Detail)
			}
			l := p.log(b)
			if !strings.HasPrefix(l.String(), `starting build "b001"`) || !strings.HasSuffix(l.String(), tc.log) ||
				strings.Contains(l.String(), "secret") {
				t.Errorf("log:\n%s", l)
			}
			if !l.closed || l.early != builds.Working {
				t.Errorf("the log was closed %v, when the build was %s: all of it must be there before the build has ended", l.closed, l.early)
			}
			if p.opened != 0 {
				t.Errorf("%d sources are still open", p.opened)
			}
			if b.Started.IsZero() || !b.Finished.After(b.Started) || b.Started.Before(b.Created) {
				t.Errorf("created %v, started %v, finished %v", b.Created, b.Started, b.Finished)
			}
			want := ""
			if tc.status == builds.Success {
				want = "sha256:b001"
			}
			if p.pushed[app] != want || digest(b) != want {
				t.Errorf("pushed %v, images %v", p.pushed, b.Images)
			}
			op, err := p.ops.Get(t.Context(), builds.OperationKind,
				resource.Operation(here.Project, here.Location, b.Name.ID).String())
			if err != nil || !op.Done || (op.Error != nil) != (tc.status != builds.Success) {
				t.Errorf("operation = %+v, %v", op, err)
			}
		})
	}
}

// blocked is a builder that says when it begins, and ends when it is let go or its context ends.
func blocked(p *platform) (begun chan string, release chan struct{}) {
	begun, release = make(chan string, 100), make(chan struct{})
	p.Build = func(ctx context.Context, b builds.Build, _ io.Writer) (string, error) {
		begun <- b.Name.ID
		select {
		case <-release:
			return "sha256:" + b.Name.ID, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return begun, release
}

func TestSlots(t *testing.T) {
	p := newPlatform(t)
	begun, release := blocked(p)
	var all []builds.Build
	for range 5 {
		all = append(all, p.create(nil))
	}
	p.run(2)
	first := []string{<-begun, <-begun}
	if !(first[0] == "b001" && first[1] == "b002" || first[0] == "b002" && first[1] == "b001") {
		t.Errorf("%v began first: want the oldest two", first)
	}
	// Another change wakes the scheduler, which must still start nothing.
	all = append(all, p.create(nil))
	for _, b := range all[2:] {
		if got, err := p.builds.Get(t.Context(), b.Name); err != nil || got.Status != builds.Queued {
			t.Errorf("%s is %s, %v", b.Name.ID, got.Status, err)
		}
	}
	for n := 2; n < len(all); n++ {
		release <- struct{}{} // one ends, one begins
		if got := <-begun; got != all[n].Name.ID {
			t.Errorf("%s began, want %s", got, all[n].Name.ID)
		}
	}
	close(release)
	for _, b := range all {
		if got := p.end(b); got.Status != builds.Success {
			t.Errorf("%s is %s", b.Name.ID, got.Status)
		}
	}
}

func TestCancel(t *testing.T) {
	p := newPlatform(t)
	begun, release := blocked(p)
	working, queued, third := p.create(nil), p.create(nil), p.create(nil)
	stop := p.run(1)
	<-begun
	for _, b := range []builds.Build{queued, working} {
		got, err := p.builds.Cancel(t.Context(), b.Name)
		if err != nil || got.Status != builds.Cancelled {
			t.Errorf("cancel = %s, %v", got.Status, err)
		}
		if _, err := p.builds.Cancel(t.Context(), b.Name); !fault.Is(err, fault.FailedPrecondition) {
			t.Errorf("cancel once more: %v", err)
		}
	}
	// The slot is free again, for the one that was not cancelled.
	if got := <-begun; got != third.Name.ID {
		t.Errorf("%s began", got)
	}
	close(release)
	if got := p.end(third); got.Status != builds.Success {
		t.Errorf("third: %s", got.Status)
	}
	stop()
	for _, b := range []builds.Build{working, queued} {
		if got := p.end(b); got.Status != builds.Cancelled || digest(got) != "" {
			t.Errorf("%s is %s with %q", b.Name.ID, got.Status, digest(got))
		}
	}
	if l := p.log(working).String(); !strings.HasSuffix(l, "Build was cancelled.\n") {
		t.Errorf("log:\n%s", l)
	}
	if p.logs[queued.Name.ID] != nil {
		t.Error("the queued build has run")
	}
	if _, ok := p.pushed[app]; !ok || len(p.pushed) != 1 {
		t.Errorf("pushed %v", p.pushed)
	}
	op, err := p.ops.Get(t.Context(), builds.OperationKind,
		resource.Operation(here.Project, here.Location, working.Name.ID).String())
	if err != nil || op.Error == nil {
		t.Errorf("operation = %+v, %v", op, err)
	}
}

// What was working when the platform stopped is not over: the next Run does it again, with a log of its own.
func TestPlatformStops(t *testing.T) {
	p := newPlatform(t)
	begun, release := blocked(p)
	b := p.create(nil)
	stop := p.run(1)
	<-begun
	stop()
	if got, err := p.builds.Get(t.Context(), b.Name); err != nil || got.Status != builds.Working {
		t.Fatalf("after the stop the build is %s, %v", got.Status, err)
	}
	if l := p.log(b).String(); strings.Contains(l, "ERROR") || !strings.Contains(l, "runs again") {
		t.Errorf("log of the first run:\n%s", l)
	}
	p.run(1)
	<-begun
	close(release)
	if got := p.end(b); got.Status != builds.Success || digest(got) == "" {
		t.Errorf("ended as %s", got.Status)
	}
	if l := p.log(b).String(); strings.Contains(l, "runs again") || !strings.HasSuffix(l, "DONE\n") {
		t.Errorf("log of the second run:\n%s", l)
	}
}

func TestSubmit(t *testing.T) {
	p := newPlatform(t)
	b := p.create(nil)
	if b.Status != builds.Queued || b.Timeout != builds.DefaultTimeout || b.Project != "p1" ||
		b.LogObject() != "log-b001.txt" {
		t.Errorf("created %+v", b)
	}
	// a shell's variable, no substitution
	if got := b.Spec.Steps[0].Variables()["GOOGLE_ENTRYPOINT"]; got != "run $PORT" {
		t.Errorf("the entrypoint is %q", got)
	}
	for name, change := range map[string]func(*builds.Request){
		"no source": func(r *builds.Request) { r.Source = builds.Source{} },
		"no object": func(r *builds.Request) { r.Source.Object = "" },
		"no image":  func(r *builds.Request) { r.Spec = builds.ImageOf(builds.Buildpack, "", nil) },
		"bad image": func(r *builds.Request) { r.Spec = builds.ImageOf(builds.Buildpack, "a b", nil) },
		"digest":    func(r *builds.Request) { r.Spec = builds.ImageOf(builds.Buildpack, "a@sha256:1", nil) },
		"bad variable": func(r *builds.Request) {
			r.Spec = builds.ImageOf(builds.Buildpack, "a",
				map[string]string{"": "x"})
		},
		"no builder": func(r *builds.Request) { r.Spec = builds.ImageOf("magic", "a", nil) },
		"too many":   func(r *builds.Request) { r.Spec.Steps = append(r.Spec.Steps, builds.Step{Name: "ubuntu"}) },
		"bad tag":    func(r *builds.Request) { r.Tags = []string{"a b"} },
		"too long":   func(r *builds.Request) { r.Timeout = 25 * time.Hour },
		"time lapse": func(r *builds.Request) { r.Timeout = -1 },
	} {
		r := builds.Request{
			Spec:    builds.ImageOf(builds.Buildpack, "i", nil),
			Source:  builds.Source{Bucket: "b", Object: "o"},
			Account: func(context.Context, string) (string, error) { return "builder@x", nil },
		}
		change(&r)
		if _, err := p.builds.Submit(t.Context(), here, r); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := p.create(nil)
	list, err := p.builds.List(t.Context(), resource.Location{Project: "p1", Location: "-"})
	if err != nil || len(list) != 2 || list[0].Name != other.Name || list[1].Name != b.Name {
		t.Errorf("list = %v, %v: want newest first", list, err)
	}
	if list, err := p.builds.List(t.Context(), resource.Location{Project: "p2", Location: "-"}); err != nil ||
		len(list) != 0 {
		t.Errorf("another project sees %v, %v", list, err)
	}
	if _, err := p.builds.Get(t.Context(), resource.Build("p1", here.Location, "none")); !fault.Is(err,
		fault.NotFound) {
		t.Errorf("get: %v", err)
	}
	if _, err := p.builds.Cancel(t.Context(), resource.Build("p1", here.Location, "none")); !fault.Is(err,
		fault.NotFound) {
		t.Errorf("cancel: %v", err)
	}
}

// A build that was running whenever the platform was killed may be why: it isn't tried a third time.
func TestBuildThatEndsThePlatform(t *testing.T) {
	p := newPlatform(t)
	b := p.create(nil)
	attempts := operation.NewAttempts(p.store)
	for range operation.MaxAttempts {
		if _, err := attempts.Begin(t.Context(), b.Name.String()); err != nil { // no end: a kill
			t.Fatal(err)
		}
	}
	p.Build = func(context.Context, builds.Build, io.Writer) (string, error) {
		t.Error("the build was tried a third time")
		return "", nil
	}
	p.run(1)
	if got := p.end(b); got.Status != builds.InternalError ||
		!strings.Contains(got.Detail, "stopped uncleanly 2 times") {
		t.Errorf("ended as %s: %s", got.Status, got.Detail)
	}
}
