package buildpack_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/builds"
	"giggle/builds/buildpack"
	"giggle/builds/modproxy"
	"giggle/builds/npmproxy"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
)

// The containers of all tests run in one engine: opening one takes longer than most tests.
var shared *engine.Engine

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "buildpack-test-")
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

// fixture is a builder with a directory, blobs and a module cache of its own.
type fixture struct {
	t       *testing.T
	dir     string
	images  *oci.Images
	builder *buildpack.Builder
}

func setup(t *testing.T, upstream string) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	goLayer(t) // or say what is missing
	blobs, err := blob.Open(filepath.Join(f.dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	if f.images, err = oci.New(filepath.Join(f.dir, "layers"), blobs, oci.Limits{}); err != nil {
		t.Fatal(err)
	}
	f.images.Borrow(foreignImages(t).Layers())
	t.Cleanup(func() {
		if err := f.images.Close(); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	modules, err := modproxy.New(modproxy.Config{
		Dir:      filepath.Join(f.dir, "modules"),
		Upstream: func() string { return upstream },
		Now:      time.Now,
		Log:      log,
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := npmRegistry(t)
	packages, err := npmproxy.New(npmproxy.Config{
		Dir:      filepath.Join(f.dir, "npm"),
		Upstream: func() string { return registry },
		Now:      time.Now,
		Log:      log,
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	f.builder, err = buildpack.New(buildpack.Config{
		Engine:      shared,
		Images:      f.images,
		Blobs:       blobs,
		Mirror:      foreignImages(t),
		Dir:         filepath.Join(f.dir, "build"),
		SystemTrust: []byte("certificates\n"),
		SumDB:       modules.SumDB,
		Log:         log,
		NewID:       func() string { n++; return fmt.Sprint(t.Name(), n) },
		Sockets: func(builds.Build) engine.Sockets {
			return engine.Sockets{Metadata: func(l net.Listener) {
				proxies := http.NewServeMux()
				proxies.Handle("/goproxy/", http.StripPrefix("/goproxy", modules))
				proxies.Handle("/npm/", http.StripPrefix("/npm", packages))
				s := &http.Server{Handler: proxies, ReadHeaderTimeout: time.Second}
				_ = s.Serve(l) // until the container ends
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// foreignImages is the machine's mirror.
func foreignImages(t *testing.T) *mirror.Mirror {
	t.Helper()
	dir := os.Getenv("GIGGLE_MIRROR")
	if dir == "" {
		dir = "/var/cache/giggle/mirror"
	}
	m, err := mirror.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// files are a source by path. A name that ends in * is executable.
type files map[string]string

func (fs files) zip(at time.Time) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range fs {
		h := &zip.FileHeader{Name: strings.TrimSuffix(name, "*"), Method: zip.Store, Modified: at}
		h.SetMode(0o644)
		if strings.HasSuffix(name, "*") {
			h.SetMode(0o755)
		}
		w, _ := z.CreateHeader(h)
		w.Write([]byte(text))
	}
	z.Close()
	return b.Bytes()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// build builds a source and returns the image's digest and the log.
func (f *fixture) build(src files, env map[string]string) (digest, log string, err error) {
	f.t.Helper()
	return f.buildAt(f.t.Context(), src.zip(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), env)
}

func (f *fixture) buildAt(ctx context.Context, archive []byte, env map[string]string) (digest, log string, err error) {
	f.t.Helper()
	var out syncBuffer
	job := builds.Build{Name: resource.Build("p1", "europe-north1", "b1"), Project: "p1"}
	begin := time.Now()
	digest, err = f.builder.BuildSource(ctx, job, builds.ImageOf(builds.Buildpack, "app", env).Steps[0],
		bytes.NewReader(archive), int64(len(archive)), &out)
	f.t.Logf("%v after %v; log:\n%s", err, time.Since(begin).Round(time.Millisecond), out.String())
	left, e := os.ReadDir(filepath.Join(f.dir, "build", "work"))
	if e != nil || len(left) != 0 {
		f.t.Errorf("the work directory holds %v, %v after the build", left, e)
	}
	return digest, out.String(), err
}

func (f *fixture) mustBuild(src files, env map[string]string) (digest, log string) {
	f.t.Helper()
	digest, log, err := f.build(src, env)
	if err != nil {
		f.t.Fatal(err)
	}
	return digest, log
}

// answer runs an image as a service and returns what it answers.
func (f *fixture) answer(digest string) string {
	f.t.Helper()
	img, err := f.images.Unpack(f.t.Context(), digest)
	if err != nil {
		f.t.Fatal(err)
	}
	i, err := shared.Prepare(f.t.Context(), engine.Spec{
		ID:     f.t.Name() + digest,
		Layers: img.Layers,
		Args:   append(img.Config.Entrypoint, img.Config.Cmd...),
		Env:    append(img.Config.Env, "PORT=8080"),
		Dir:    img.Config.WorkingDir,
		User:   img.Config.User,
		Memory: 128 << 20,
		Output: func(l engine.Line) { f.t.Log(l.Text) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	defer i.Stop(context.Background(), 0)
	if err := i.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			if c, err := i.Dial(ctx, 8080); err == nil {
				return c, nil
			}
			select {
			case <-time.After(time.Millisecond): // the look's own interval; the condition is the dial
			case <-i.Done():
				return nil, fmt.Errorf("the program ended: %+v", i.Exit())
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := c.Get("http://app/")
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(res.Body)
	return b.String()
}

// server is a program that answers with an expression of Go.
func server(expression string, imports ...string) string {
	return "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\t\"os\"\n" + strings.Join(imports, "\n") +
		"\n)\n\nfunc main() {\n" +
		"\thttp.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, " + expression +
		") })\n" +
		"\tif err := http.ListenAndServe(\":\"+os.Getenv(\"PORT\"), nil); err != nil {\n\t\tpanic(err)\n\t}\n}\n"
}

const module = "module m.test/app\n\ngo 1.26\n"

// A new platform's first build must use the standard library that the builder image has compiled.
func TestHelloWorld(t *testing.T) {
	f := setup(t, "")
	digest, log := f.mustBuild(files{"go.mod": module, "main.go": server(`"hello ", os.Getuid(), " ", func() string { d, _ := os.Getwd(); return d }()`)}, nil)
	if got := f.answer(digest); got != "hello 65532 /workspace" {
		t.Errorf("answers %q", got)
	}
	for _, want := range []string{"=== Go (giggle.buildpacks.go) ===", "Using go1.", "Compiled . in "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	var seeded, made int64 // bytes
	marker, err := os.Stat(seedMark(t, f))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(filepath.Dir(seedMark(t, f)), "go-build"),
		func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := d.Info()
			switch {
			case err != nil:
			case !strings.HasSuffix(p, "-d"): // an index entry is written again when it is used
			case st.ModTime().After(marker.ModTime()):
				made += st.Size()
			default:
				seeded += st.Size()
			}
			return err
		})
	// What is new is the program's package, and an index of the toolchain's sources: net/http alone would be far more.
	t.Logf("%d kB were in the cache, %d kB are new", seeded>>10, made>>10)
	if err != nil || seeded < 50<<20 || made > 4<<20 {
		t.Errorf("%d bytes were in the cache, %d were compiled: the builder's standard library was not used (%v)",
			seeded, made, err)
	}
	img, err := f.images.Inspect(t.Context(), digest)
	if err != nil || img.Config.Config.User != "65532:65532" || len(img.Layers) != 3 {
		t.Errorf("image = %+v, %v", img, err)
	}
}

func seedMark(t *testing.T, f *fixture) string {
	t.Helper()
	marks, err := filepath.Glob(filepath.Join(f.dir, "build/cache/p1/go1.*/seeded"))
	if err != nil || len(marks) != 1 {
		t.Fatalf("marks = %v, %v", marks, err)
	}
	return marks[0]
}

func TestSources(t *testing.T) {
	f := setup(t, "")
	two := files{"go.mod": module, "cmd/a/main.go": server(`"a"`), "cmd/b/main.go": server(`"b"`)}
	for name, tc := range map[string]struct {
		src  files
		env  map[string]string
		want string
	}{
		"no module": {
			src:  files{"main.go": server(`func() (n int) { for i := range 3 { n += i }; return }()`)},
			want: "3",
		},
		"vendor": {src: files{
			"go.mod": module + "\nrequire v.test/greet v1.0.0\n", "main.go": server(`greet.Hello`, `"v.test/greet"`),
			"vendor/modules.txt":           "# v.test/greet v1.0.0\n## explicit; go 1.26\nv.test/greet\n",
			"vendor/v.test/greet/greet.go": "package greet\n\nconst Hello = \"vendored\"\n",
		}, want: "vendored"},
		"cmd/b":        {src: two, env: map[string]string{"GOOGLE_BUILDABLE": "./cmd/b"}, want: "b"},
		"only command": {src: files{"go.mod": module, "cmd/a/main.go": server(`"only"`)}, want: "only"},
		"flags": {
			src:  files{"go.mod": module, "main.go": server("version + tag"), "v.go": "package main\n\nvar version = \"none\"\n", "a.go": "//go:build prod\n\npackage main\n\nconst tag = \" prod\"\n"},
			env:  map[string]string{"GOOGLE_GOLDFLAGS": "-X main.version=v7", "GOFLAGS": "-tags=prod"},
			want: "v7 prod",
		},
		"a tool beside": {
			src: files{"go.mod": module, "cmd/server/main.go": server(`"server"`), "tools/go.mod": "module m.test/tools\n",
				"tools/gen/main.go": "package main\n", "magefile.go": "//go:build mage\n\npackage main\n",
				"cmd/tray/tray_windows.go": "package main\n"},
			want: "server",
		},
		"an import path": {src: two, env: map[string]string{"GOOGLE_BUILDABLE": "m.test/app/cmd/b"}, want: "b"},
		"C in a library": {
			src: files{"go.mod": module, "cmd/a/main.go": server(`lib.Two()`, `"m.test/app/lib"`),
				"lib/lib.go": "package lib\n\n// static int two() { return 2; }\nimport \"C\"\n\nfunc Two() int { return int(C.two()) }\n"},
			want: "2",
		},
		"C that nobody asks for": {
			src: files{"go.mod": module, "main.go": server(`text`), "c.go": "package main\n\nimport \"C\"\n\nconst text = \"with C\"\n",
				"go.go": "//go:build !cgo\n\npackage main\n\nconst text = \"without\"\n"},
			env:  map[string]string{"CGO_ENABLED": "0"},
			want: "without",
		},
		"files beside": {
			src: files{
				"go.mod": module, "main.go": server(`func() string { b, err := os.ReadFile("data/x.txt"); return fmt.Sprint(string(b), err) }()`), "data/x.txt": "data",
			},
			want: "data<nil>",
		},
		"trust and zones": {
			src: files{
				"go.mod":  module,
				"main.go": server(`func() string { b, _ := os.ReadFile("/etc/ssl/certs/ca-certificates.crt"); l, err := time.LoadLocation("Europe/Helsinki"); return fmt.Sprint(string(b), l, err) }()`, `"time"`),
			},
			want: "certificates\nEurope/Helsinki <nil>",
		},
		"workspace": {
			src: files{
				"go.work": "go 1.26\n\nuse (\n\t.\n\t./lib\n)\n", "go.mod": module, "main.go": server("lib.Name",
					`"m.test/lib"`),
				"lib/go.mod": "module m.test/lib\n\ngo 1.26\n", "lib/lib.go": "package lib\n\nconst Name = \"lib\"\n",
			},
			want: "lib",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{t: t, dir: f.dir, images: f.images, builder: f.builder}
			digest, _ := f.mustBuild(tc.src, tc.env)
			if got := f.answer(digest); got != tc.want {
				t.Errorf("answers %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	f := setup(t, "")
	hello := server(`"x"`)
	for name, tc := range map[string]struct {
		src  files
		env  map[string]string
		code fault.Code
		want []string
	}{
		"compile error": {files{"go.mod": module, "main.go": "package main\n\nfunc main() {\n\tundefined()\n}\n"}, nil, fault.FailedPrecondition, []string{"main.go:4:2: undefined: undefined", "exit status 1"}},
		"several":       {files{"go.mod": module, "cmd/a/main.go": hello, "cmd/b/main.go": hello}, nil, fault.InvalidArgument, []string{"cmd/a, cmd/b", "GOOGLE_BUILDABLE=./cmd/a"}},
		"buildable":     {files{"go.mod": module, "main.go": hello}, map[string]string{"GOOGLE_BUILDABLE": "./cmd/x"}, fault.InvalidArgument, []string{"./cmd/x", "not in the source"}},
		"library":       {files{"go.mod": module, "lib.go": "package lib\n"}, nil, fault.InvalidArgument, []string{"No package main"}},
		"newer Go":      {files{"go.mod": "module m.test/app\n\ngo 1.99\n", "main.go": hello}, nil, fault.FailedPrecondition, []string{"go >= 1.99", "lower the go line"}},
		"missing go.sum": {files{"go.mod": module + "\nrequire x.test/y v1.0.0\n", "main.go": server("y.Y",
			`"x.test/y"`)}, nil, fault.FailedPrecondition, []string{"go mod tidy"}},
		"no network": {files{"go.mod": module +
			"\nrequire x.test/y v1.0.0\n", "go.sum": sums("x.test/y"), "main.go": server("y.Y", `"x.test/y"`)}, nil,
			fault.FailedPrecondition, []string{"no module proxy to ask"}},
		"Java": {files{"pom.xml": "<project/>"}, nil, fault.Unimplemented, []string{"Java",
			"--image"}},
		"Node.js without a program": {files{"package.json": "{}"}, nil, fault.InvalidArgument, []string{"\"start\" to package.json", "GOOGLE_ENTRYPOINT"}},
		"Python without a program": {files{"lib.py": ""}, nil, fault.InvalidArgument, []string{"main.py",
			"GOOGLE_ENTRYPOINT"}},
		"nothing":                  {files{"README": "x"}, nil, fault.InvalidArgument, []string{"No buildpack fits"}},
		"function":                 {files{"go.mod": module, "main.go": hello}, map[string]string{"GOOGLE_FUNCTION_TARGET": "x"}, fault.Unimplemented, []string{"GOOGLE_FUNCTION_TARGET"}},
		"leads out":                {files{"../main.go": hello}, nil, fault.InvalidArgument, []string{"leads out"}},
		"a tool that is not there": {files{"go.mod": module, "main.go": hello}, map[string]string{"GOFLAGS": "-toolexec=/workspace/none"}, fault.FailedPrecondition, []string{"/workspace/none"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{t: t, dir: f.dir, images: f.images, builder: f.builder}
			_, _, err := f.build(tc.src, tc.env)
			if !fault.Is(err, tc.code) {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			for _, want := range tc.want {
				if text := fault.From(err).Message; !strings.Contains(text, want) {
					t.Errorf("the message lacks %q: %s", want, text)
				}
			}
		})
	}
	if _, _, err := f.buildAt(t.Context(), []byte("not an archive"), nil); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("not an archive: %v", err)
	}
}

func sums(module string) string {
	return module + " v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" + module +
		" v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
}

// Two platforms make the same image of the same source, whatever its files' times are.
func TestReproducible(t *testing.T) {
	src := files{"go.mod": module, "main.go": server(`"same"`), "x/y.txt": "y", "run.sh*": "#!/bin/sh\n"}
	a, b := setup(t, ""), setup(t, "")
	first, _ := a.mustBuild(src, nil)
	second, _, err := b.buildAt(t.Context(), src.zip(time.Date(2030, 7, 7, 7, 7, 7, 0, time.UTC)), nil)
	if err != nil || second != first {
		t.Errorf("%s and %s, %v", first, second, err)
	}
	again, _ := a.mustBuild(src, nil)
	if again != first {
		t.Errorf("%s, then %s", first, again)
	}
	src["x/y.txt"] = "z"
	if other, _ := a.mustBuild(src, nil); other == first {
		t.Error("another source has the same digest")
	}
}

func TestCancelled(t *testing.T) {
	f := setup(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.buildAt(ctx, files{"go.mod": module, "main.go": server(`"x"`)}.zip(time.Now()),
		nil); !errors.Is(err, context.Canceled) && !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("got %v", err)
	}
}
