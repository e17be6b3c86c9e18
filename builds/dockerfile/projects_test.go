package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
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
	"giggle/engine"
	"giggle/fault"
	"giggle/resource"
)

// of is a build of a project.
func of(project string) builds.Build {
	return builds.Build{Name: resource.Build(project, "global", "b"), Project: project}
}

// another returns a builder of a test's own.
func another(t *testing.T, change func(*dockerfile.Config)) *dockerfile.Builder {
	t.Helper()
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t.TempDir(), m)
	if change != nil {
		change(&cfg)
	}
	b, err := dockerfile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// text builds a Dockerfile, and nothing else, for a project.
func text(t *testing.T, b *dockerfile.Builder, project, text string) (img dockerfile.Image, log string, err error) {
	t.Helper()
	return textIn(t.Context(), t, b, project, text)
}

func textIn(
	ctx context.Context, t *testing.T, b *dockerfile.Builder, project, text string,
) (img dockerfile.Image, log string, err error) {
	t.Helper()
	var out bytes.Buffer
	img, err = b.Build(ctx, dockerfile.Request{
		Build:   of(project),
		Context: files(t, map[string]string{"Dockerfile": text}),
	}, &out)
	return img, out.String(), err
}

// registry serves the platform's blobs to those who show the victim's token.
func registry() *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" { // BuildKit's client asks for it
			_, password, ok := r.BasicAuth()
			if !ok {
				password = r.FormValue("password")
			}
			fmt.Fprintf(w, `{"token":%q,"access_token":%q}`, password, password)
			return
		}
		if r.Header.Get("Authorization") != "Bearer token of victim" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://example.com/token",service="example.com"`)
			http.Error(w, "denied", http.StatusUnauthorized)
			return
		}
		digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		f, _, err := blobs.Open(r.Context(), blob.Digest(digest))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer f.Close()
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		w.Header().Set("Docker-Content-Digest", digest)
		http.ServeContent(w, r, "", time.Time{}, f)
	}))
	s.StartTLS()
	return s
}

// trust is the registry's certificate.
func trust() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: platform.Certificate().Raw})
}

// withRegistry puts a registry where builds find the platform.
func withRegistry(cfg *dockerfile.Config, s *httptest.Server) {
	cfg.Trust = trust()
	cfg.Hosts = []string{"example.com"} // what the test server has a certificate of
	cfg.Files = append(cfg.Files, engine.File{Path: "/etc/hosts", Data: []byte("169.254.169.254 example.com\n")})
	cfg.Token = func(_ context.Context, b builds.Build) (string, error) { return "token of " + b.Project, nil }
	cfg.Sockets.Edge = func(l net.Listener) {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}
}

// What one project's builds have pulled, made, cached and left behind is no other project's.
func TestProjectsShareNothing(t *testing.T) {
	b := builder
	begin := time.Now()
	secret, log, err := text(t, b, "victim", "FROM debian:12\nRUN echo the-secret >/secret\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Logf("the first project's first build: %v", time.Since(begin))
	base := "example.com/victim/r/base@" + secret.Digest
	const cache = "RUN --mount=type=cache,target=/c "
	if _, log, err = text(t, b, "victim",
		"FROM "+base+"\n"+cache+"echo of-the-victim >/c/entry && cat /secret\n"); err != nil ||
		!strings.Contains(log, "the-secret") {
		t.Fatalf("the victim can't use its own image: %v\n%s", err, log)
	}
	begin = time.Now()
	if _, log, err = text(t, b, "evil", "FROM debian:12\nRUN true\n"); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Logf("the second project's first build: %v", time.Since(begin))

	for name, dockerfile := range map[string]string{
		"the base by its digest": "FROM " + base + "\nRUN cat /secret\n",
		"a stage of it":          "FROM debian:12\nCOPY --from=" + base + " /secret /secret\nRUN cat /secret\n",
		"a mount of it": "FROM debian:12\nRUN --mount=type=bind,from=" + base +
			",target=/m cat /m/secret\n",
		"the mirror's name with it":   "FROM debian@" + secret.Digest + "\nRUN cat /secret\n",
		"the registry of this build":  "FROM 169.254.169.254/stage/x@" + secret.Digest + "\nRUN cat /secret\n",
		"the mirror by its address":   "FROM 169.254.169.254/mirror/x@" + secret.Digest + "\nRUN cat /secret\n",
		"another repository's digest": "FROM example.com/evil/r/base@" + secret.Digest + "\nRUN cat /secret\n",
	} {
		if _, log, err := text(t, b, "evil", dockerfile); err == nil || strings.Contains(log, "the-secret\n") {
			t.Errorf("another project's image is read as %s\n%s", name, log)
		}
	}

	if _, log, err = text(t, b, "evil", "FROM debian:12\nRUN echo the-secret >/secret\n"); err != nil ||
		strings.Contains(log, "[2/2] RUN echo the-secret >/secret\n#5 CACHED") {
		t.Errorf("a step of another project's is in the cache: %v\n%s", err, log)
	}
	for _, id := range []string{"", ",id=/c", ",id=x"} {
		for _, ns := range []string{"", "victim"} {
			arg := cache
			if id != "" {
				arg = "RUN --mount=type=cache,target=/c" + id + " "
			}
			var out bytes.Buffer
			_, err = b.Build(t.Context(), dockerfile.Request{
				Build: of("evil"),
				Args:  map[string]string{"BUILDKIT_CACHE_MOUNT_NS": ns},
				Context: files(t,
					map[string]string{"Dockerfile": "FROM debian:12\n" + arg +
						"test ! -e /c/entry; echo $? $(cat /c/entry) " + rand.Text() + "; echo poisoned >/c/poison\n"}),
			}, &out)
			if err != nil || strings.Contains(out.String(), "of-the-victim") {
				t.Errorf("another project's cache mount is read (%q, %q): %v\n%s", id, ns, err, &out)
			}
		}
	}
	if _, log, err = text(t, b, "victim",
		"FROM debian:12\n"+cache+"cat /c/entry && test ! -e /c/poison\n"); err != nil ||
		!strings.Contains(log, "of-the-victim") {
		t.Errorf("the victim's cache mount: %v\n%s", err, log)
	}
}

// One project's fork bomb, while it lasts, stops no other project's builds.
func TestForkBombOfAnother(t *testing.T) {
	b := builder
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bomb := files(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN perl -e '$| = 1; while (defined($p = fork)) { $p or sleep 600; $n++ } print \"full at $n\\n\"; sleep 600'\n"})
	full, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := b.Build(ctx, dockerfile.Request{Build: of("evil"), Context: bomb, NoCache: true},
			&watcher{for_: "full at 5", seen: full})
		ended <- err
	}()
	select {
	case <-full:
	case err := <-ended:
		t.Fatalf("the bomb ended: %v", err)
	case <-time.After(5 * time.Minute):
		t.Fatal("the bomb does not reach its limit")
	}
	for i := range 3 {
		if _, log, err := text(t, b, "victim",
			fmt.Sprintf("FROM debian:12\nRUN echo %d; for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait\n",
				i)); err != nil {
			t.Errorf("another project's build: %v\n%s", err, log)
		}
	}
	if _, log, err := text(t, b, "evil", "FROM scratch\nCOPY Dockerfile /\n"); err != nil {
		t.Errorf("BuildKit itself is held up by a step: %v\n%s", err, log)
	}
	cancel()
	<-ended
}

// watcher closes a channel when it is written a word.
type watcher struct {
	for_ string
	seen chan struct{}
	done bool
}

func (w *watcher) Write(p []byte) (int, error) {
	if !w.done && bytes.Contains(p, []byte(w.for_)) {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}

// No more daemons run at once than may: an idle one makes place, a busy one is waited for.
func TestDaemonsAreBounded(t *testing.T) {
	b := another(t, func(cfg *dockerfile.Config) { cfg.Daemons = 1 })
	for _, project := range []string{"a", "b", "a"} {
		if _, log, err := text(t, b, project, "FROM scratch\nCOPY Dockerfile /x\n"); err != nil {
			t.Fatalf("%s: %v\n%s", project, err, log)
		}
		if n := b.Running(); n != 1 {
			t.Errorf("%d daemons run", n)
		}
	}
	busy, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, ended := make(chan struct{}), make(chan struct{})
	src := files(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN echo it-is-$((40+2)) && sleep 600\n"})
	go func() {
		defer close(ended)
		_, _ = b.Build(busy, dockerfile.Request{Build: of("a"), Context: src, NoCache: true},
			&watcher{for_: "it-is-42", seen: started})
	}()
	<-started
	short, giveUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer giveUp()
	if _, _, err := textIn(short, t, b, "b",
		"FROM scratch\nCOPY Dockerfile /x\n"); !fault.Is(err, fault.DeadlineExceeded) && short.Err() == nil {
		t.Errorf("a build without a place: %v", err)
	}
	cancel()
	if _, log, err := text(t, b, "b", "FROM scratch\nCOPY Dockerfile /x\n"); err != nil {
		t.Errorf("after the other has ended: %v\n%s", err, log)
	}
	<-ended
}

// The cache of all projects that there was once is removed, and those of projects that are gone; the others stay.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	for _, old := range []string{"state/overlay/fs/x", "buildkitd.toml", "projects/gone/y", "projects/here/z",
		"projects/unused/z"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(old)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, old), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().AddDate(0, -1, 0)
	if err := os.Chtimes(filepath.Join(dir, "projects/unused"), long, long); err != nil {
		t.Fatal(err)
	}
	b := another(t, func(cfg *dockerfile.Config) { cfg.Dir = dir })
	if err := b.Keep(time.Now(), func(project string) bool { return project != "gone" }); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil { // waits until all is removed
		t.Fatal(err)
	}
	for path, want := range map[string][]string{".": {"projects", "trust.pem", "work"}, "projects": {"here"}} {
		var got []string
		entries, err := os.ReadDir(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s has %v, want %v", path, got, want)
		}
	}
}

// What a build is given stands in no list of processes, and may be long.
func TestArgumentsAreSecret(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": "FROM debian:12\nARG TOKEN\nRUN test \"$TOKEN\" && sleep 1\nFROM scratch\nARG LONG\nCOPY --from=0 /etc/passwd /\nCOPY Dockerfile /\n"})
	token, done := rand.Text(), make(chan struct{})
	var log string
	var err error
	go func() {
		defer close(done)
		_, log, err = try(t, dockerfile.Request{
			Context: dir,
			Args:    map[string]string{"TOKEN": token, "LONG": strings.Repeat(token, 20_000)},
		})
	}()
	looked := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range all {
			if line, err := os.ReadFile(p); err == nil && bytes.Contains(line, []byte(token)) {
				t.Fatalf("%s: %.300q", p, line)
			}
		}
		looked++
	}
	if err != nil || looked < 2 {
		t.Errorf("looked %d times: %v\n%s", looked, err, log)
	}
}

// A context may hold links to anywhere. They are links in the image, and lead nowhere before.
func TestLinksInContext(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, body string) {
		h.Mode, h.Size = 0o644, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "Dockerfile", Typeflag: tar.TypeReg}, "FROM scratch\nCOPY d /d\n")
	add(tar.Header{Name: "d/absolute", Typeflag: tar.TypeSymlink, Linkname: "/etc/hostname"}, "")
	add(tar.Header{Name: "d/outward", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../etc/hostname"}, "")
	add(tar.Header{Name: "d/directory", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	digest, err := builder.BuildSource(t.Context(), job, builds.Step{}, bytes.NewReader(archive.Bytes()),
		int64(archive.Len()), &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	got := map[string]string{}
	layers(t, dockerfile.Image{Digest: digest}, func(h *tar.Header) { got[h.Name] = h.Linkname })
	for name, want := range map[string]string{"d/absolute": "/etc/hostname",
		"d/outward": "../../../../../../etc/hostname", "d/directory": "/etc"} {
		if got[name] != want {
			t.Errorf("%s leads to %q, want %q", name, got[name], want)
		}
	}
	for _, through := range []string{"COPY d/absolute /x", "COPY d/outward /x", "COPY d/directory/hostname /x",
		"ADD d/absolute /x"} {
		dir := files(t, map[string]string{"Dockerfile": "FROM debian:12\nCOPY . /\n" + through + "\n"})
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, to := range map[string]string{"absolute": "/etc/hostname",
			"outward": "../../../../../../etc/hostname", "directory": "/etc"} {
			if err := os.Symlink(to, filepath.Join(dir, "d", name)); err != nil {
				t.Fatal(err)
			}
		}
		if _, log, err := try(t, dockerfile.Request{Context: dir}); err == nil {
			t.Errorf("%s: a link of the context was followed\n%s", through, log)
		}
	}
	archive.Reset()
	w = tar.NewWriter(&archive)
	add(tar.Header{Name: "Dockerfile", Typeflag: tar.TypeSymlink, Linkname: "/etc/hostname"}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := builder.BuildSource(t.Context(), job, builds.Step{}, bytes.NewReader(archive.Bytes()),
		int64(archive.Len()), io.Discard); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a Dockerfile of the host: %v", err)
	}
}
