package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/engine"
)

// layer holds the test app, /etc/passwd and the like: one layer for all tests, read-only.
var layer string

func TestMain(m *testing.M) {
	if engine.IsDaemonInit(os.Args) {
		fmt.Fprintln(os.Stderr, engine.DaemonInit(os.Args, os.Environ()))
		os.Exit(1)
	}
	if dir := os.Getenv("GIGGLE_TEST_DAEMON"); dir != "" {
		victimOfDaemon(dir)
	}
	if dir := os.Getenv("GIGGLE_TEST_VICTIM"); dir != "" {
		victim(dir)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "engine-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		layer = filepath.Join(dir, "layer")
		for path, text := range map[string]string{
			"etc/passwd": "root:x:0:0:root:/root:/bin/sh\njoker:x:1000:1000::/home/joker:/bin/sh\n",
			"etc/group":  "root:x:0:\njoker:x:1000:\nstaff:x:50:root,joker\n",
			"etc/motd":   "knock knock\n",
		} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(layer, path)), 0o755); err != nil {
				panic(err)
			}
			if err := os.WriteFile(filepath.Join(layer, path), []byte(text), 0o644); err != nil {
				panic(err)
			}
		}
		if err := os.Symlink("../run/nowhere", filepath.Join(layer, "etc/resolv.conf")); err != nil {
			panic(err)
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(layer, "app"), "./testdata/app")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// open returns an engine whose every trace must be gone when the test ends.
func open(t *testing.T, runtime string) *engine.Engine {
	t.Helper()
	return openIn(t, t.TempDir(), runtime)
}

func openIn(t *testing.T, dir, runtime string) *engine.Engine {
	t.Helper()
	return openWith(t, engine.Config{Dir: dir, Runtime: runtime})
}

func openWith(t *testing.T, cfg engine.Config) *engine.Engine {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := cfg.Dir
	e, err := engine.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		traces(t, dir)
	})
	return e
}

// traces fails the test for anything that an engine on dir has left on the machine.
func traces(t *testing.T, dir string) {
	t.Helper()
	sum := sha256.Sum256([]byte(dir))
	key := "giggle-" + hex.EncodeToString(sum[:6])
	for _, pattern := range []string{"/run/" + key, "/sys/fs/cgroup/" + key, "/sys/fs/cgroup/*/" + key,
		filepath.Join(dir, "disk/*")} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	// crun writes below the unified tree's mount point, where it must be taken out of the way.
	below := exec.Command("unshare", "-m", "sh", "-c",
		"umount /sys/fs/cgroup/unified 2>/dev/null && ls /sys/fs/cgroup/unified")
	if out, _ := below.Output(); strings.Contains(string(out), key) {
		t.Errorf("left behind below the unified tree: %s", key)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), key) {
		t.Errorf("a mount shows on the host, or: %v", err)
	}
}

// runtimes are those that this machine has, of which there must be one.
func runtimes(t *testing.T) (found []string) {
	t.Helper()
	for _, r := range []string{"crun", "runc"} {
		if _, err := exec.LookPath(r); err == nil {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		t.Fatal("neither crun nor runc is installed")
	}
	return found
}

// eachRuntime runs a test with every runtime that this machine has.
func eachRuntime(t *testing.T, test func(*testing.T, *engine.Engine)) {
	for _, r := range runtimes(t) {
		t.Run(r, func(t *testing.T) { test(t, open(t, r)) })
	}
}

// patience is how long a test waits for what must come, also on an emulated machine.
const patience = 2 * time.Minute

// log collects an instance's lines.
type log struct {
	mu    sync.Mutex
	lines []engine.Line
	fresh chan struct{}
}

func newLog() *log { return &log{fresh: make(chan struct{}, 1)} }

func (l *log) add(line engine.Line) {
	l.mu.Lock()
	l.lines = append(l.lines, line)
	l.mu.Unlock()
	select {
	case l.fresh <- struct{}{}:
	default:
	}
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, line := range l.lines {
		fmt.Fprintf(&b, "%s: %s\n", line.Stream, line.Text)
	}
	return b.String()
}

// waitFor returns once the log holds the text.
func (l *log) waitFor(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(l.text(), text) {
		select {
		case <-l.fresh:
		case <-time.After(patience):
			t.Fatalf("no %q in the log:\n%s", text, l.text())
		}
	}
}

// start prepares and starts an instance of the app.
func start(t *testing.T, e *engine.Engine, s engine.Spec) *engine.Instance {
	t.Helper()
	if s.ID == "" {
		s.ID = "test"
	}
	if s.Layers == nil {
		s.Layers = []string{layer}
	}
	i, err := e.Prepare(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

// run runs an instance to its end.
func run(t *testing.T, e *engine.Engine, s engine.Spec) (engine.Exit, string) {
	t.Helper()
	l := newLog()
	s.Output = l.add
	i := start(t, e, s)
	select {
	case <-i.Done():
	case <-time.After(patience):
		t.Fatalf("the instance does not end; its log:\n%s", l.text())
	}
	return i.Exit(), l.text()
}

// dial waits until the app listens.
func dial(ctx context.Context, i *engine.Instance, port int) (net.Conn, error) {
	for {
		c, err := i.Dial(ctx, port)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-i.Done():
			return nil, fmt.Errorf("the instance ended with %+v: %w", i.Exit(), err)
		case <-time.After(time.Millisecond):
		}
	}
}

// get asks the app. query is key, value, …
func get(t *testing.T, i *engine.Instance, port int, path string, query ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, i, port) },
	}}
	values := url.Values{}
	for k := 0; k+1 < len(query); k += 2 {
		values.Set(query[k], query[k+1])
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://app"+path+"?"+values.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

func mustGet(t *testing.T, i *engine.Instance, path string, query ...string) string {
	t.Helper()
	b, err := get(t, i, 8080, path, query...)
	if err != nil {
		t.Fatalf("%s %v: %v", path, query, err)
	}
	return b
}

// serving is a spec whose app serves on 8080.
func serving(id string) engine.Spec {
	return engine.Spec{
		ID:     id,
		Args:   []string{"/app", "serve"},
		Env:    []string{"PORT=8080"},
		Memory: 256 << 20,
		CPU:    1000,
		Pids:   100,
	}
}

func unmarshal[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}
