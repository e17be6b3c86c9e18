package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/builds"
	"giggle/builds/dockerfile"
	"giggle/builds/dockerfile/runtime"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
)

// The tests build with the real BuildKit and the real mirror: `make images` makes both.
var (
	mirrorDir = cmp.Or(os.Getenv("GIGGLE_MIRROR"), "/var/cache/giggle/mirror")
	programs  = []string{filepath.Join(filepath.Dir(mirrorDir), "tools"), "/usr/local/sbin", "/usr/local/bin",
		"/usr/sbin", "/usr/bin"}
	shared   *engine.Engine
	builder  *dockerfile.Builder
	blobs    *blob.Dir
	binary   string // of the tests
	platform *httptest.Server
)

func TestMain(m *testing.M) {
	if engine.IsDaemonInit(os.Args) { // the engine has started the tests' program
		fmt.Fprintln(os.Stderr, engine.DaemonInit(os.Args, os.Environ()))
		os.Exit(1)
	}
	if filepath.Base(os.Args[0]) == runtime.Name { // BuildKit has
		fmt.Fprintln(os.Stderr, runtime.Run(os.Args, os.Environ()))
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dockerfile-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = open(dir)
	}
	if err != nil {
		fmt.Println("these tests need root, an OCI runtime and `make images`:", err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(builder.Close(), shared.Close()); err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

func open(dir string) (err error) {
	if shared, err = engine.Open(context.Background(),
		engine.Config{Dir: filepath.Join(dir, "engine"), Log: slog.Default()}); err != nil {
		return err
	}
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		return err
	}
	if blobs, err = blob.Open(filepath.Join(dir, "blobs")); err != nil {
		return err
	}
	if binary, err = os.Executable(); err != nil {
		return err
	}
	platform = registry()
	builder, err = dockerfile.New(config(filepath.Join(dir, "buildkit"), m))
	return err
}

func config(dir string, m *mirror.Mirror) dockerfile.Config {
	puller, err := mirror.NewPuller(mirror.PullerConfig{Mirror: m, Now: time.Now, Log: slog.Default()})
	if err != nil {
		panic(err)
	}
	cfg := dockerfile.Config{
		Engine:   shared,
		Foreign:  puller,
		Familiar: mirror.Familiar,
		Blobs:    blobs,
		Dir:      dir,
		Path:     programs,
		Binary:   binary,
		TrustEnv: []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"},
		Files:    []engine.File{{Path: "/etc/resolv.conf", Data: []byte("nameserver 169.254.169.254\n")}},
		Others:   http.HandlerFunc(dockerfile.NoIdentity),
		Online:   shared.Online,
		Cache:    5 << 30,
		Log:      slog.Default(),
		All:      engine.Limits{Memory: 5 << 30, Pids: 2048},
		Project:  engine.Limits{Memory: 4 << 30, Pids: 768},
		Steps:    engine.Limits{Memory: 3 << 30, Pids: 600},
		Step:     engine.Limits{Memory: 2 << 30, Pids: 512},
	}
	withRegistry(&cfg, platform)
	return cfg
}

var job = builds.Build{Name: resource.Build("giggle", "global", "b"), Project: "giggle"}

// files writes a build context.
func files(t *testing.T, in map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range in {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func try(t *testing.T, r dockerfile.Request) (img dockerfile.Image, log string, err error) {
	t.Helper()
	r.Build = job
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // an emulated machine needs five
	defer cancel()
	img, err = builder.Build(ctx, r, &out)
	return img, out.String(), err
}

// content reads a file of an image.
func content(t *testing.T, img dockerfile.Image, name string) (string, oci.Image) {
	t.Helper()
	images, err := oci.New(t.TempDir(), blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	got, err := images.Unpack(t.Context(), img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(got.Layers) - 1; i >= 0; i-- {
		if b, err := os.ReadFile(filepath.Join(got.Layers[i], name)); err == nil {
			return string(b), got
		}
	}
	t.Fatalf("the image has no %s", name)
	return "", got
}

// layers shows the entries of an image's own layers.
func layers(t *testing.T, img dockerfile.Image, show func(*tar.Header)) {
	t.Helper()
	read := func(digest string) io.ReadCloser {
		f, _, err := blobs.Open(t.Context(), blob.Digest(digest))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var m struct{ Layers []struct{ Digest string } }
	f := read(img.Digest)
	if err := errors.Join(json.NewDecoder(f).Decode(&m), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		f := read(l.Digest)
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		entries := tar.NewReader(z)
		for {
			h, err := entries.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			show(h)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMultiStage(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": `# syntax=docker/dockerfile:1
FROM debian:12 AS builder
ARG WHO=nobody
RUN echo "hello $WHO" >/out && id -u >>/out
COPY in.txt /in.txt
RUN cat /in.txt >>/out
FROM gcr.io/distroless/static-debian11
COPY --from=builder /out /out
CMD ["/out"]
`, "in.txt": "of the context\n"})
	img, log, err := try(t, dockerfile.Request{
		Context: dir,
		Args:    map[string]string{"WHO": "world"},
		Labels:  map[string]string{"a": "b"},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	text, got := content(t, img, "out")
	if text != "hello world\n0\nof the context\n" {
		t.Errorf("the image holds %q", text)
	}
	if got.Config.Labels["a"] != "b" || strings.Join(got.Config.Cmd, " ") != "/out" {
		t.Errorf("config = %+v", got.Config)
	}
	if !strings.Contains(log, "# syntax=docker/dockerfile:1 is ignored") {
		t.Errorf("the log does not say that the syntax line is ignored:\n%s", log)
	}
	again, log, err := try(t, dockerfile.Request{
		Context: dir,
		Args:    map[string]string{"WHO": "world"},
		Labels:  map[string]string{"a": "b"},
	})
	if err != nil || again.Digest != img.Digest || !strings.Contains(log, "CACHED") {
		t.Errorf("a second build: %+v, %v, want %+v from the cache\n%s", again, err, img, log)
	}
	// the base is no step
	if _, log, err = try(t, dockerfile.Request{Context: dir, NoCache: true, Target: "builder"}); err != nil ||
		strings.Count(log, "CACHED") > 1 {
		t.Errorf("without cache: %v\n%s", err, log)
	}
}

// RUN steps trust the platform, and nothing of that is left in the image or changes what a step is in the cache.
func TestStepsTrustThePlatform(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": `FROM debian:12
ENV REQUESTS_CA_BUNDLE /mine
RUN cat $SSL_CERT_FILE >/seen && echo $REQUESTS_CA_BUNDLE >>/seen && ! echo x >>$SSL_CERT_FILE && test $(ls -A /dev | grep -c giggle-trust) = 1
`})
	img, log, err := try(t, dockerfile.Request{Context: dir})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	text, got := content(t, img, "seen")
	if text != string(trust())+"/mine\n" {
		t.Errorf("a step saw %q", text)
	}
	if strings.Contains(strings.Join(got.Config.Env, " "), "SSL_CERT_FILE") {
		t.Errorf("the image has %v", got.Config.Env)
	}
	for _, layer := range got.Layers {
		if _, err := os.Stat(filepath.Join(layer, "dev", "giggle-trust.pem")); !os.IsNotExist(err) {
			t.Errorf("a layer holds the place of the certificates: %v", err)
		}
	}
	again, log, err := try(t, dockerfile.Request{Context: dir})
	if err != nil || again.Digest != img.Digest || !strings.Contains(log, "CACHED") {
		t.Errorf("a second build: %+v, %v, want %+v from the cache\n%s", again, err, img, log)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a command", "FROM debian:12\nRUN echo so >&2; exit 3", "exit code: 3"},
		{"a base that is not here", "FROM nobody/has:this", "giggle images add nobody/has:this"},
		{"a digest that is not here", "FROM debian@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "giggle images add debian@sha256:e3b0c442"},
		{"a registry that nobody knows", "FROM example.com/x/y:1", "giggle images add example.com/x/y:1"},
		{"no such instruction", "FRON debian", "unknown instruction: FRON"},
		{"a file outside", "FROM debian:12\nCOPY ../../../../etc/hostname /x", "not found"},
		{"a link to the host", "FROM debian:12\nCOPY link/hostname /x", "not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := files(t, map[string]string{"Dockerfile": c.text})
			if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			_, log, err := try(t, dockerfile.Request{Context: dir})
			if err == nil || fault.From(err).Code != fault.FailedPrecondition ||
				!strings.Contains(fault.From(err).Message, c.want) {
				t.Errorf("got %v, want a FailedPrecondition with %q\n%s", err, c.want, log)
			}
		})
	}
	if _, _, err := try(t, dockerfile.Request{Context: t.TempDir()}); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("no Dockerfile: %v", err)
	}
	if _, _, err := try(t, dockerfile.Request{Context: t.TempDir(), Dockerfile: "../x"}); !fault.Is(err,
		fault.InvalidArgument) {
		t.Errorf("a Dockerfile outside: %v", err)
	}
}
