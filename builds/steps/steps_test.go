package steps_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/builds"
	"giggle/builds/steps"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
)

// The containers of all tests run in one engine: opening one takes longer than most tests.
var shared *engine.Engine

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "steps-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared, err = engine.Open(context.Background(), engine.Config{Dir: dir, Log: slog.Default()})
	if err != nil {
		fmt.Println("these tests need root and an OCI runtime:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

// host is the image that the steps of these tests run in: it has a shell.
const host = "gcr.io/cloud-builders/gcloud"

type noImages struct{}

func (noImages) Image(_ context.Context, _ builds.Build, name string, _ func(string)) (oci.Image, error) {
	return oci.Image{}, fault.New(fault.NotFound, "the image %s is not here", name)
}

type fixture struct {
	t      *testing.T
	runner *steps.Runner
	builds int

	mu     sync.Mutex
	log    bytes.Buffer
	status []builds.StepStatus
	wrote  func(log string)
}

func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Write(p)
	if f.wrote != nil {
		f.wrote(f.log.String())
	}
	return len(p), nil
}

func setup(t *testing.T, change func(*steps.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t}
	own := make(map[string]func(context.Context, builds.Build) (steps.OwnImage, error))
	dir := os.Getenv("GIGGLE_MIRROR")
	if dir == "" {
		dir = "/var/cache/giggle/mirror"
	}
	foreign, err := mirror.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	steps.AddSDK(own, foreign.Get)
	var mu sync.Mutex
	n := 0
	cfg := steps.Config{
		Engine:   shared,
		Images:   noImages{},
		Builders: own,
		Dir:      filepath.Join(t.TempDir(), "work"),
		Sockets:  func(builds.Build) engine.Sockets { return engine.Sockets{} },
		Memory:   512 << 20,
		Pids:     256,
		Disk:     1 << 30,
		Parallel: 4,
		Now:      time.Now,
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
		NewID:    func() string { mu.Lock(); defer mu.Unlock(); n++; return fmt.Sprint(t.Name(), n) },
	}
	if change != nil {
		change(&cfg)
	}
	if f.runner, err = steps.New(cfg); err != nil {
		t.Fatal(err)
	}
	return f
}

// id is another build's each time.
func (f *fixture) id() string {
	f.builds++
	return fmt.Sprint("b", f.builds)
}

// run runs steps; then looks at their workspace.
func (f *fixture) run(ctx context.Context, look func(builds.Workspace), spec ...builds.Step) error {
	f.t.Helper()
	f.status, f.log = make([]builds.StepStatus, len(spec)), bytes.Buffer{}
	for i := range spec {
		if spec[i].Name == "" {
			spec[i].Name = host
		}
	}
	b := builds.Build{
		Name:    resource.Build("giggle", "global", f.id()),
		Project: "giggle",
		Spec:    builds.Spec{Steps: spec},
	}
	w, err := f.runner.Open(ctx, b, nil, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	err = w.Run(ctx, f, func(i int, s builds.StepStatus) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.status[i] = s
	})
	if look != nil {
		look(w)
	}
	if err := w.Close(); err != nil {
		f.t.Error(err)
	}
	return err
}

func (f *fixture) statuses() string {
	var out []string
	for _, s := range f.status {
		out = append(out, string(s.Status))
	}
	return strings.Join(out, " ")
}

func TestOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		steps    []builds.Step
		err      string // part of the message
		code     fault.Code
		statuses string
		log      string // part of it
	}{
		"one has no prefix": {steps: []builds.Step{{Script: "echo alone"}}, statuses: "SUCCESS", log: "\nalone\n"},
		"in order": {
			steps:    []builds.Step{{Script: "echo 1 > f"}, {ID: "second", Script: "cat f"}},
			statuses: "SUCCESS SUCCESS",
			log: "Starting Step #1 - \"second\"\nStep #1 - \"second\": Already have image (with digest): " + host +
				"\nStep #1 - \"second\": 1\nFinished Step #1 - \"second\"\n",
		},
		"side by side": {
			steps: []builds.Step{
				{ID: "a", Script: "until test -e b; do sleep .05; done; touch a"},
				{
					ID:      "b",
					WaitFor: []string{"-"},
					Script:  "touch b; until test -e a; do sleep .05; done",
				}, {Script: "ls"},
			},
			statuses: "SUCCESS SUCCESS SUCCESS",
			log:      "Step #2: a\nStep #2: b\n",
		},
		"environment": {
			steps: []builds.Step{{Entrypoint: "bash", Args: []string{"-c",
				"echo $HOME $PWD $A; touch $HOME/x"}, Env: []string{"A=b"}, Dir: "sub/dir"}, {Script: "ls $HOME"}},
			statuses: "SUCCESS SUCCESS",
			log:      "Step #0: /builder/home /workspace/sub/dir b\n",
		},
		"volumes": {
			steps: []builds.Step{
				{Script: "echo shared > /v/f", Volumes: []builds.Volume{{Name: "v", Path: "/v"}}},
				{Script: "cat /w/f; ls /v", AllowFailure: true, Volumes: []builds.Volume{{Name: "v", Path: "/w"}}},
			},
			statuses: "SUCCESS FAILURE",
			log:      "Step #1: shared\n",
		},
		"failure": {steps: []builds.Step{{Script: "exit 3"}, {Script: "echo never"}}, code: fault.FailedPrecondition,
			err: `build step 0 "` + host + `" failed: step exited with non-zero status: 3`, statuses: "FAILURE "},
		"failure stops the others": {
			steps: []builds.Step{{ID: "a", Script: "touch up; sleep 600"},
				{WaitFor: []string{"-"}, Script: "until test -e up; do sleep .05; done; exit 1"}},
			code:     fault.FailedPrecondition,
			err:      "build step 1",
			statuses: "CANCELLED FAILURE",
		},
		"allowed to fail": {
			steps:    []builds.Step{{Script: "exit 3", AllowFailure: true}, {Script: "echo goes on"}},
			statuses: "FAILURE SUCCESS",
			log:      "Step #1: goes on",
		},
		"allowed exit codes": {
			steps:    []builds.Step{{Script: "exit 3", AllowExitCodes: []int32{2, 3}}, {Script: "echo goes on"}},
			statuses: "FAILURE SUCCESS",
			log:      "(allowExitCodes: the build goes on)",
		},
		"another exit code": {
			steps: []builds.Step{
				{Script: "exit 4", AllowExitCodes: []int32{2, 3}, AllowFailure: true}, {Script: "echo never"},
			},
			code:     fault.FailedPrecondition,
			err:      "step exited with non-zero status: 4",
			statuses: "FAILURE ",
		},
		"both, and an exit code that is listed": {
			steps: []builds.Step{
				{Script: "exit 3", AllowExitCodes: []int32{3}, AllowFailure: true}, {Script: "echo goes on"},
			},
			statuses: "FAILURE SUCCESS",
			log:      "Step #1: goes on",
		},
		"an exit code of an image that is not there": {
			steps:    []builds.Step{{Name: "ubuntu", AllowExitCodes: []int32{1}}, {Script: "echo never"}},
			code:     fault.FailedPrecondition,
			err:      "the image ubuntu is not here",
			statuses: "FAILURE ",
		},
		"git and curl beside gcloud": {
			steps:    []builds.Step{{Script: "git --version && curl --version && gcloud --version && echo all"}},
			statuses: "SUCCESS",
			log:      "\nall\n",
		},
		"gsutil": {
			steps:    []builds.Step{{Name: "gcr.io/cloud-builders/gsutil", Args: []string{"version"}}},
			statuses: "SUCCESS",
			log:      "gsutil version",
		},
		"a volume filled by the first step": {
			steps: []builds.Step{
				{Script: "echo more > /etc/skel/more", Volumes: []builds.Volume{{Name: "etc", Path: "/etc/skel"}}},
				{Script: "test -e /w/.bashrc && cat /w/more", Volumes: []builds.Volume{{Name: "etc", Path: "/w"}}},
			},
			statuses: "SUCCESS SUCCESS",
			log:      "Step #1: more\n",
		},
		"a volume in the workspace": {
			steps: []builds.Step{
				{Script: "echo in > cache/f", Volumes: []builds.Volume{{Name: "vol", Path: "/workspace/cache"}}},
				{Script: "ls cache; cat /c/f", Volumes: []builds.Volume{{Name: "vol", Path: "/c"}}},
			},
			statuses: "SUCCESS SUCCESS",
			log:      "Step #1: in\n",
		},
		"own time": {
			steps:    []builds.Step{{Script: "sleep 600", Timeout: 300 * time.Millisecond}},
			code:     fault.DeadlineExceeded,
			err:      "timed out",
			statuses: "TIMEOUT",
		},
		"no such image": {
			steps:    []builds.Step{{Name: "ubuntu"}},
			code:     fault.FailedPrecondition,
			err:      `build step 0 "ubuntu" failed: the image ubuntu is not here`,
			statuses: "FAILURE",
		},
		"no such program": {
			steps:    []builds.Step{{Entrypoint: "nothing"}},
			code:     fault.FailedPrecondition,
			err:      "failed to load nothing",
			statuses: "FAILURE",
		},
		"own image by digest": {
			steps:    []builds.Step{{Name: host + "@sha256:" + strings.Repeat("0", 64)}},
			code:     fault.FailedPrecondition,
			err:      "Giggle's own",
			statuses: "FAILURE",
		},
		"memory": {
			steps:    []builds.Step{{Entrypoint: "python3", Args: []string{"-c", "x = b'x' * (1 << 30)"}}},
			code:     fault.FailedPrecondition,
			err:      "ran out of its memory of 512 MiB",
			statuses: "FAILURE",
		},
		"fork bomb": {
			steps: []builds.Step{{
				Script: "for i in $(seq 1000); do sleep 600 & done 2>/dev/null || echo contained; exit 5",
			}},
			code:     fault.FailedPrecondition,
			err:      "non-zero status",
			statuses: "FAILURE",
		},
		"no way to the machine": {
			steps: []builds.Step{{
				Script: "test ! -e /work && test -z $(ls /home) && ! touch /google-cloud-sdk/x && echo closed",
			}},
			statuses: "SUCCESS",
			log:      "\nclosed\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, nil)
			err := f.run(t.Context(), nil, tt.steps...)
			if tt.err == "" && err != nil ||
				tt.err != "" &&
					(err == nil || !strings.Contains(fault.From(err).Message, tt.err) ||
						fault.From(err).Code != tt.code) {
				t.Errorf("err = %v, want %q", err, tt.err)
			}
			if got := f.statuses(); got != tt.statuses {
				t.Errorf("the steps ended as %q, want %q", got, tt.statuses)
			}
			if !strings.Contains(f.log.String(), tt.log) || strings.Contains(f.log.String(), "never") {
				t.Errorf("the log is\n%s\nwant %q in it", f.log.String(), tt.log)
			}
		})
	}
}

// Cancelling kills at once, whatever the step does with signals.
func TestCancel(t *testing.T) {
	f := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var at time.Time
	f.wrote = func(log string) {
		if strings.Contains(log, "\nup\n") && at.IsZero() {
			at = time.Now()
			cancel()
		}
	}
	err := f.run(ctx, nil, builds.Step{Script: "trap '' TERM INT; echo up; while true; do sleep 1; done"})
	if err == nil || at.IsZero() || time.Since(at) > 3*time.Second {
		t.Errorf("ended %s after the cancellation: %v\n%s", time.Since(at), err, f.log.String())
	}
	if f.statuses() != "CANCELLED" {
		t.Errorf("status %s", f.statuses())
	}
}

// maker is what is built in, in these tests.
type maker func(ctx context.Context, b builds.Build, step builds.Step, source io.Reader, log io.Writer) (string, error)

func (m maker) BuildSource(
	ctx context.Context, b builds.Build, step builds.Step, source io.ReadSeeker, _ int64, log io.Writer,
) (string, error) {
	return m(ctx, b, step, source, log)
}

// What is built in runs as a step: with its log, its status and its image, and no container. It says itself what
// failed.
func TestBuiltIn(t *testing.T) {
	full := fault.DiskFull(nil)
	for name, tt := range map[string]struct {
		err    error
		admit  error // why the disk takes nothing more
		code   fault.Code
		text   string
		status builds.Status
	}{
		"made": {status: builds.Success},
		"failed": {
			err:    fault.New(fault.FailedPrecondition, "go build failed"),
			code:   fault.FailedPrecondition,
			text:   "go build failed",
			status: builds.Failure,
		},
		"ours": {
			err:    io.ErrUnexpectedEOF,
			code:   fault.Internal,
			text:   "Internal error encountered.",
			status: builds.InternalError,
		},
		"disk": {admit: full, code: fault.ResourceExhausted, text: full.Message},
		"of another's time": {
			err:    context.DeadlineExceeded,
			code:   fault.Internal,
			text:   "Internal error encountered.",
			status: builds.InternalError,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(cfg *steps.Config) {
				cfg.Admit = func(int64) error { return tt.admit }
				cfg.BuiltIn = map[builds.Builtin]steps.SourceBuilder{
					builds.Buildpack: maker(func(_ context.Context, _ builds.Build, step builds.Step, source io.Reader, log io.Writer) (string, error) {
						text, err := io.ReadAll(source)
						_, _ = fmt.Fprintf(log, "of %s by %v\nno end", text, step.Variables())
						return "sha256:made", cmp.Or(err, tt.err)
					}),
				}
			})
			b := builds.Build{
				Name: resource.Build("giggle", "global", f.id()),
				Spec: builds.ImageOf(builds.Buildpack, "h/app", map[string]string{"A": "b"}),
			}
			w, err := f.runner.Open(t.Context(), b, strings.NewReader("source"), 6)
			if err == nil {
				f.status = make([]builds.StepStatus, 1)
				err = w.Run(t.Context(), f, func(i int, s builds.StepStatus) { f.status[i] = s })
				if got := f.log.String(); got != "of source by map[A:b]\nno end\n" {
					t.Errorf("the log is %q", got)
				}
				if got := f.status[0]; got.Status != tt.status || got.Started.IsZero() ||
					got.Finished.Before(got.Started) {
					t.Errorf("the step is %+v", got)
				}
				digest, err := w.Image(t.Context(), "h/app")
				if made := tt.status == builds.Success; made && digest != "sha256:made" ||
					!made && !fault.Is(err, fault.NotFound) {
					t.Errorf("the image is %q, %v", digest, err)
				}
				if _, err := f.runner.OpenShell(b.Name.ID, ""); !fault.Is(err, fault.NotFound) {
					t.Errorf("a shell where no container was: %v", err)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
			if (err != nil) != (tt.code != 0) ||
				err != nil && (fault.CodeOf(err) != tt.code || fault.From(err).Message != tt.text) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// A line of 100 MB neither fills the memory nor stops the build.
func TestLongLine(t *testing.T) {
	f := setup(t, nil)
	var before, after runtime.MemStats
	out := &counter{}
	b := builds.Build{
		Name: resource.Build("giggle", "global", "long"),
		Spec: builds.Spec{
			Steps: []builds.Step{{Name: host, Script: "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end"}},
		},
	}
	w, err := f.runner.Open(t.Context(), b, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&before)
	if err := w.Run(t.Context(), out, func(int, builds.StepStatus) {}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if out.bytes < 1<<20 || !strings.HasSuffix(out.last, "end\n") || after.Sys > before.Sys+128<<20 {
		t.Errorf("%d bytes logged, ends with %.40q, memory grew by %d MiB", out.bytes, out.last,
			(after.Sys-before.Sys)>>20)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

type counter struct {
	bytes int64
	last  string
}

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	c.last = string(p[max(0, len(p)-100):])
	return len(p), nil
}

func TestDisk(t *testing.T) {
	f := setup(t, func(c *steps.Config) { c.Disk = 32 << 20 })
	err := f.run(t.Context(), nil, builds.Step{Script: "head -c 200000000 /dev/zero > big; sleep 600"})
	if err == nil || !strings.Contains(fault.From(err).Message, "uses more than 32 MiB of disk") {
		t.Errorf("err = %v", err)
	}
}

// What a step leaves is read with care: no link leads out, no pipe blocks.
func TestFiles(t *testing.T) {
	f := setup(t, nil)
	err := f.run(t.Context(), func(w builds.Workspace) {
		for pattern, want := range map[string]string{"*.txt": "a.txt=a", "d/**": "d/e/f=f", "d/*/f": "d/e/f=f",
			"out/*": "", "nothing": ""} {
			var got []string
			err := w.Files(t.Context(), pattern, func(name string, _ int64, r io.Reader) error {
				text, err := io.ReadAll(r)
				got = append(got, name+"="+strings.TrimSpace(string(text)))
				return err
			})
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s: %q, %v; want %q", pattern, got, err, want)
			}
		}
		if _, err := w.Image(t.Context(), "x"); !fault.Is(err, fault.NotFound) {
			t.Errorf("Image: %v", err)
		}
	}, builds.Step{
		Script: "echo a > a.txt; ln -s /etc/hostname b.txt; mkfifo c.txt; mkdir -p d/e; echo f > d/e/f; ln -s /etc out; ln -s ../../../etc/passwd e.txt",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// program is a Program that makes an image of each step that has arguments.
type program struct{ ran []string }

func (p *program) Run(
	_ context.Context, _ builds.Build, step builds.Step, log io.Writer,
) (names []string, digest string, err error) {
	p.ran = append(p.ran, strings.Join(step.Args, " "))
	if len(step.Args) == 0 {
		return nil, "", nil
	}
	if step.Args[0] == "fail" {
		return nil, "", fault.New(fault.InvalidArgument, "no such flag")
	}
	_, err = io.WriteString(log, "half a line")
	return step.Args, "sha256:made", err
}

// A program stands in place of a container by the name of its image, whatever the tag; what it makes is the build's.
func TestPrograms(t *testing.T) {
	p := &program{}
	f := setup(t, func(cfg *steps.Config) { cfg.Programs = map[string]steps.Program{"a.test/pack": p} })
	look := func(w builds.Workspace) {
		if digest, err := w.Image(t.Context(), "b.test/app:2"); digest != "sha256:made" || err != nil {
			t.Errorf("%q, %v", digest, err)
		}
		if _, err := w.Image(t.Context(), "b.test/other"); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
	err := f.run(t.Context(), look, builds.Step{Name: "a.test/pack"},
		builds.Step{Name: "a.test/pack:0.36", Args: []string{"b.test/app", "b.test/app:2"}})
	if err != nil || f.statuses() != "SUCCESS SUCCESS" || !slices.Equal(p.ran, []string{"", "b.test/app b.test/app:2"}) {
		t.Errorf("%v, %s: ran %q", err, f.statuses(), p.ran)
	}
	if !strings.Contains(f.log.String(), "Step #1: half a line\nFinished Step #1") {
		t.Errorf("the log is\n%s", &f.log)
	}
	for want, step := range map[string]builds.Step{
		"no such flag":     {Name: "a.test/pack", Args: []string{"fail"}},
		"Leave the digest": {Name: "a.test/pack@sha256:" + strings.Repeat("0", 64)},
	} {
		if err := f.run(t.Context(), nil, step); err == nil || !strings.Contains(err.Error(), want) ||
			f.statuses() != "FAILURE" {
			t.Errorf("%v, %s; want %q", err, f.statuses(), want)
		}
	}
}

// What a step writes to $BUILDER_OUTPUT/output is kept, up to a limit; no link leads out.
func TestOutputs(t *testing.T) {
	f := setup(t, nil)
	err := f.run(t.Context(), nil,
		builds.Step{Script: "echo hello > $BUILDER_OUTPUT/output"},
		builds.Step{Script: "true"},
		builds.Step{Script: "head -c 100000 /dev/zero > /builder/outputs/output"},
		builds.Step{Script: "ln -s /etc/hostname $BUILDER_OUTPUT/output"},
		builds.Step{Script: "mkfifo $BUILDER_OUTPUT/output"},
		builds.Step{Script: "ls $BUILDER_OUTPUT; echo failed > $BUILDER_OUTPUT/output; exit 1"},
	)
	if err == nil || strings.Contains(f.log.String(), "Step #5: output") {
		t.Errorf("%v\n%s", err, &f.log)
	}
	for i, want := range []string{"hello\n", "", strings.Repeat("\x00", 50<<10), "", "", "failed\n"} {
		if got := string(f.status[i].Output); got != want {
			t.Errorf("step %d left %d bytes, %.20q", i, len(got), got)
		}
	}
}

// Every step has the build's socket of Docker, and credentials for the platform's registries that are made anew.
func TestDockerOfSteps(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := setup(t, func(cfg *steps.Config) {
		cfg.Docker = func(builds.Build) (string, error) { return socket, nil }
		cfg.Token = func(context.Context, builds.Build) (string, error) { return "secret", nil }
		cfg.Hosts = []string{"gcr.io", "europe-north1-docker.pkg.dev"}
	})
	err = f.run(t.Context(), nil,
		builds.Step{Script: "test -S /var/run/docker.sock && cat /builder/home/.docker/config.json"},
		builds.Step{Script: "echo '{}' > ~/.docker/config.json && cat ~/.docker/config.json"},
	)
	auth := base64.StdEncoding.EncodeToString([]byte("oauth2accesstoken:secret"))
	for _, want := range []string{`"https://gcr.io": {`, `"https://europe-north1-docker.pkg.dev": {`, `"auth": "` + auth + `"`,
		"Step #1: {}\n"} {
		if err != nil || !strings.Contains(f.log.String(), want) {
			t.Errorf("%v: no %s in\n%s", err, want, &f.log)
		}
	}
}

// The directory of a repository's trigger is where its steps run; an absolute one of a step is where it says.
func TestDirectories(t *testing.T) {
	for dir, want := range map[string]string{"": "/workspace/sub", "d": "/workspace/sub/d", "/workspace": "/workspace"} {
		f := setup(t, nil)
		b := builds.Build{
			Name:   resource.Build("giggle", "global", f.id()),
			Source: builds.Source{Repo: &builds.Repo{Name: "r", Dir: "sub"}},
			Spec:   builds.Spec{Steps: []builds.Step{{Name: host, Dir: dir, Script: "pwd"}}},
		}
		w, err := f.runner.Open(t.Context(), b, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Run(t.Context(), f, func(int, builds.StepStatus) {}); err != nil {
			t.Error(err)
		}
		if !strings.Contains(f.log.String(), "\n"+want+"\n") {
			t.Errorf("%q runs in %s, want %s", dir, &f.log, want)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
