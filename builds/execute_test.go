package builds_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/builds"
	"giggle/fault"
	"giggle/operation"
	"giggle/store"
)

// fakeSteps is a workspace whose steps do what the test says.
type fakeSteps struct {
	run   func(ctx context.Context, log io.Writer, report func(int, builds.StepStatus)) error
	made  map[string]string // digest by image
	files map[string]string
	read  string // all of the source
}

func (f *fakeSteps) Open(_ context.Context, _ builds.Build, source io.ReadSeeker, _ int64) (builds.Workspace, error) {
	if source == nil {
		return f, nil
	}
	text, err := io.ReadAll(source)
	f.read = string(text)
	return f, err
}

func (f *fakeSteps) Run(ctx context.Context, log io.Writer, report func(int, builds.StepStatus)) error {
	if f.run == nil {
		return nil
	}
	return f.run(ctx, log, report)
}

func (f *fakeSteps) Image(_ context.Context, name string) (string, error) {
	if d := f.made[name]; d != "" {
		return d, nil
	}
	return "", fault.New(fault.NotFound, "none")
}

func (f *fakeSteps) Files(_ context.Context, pattern string, fn func(string, int64, io.Reader) error) error {
	if text, ok := f.files[pattern]; ok {
		return fn(pattern, int64(len(text)), strings.NewReader(text))
	}
	return nil
}

func (f *fakeSteps) Close() error { return nil }

type objects struct{ p *platform }

func (o objects) Put(_ context.Context, _ builds.Build, bucket, object string, r io.Reader) (int64, error) {
	text, err := io.ReadAll(r)
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.pushed[bucket+"/"+object] = string(text)
	return 1, err
}

// runSteps runs a scheduler of builds of steps until stop.
func (p *platform) runSteps(f *fakeSteps) (stop func()) {
	p.t.Helper()
	s := &builds.Scheduler{
		Store:   p.store,
		Sources: sources{p},
		Logs:    logs{p},
		Images:  images{p},
		Steps:   f,
		Objects: objects{p},
		Slots:   1,
		Begin:   operation.NewAttempts(p.store).Begin,
		Log:     slog.New(slog.NewTextHandler(p.t.Output(), nil)),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("Run: %v", err)
		}
	}
}

func (p *platform) submit(change func(*builds.Request)) builds.Build {
	p.t.Helper()
	r := builds.Request{
		Spec:   builds.Spec{Steps: []builds.Step{{Name: "ubuntu"}, {Name: "ubuntu"}}},
		LogsIn: "logs", Account: func(context.Context, string) (string, error) { return "builder@x", nil },
	}
	if change != nil {
		change(&r)
	}
	b, err := p.builds.Submit(p.t.Context(), here, r)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func TestEndsOfSteps(t *testing.T) {
	wait := func(ctx context.Context, _ io.Writer, report func(int, builds.StepStatus)) error {
		report(0, builds.StepStatus{Status: builds.Working})
		<-ctx.Done()
		return ctx.Err()
	}
	for name, tt := range map[string]struct {
		steps  fakeSteps
		change func(*builds.Request)
		status builds.Status
		detail string
		log    string // its end
		pushed string // an image or object that must be there
	}{
		"success": {status: builds.Success, log: "BUILD\nPUSH\nDONE\n"},
		"a source": {
			change: func(r *builds.Request) { r.Source = builds.Source{Bucket: "b", Object: "o"} },
			status: builds.Success,
			log:    "gs://b/o#0\nBUILD\nPUSH\nDONE\n",
		},
		"images": {
			steps:  fakeSteps{made: map[string]string{"h/a": "sha256:a"}},
			change: func(r *builds.Request) { r.Spec.Images = []string{"h/a"} },
			status: builds.Success,
			log:    "Pushing h/a\nh/a: digest: sha256:a\nDONE\n",
			pushed: "h/a",
		},
		"missing images": {
			steps:  fakeSteps{made: map[string]string{"h/a": "sha256:a"}},
			change: func(r *builds.Request) { r.Spec.Images = []string{"h/a", "h/b"} },
			status: builds.Failure,
			detail: `failed to find one or more images after execution of build steps: ["h/b"]`,
		},
		"objects": {steps: fakeSteps{files: map[string]string{"a.txt": "x"}}, change: func(r *builds.Request) {
			r.Spec.Objects = builds.Objects{Location: "gs://b/d", Paths: []string{"a.txt"}}
		}, status: builds.Success, pushed: "b/d/a.txt", log: "1 total artifacts uploaded to gs://b/d\n" +
			"Uploading manifest artifacts-b001.json\n" +
			"Artifact manifest located at gs://b/d/artifacts-b001.json\nDONE\n"},
		"no such file": {change: func(r *builds.Request) {
			r.Spec.Objects = builds.Objects{Location: "gs://b/d", Paths: []string{"a.txt"}}
		}, status: builds.Failure, detail: `no file of the workspace matches "a.txt"`},
		"failure": {
			steps: fakeSteps{run: func(_ context.Context, _ io.Writer, report func(int, builds.StepStatus)) error {
				report(0, builds.StepStatus{Status: builds.Failure, ExitCode: 4})
				return fault.New(fault.FailedPrecondition, "build step 0 failed")
			}},
			status: builds.Failure,
			detail: "build step 0 failed",
			log:    "ERROR\nERROR: build step 0 failed\n",
		},
		"ours": {
			steps: fakeSteps{
				run: func(context.Context, io.Writer, func(int, builds.StepStatus)) error { return fmt.Errorf("/secret") },
			},
			status: builds.InternalError,
			detail: "Internal error",
		},
		"build's time": {
			steps:  fakeSteps{run: wait},
			change: func(r *builds.Request) { r.Timeout = time.Millisecond },
			status: builds.Timeout,
			log:    "TIMEOUT\nERROR: The build did not end within its timeout of 1ms.\n",
		},
		"step's time": {steps: fakeSteps{run: func(context.Context, io.Writer, func(int, builds.StepStatus)) error {
			return fault.New(fault.DeadlineExceeded, "build step 0 timed out")
		}}, status: builds.Timeout, detail: "build step 0 timed out"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			stop := p.runSteps(&tt.steps)
			b := p.end(p.submit(tt.change))
			stop()
			if b.Status != tt.status || !strings.Contains(b.Detail, tt.detail) || strings.Contains(b.Detail, "secret") {
				t.Errorf("ended as %s %q", b.Status, b.Detail)
			}
			if l := p.log(b); !strings.HasSuffix(l.String(), tt.log) || !l.closed || l.early.Terminal() {
				t.Errorf("log:\n%s\nclosed %t, the build was %s then", l.String(), l.closed, l.early)
			}
			if tt.pushed != "" && p.pushed[tt.pushed] == "" {
				t.Errorf("pushed: %v", p.pushed)
			}
			if p.opened != 0 {
				t.Errorf("%d sources are open", p.opened)
			}
			for _, s := range b.Steps {
				if s.Status == builds.Working {
					t.Error("a step runs on")
				}
			}
		})
	}
}

// The hashes that a build asks for are those of its whole source, and its manifest has each object with its MD5, in
// base64 twice as Cloud Build has it.
func TestProvenance(t *testing.T) {
	p := newPlatform(t)
	steps := &fakeSteps{files: map[string]string{"a.txt": "x", "d/b.txt": "y"}}
	stop := p.runSteps(steps)
	defer stop()
	b := p.end(p.submit(func(r *builds.Request) {
		r.Source = builds.Source{Bucket: "b", Object: "o"}
		r.Spec.Options.Hashes = []string{"MD5", "SHA256"}
		r.Spec.Objects = builds.Objects{Location: "gs://b/d", Paths: []string{"a.txt", "d/b.txt"}}
	}))
	var got []string
	for _, h := range b.Hashes {
		got = append(got, fmt.Sprintf("%s %x", h.Kind, h.Value))
	}
	const (
		md5 = "adcdbd79a8d84175c229b192aadc02f2" // of "zip"
		sha = "4a70fe9aa6436e02c2dea340fbd1e352e4ef2d8ce6ca52ad25d4b95471fc8bf2"
	)
	if want := []string{"MD5 " + md5, "SHA256 " + sha}; !slices.Equal(got, want) || steps.read != "zip" {
		t.Errorf("the hashes are %q, want %q; the steps have %q", got, want, steps.read)
	}
	line := `{"location":"gs://b/d/%s.txt#1","file_hash":[{"file_hash":[{"type":2,"value":"%s"}]}]}` + "\n"
	want := fmt.Sprintf(line, "a", "bmRUa1lTYU1nRFQxeUZaT0ZWeG5wZz09") +
		fmt.Sprintf(line, "b", "UVZLUWRwV1VSZzR1U0ZraWtFODBYUT09")
	at := "b/d/artifacts-" + b.Name.ID + ".json"
	if p.pushed[at] != want || b.Manifest != "gs://"+at || b.Objects != 2 ||
		!b.Uploaded.Finished.After(b.Uploaded.Started) {
		t.Errorf("%s has %s; %d objects, %v", b.Manifest, p.pushed[at], b.Objects, b.Uploaded)
	}
}

// A build whose steps may take longer than the usual time may be asked for again.
func TestAgainWithoutATimeout(t *testing.T) {
	p := newPlatform(t)
	slow := builds.Spec{Steps: []builds.Step{{Name: "ubuntu", Timeout: 2 * builds.DefaultTimeout}}}
	stop := p.runSteps(&fakeSteps{})
	defer stop()
	b := p.end(p.submit(func(r *builds.Request) { r.Spec = slow }))
	r, err := b.Again()
	if err != nil {
		t.Fatal(err)
	}
	again := p.end(p.submit(func(n *builds.Request) { n.Spec, n.Timeout = r.Spec, r.Timeout }))
	if again.Timeout != builds.DefaultTimeout {
		t.Errorf("it has %v", again.Timeout)
	}
	limited := p.end(p.submit(func(r *builds.Request) { r.Timeout = 90 * time.Second }))
	if r, err := limited.Again(); err != nil || r.Timeout != 90*time.Second {
		t.Errorf("%v, %v", r.Timeout, err)
	}
}

// A stop of the platform ends a build of steps with a reason; what was queued goes on at the next start.
func TestStopAndCrash(t *testing.T) {
	for _, crash := range []bool{false, true} {
		p := newPlatform(t)
		stop := p.runSteps(&fakeSteps{run: func(ctx context.Context, _ io.Writer, report func(int, builds.StepStatus)) error {
			report(0, builds.StepStatus{Status: builds.Working})
			<-ctx.Done()
			return ctx.Err()
		}})
		working := p.submit(nil)
		queued := p.submit(nil)
		p.until(working, func(b builds.Build) bool {
			return b.Status == builds.Working &&
				b.Steps[0].Status == builds.Working
		})
		stop()
		if crash { // as a kill leaves it
			p.set(working, builds.Working)
		}
		stop = p.runSteps(&fakeSteps{})
		if b := p.end(working); b.Status != builds.InternalError ||
			!strings.Contains(b.Detail, "stopped while the build ran") {
			t.Errorf("crash %t: the working one ended as %s %q", crash, b.Status, b.Detail)
		}
		if b := p.end(queued); b.Status != builds.Success {
			t.Errorf("crash %t: the queued one ended as %s", crash, b.Status)
		}
		stop()
	}
}

// set writes a build's status behind the scheduler's back.
func (p *platform) set(b builds.Build, status builds.Status) {
	p.t.Helper()
	table := store.NewTable[builds.Build]("build.build", "Build")
	err := p.store.Update(p.t.Context(), func(tx *store.Tx) error {
		row, err := table.Get(tx, b.Name.String())
		if err != nil {
			return err
		}
		row.Value.Status = status
		_, err = table.SetStatus(tx, row)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestExpiry(t *testing.T) {
	p := newPlatform(t) // its clock runs a second with each look
	b := p.submit(func(r *builds.Request) { r.Spec.QueueTTL = time.Nanosecond })
	stop := p.runSteps(&fakeSteps{})
	defer stop()
	if b = p.end(b); b.Status != builds.Expired || !b.Started.IsZero() {
		t.Errorf("ended as %s, started %s", b.Status, b.Started)
	}
}

func TestApproval(t *testing.T) {
	p := newPlatform(t)
	held := func(r *builds.Request) { r.NeedsApproval = true }
	yes, no := p.submit(held), p.submit(held)
	stop := p.runSteps(&fakeSteps{})
	defer stop()
	if b := p.end(p.submit(nil)); b.Status != builds.Success { // it was not held up by those
		t.Errorf("ended as %s", b.Status)
	}
	for _, b := range []builds.Build{yes, no} {
		if got, _ := p.builds.Get(t.Context(), b.Name); got.Status != builds.Pending {
			t.Fatalf("without an approval: %s", got.Status)
		}
		if _, err := p.builds.Approve(t.Context(), b.Name,
			builds.Approval{Approver: "a@b", Rejected: b.Name == no.Name}); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := p.end(yes).Status, p.end(no).Status; a != builds.Success || b != builds.Cancelled {
		t.Errorf("approved: %s, rejected: %s", a, b)
	}
	if _, err := p.builds.Approve(t.Context(), yes.Name, builds.Approval{Approver: "a@b"}); !fault.Is(err,
		fault.FailedPrecondition) {
		t.Errorf("twice: %v", err)
	}
}

func TestCancelSteps(t *testing.T) {
	p := newPlatform(t)
	stop := p.runSteps(&fakeSteps{run: func(ctx context.Context, _ io.Writer, report func(int, builds.StepStatus)) error {
		report(0, builds.StepStatus{Status: builds.Working})
		<-ctx.Done()
		return ctx.Err()
	}})
	defer stop()
	b := p.submit(nil)
	p.until(b, func(b builds.Build) bool { return b.Steps[0].Status == builds.Working })
	if _, err := p.builds.Cancel(t.Context(), b.Name); err != nil {
		t.Fatal(err)
	}
	if b = p.end(b); b.Status != builds.Cancelled || b.Steps[0].Status != builds.Cancelled {
		t.Errorf("%s, step %s", b.Status, b.Steps[0].Status)
	}
	// The slot is free again once the container is gone.
	if b := p.submit(nil); p.until(b,
		func(b builds.Build) bool { return b.Status == builds.Working }).Status != builds.Working {
		t.Error("the next does not run")
	}
}
