package local_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/uuid"

	"giggle/blob"
	"giggle/edge"
	"giggle/engine"
	"giggle/fault"
	"giggle/logging"
	"giggle/oci"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
	"giggle/run/scale/local"
)

// program is the engine's test application, which shows a container from inside.
var program []byte

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "local-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "app"), "../../../engine/testdata/app")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(string(out))
		}
		if program, err = os.ReadFile(filepath.Join(dir, "app")); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

type world struct {
	*local.Backend
	images  *oci.Images
	callers chan local.Caller
	made    sync.Map // instances by id, of a scaler

	mu      sync.Mutex
	entries []logging.Entry
}

// Append makes the world the log of its instances.
func (w *world) Append(e logging.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, e)
}

// written is what was written about a revision's instances.
func (w *world) written(rev run.Revision) (out []logging.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if e.Resource.Labels["revision_name"] == rev.Name.ID {
			out = append(out, e)
		}
	}
	return out
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, nil)
}

// newWorldWith is newWorld with the CDI specs in those directories.
func newWorldWith(t testing.TB, cdi []string) *world {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := oci.New(filepath.Join(dir, "layers"), blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Config{Dir: filepath.Join(dir, "engine"), Log: log, CDI: cdi})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := edge.OpenCA(filepath.Join(dir, "ca"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	names := edge.NewDNS(edge.DNSConfig{Address: netip.MustParseAddr("169.254.169.254"), TTL: time.Second})
	say := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	}
	server := edge.NewServer(edge.Config{
		CA:  ca,
		Log: log,
		Router: edge.NewRouter(edge.Routes{
			API:      map[string]http.Handler{"run.googleapis.com": say("the API")},
			Service:  say("a service"),
			Storage:  say(""),
			Registry: say(""),
			Console:  say(""),
		}),
	})
	t.Cleanup(func() {
		names.Close()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := images.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{images: images, callers: make(chan local.Caller, 10)}
	w.Backend = local.New(local.Config{
		Engine: e,
		Images: images,
		Trust:  ca.Bundle(nil),
		Log:    w,
		NewID:  func() string { return "i" + strings.ReplaceAll(uuid.NewString(), "-", "") },
		Project: func(id string) (resource.Project, error) {
			if id != "giggle" {
				return resource.Project{}, fault.New(fault.NotFound, "no project %q", id)
			}
			return resource.Project{ID: id, Number: "123456789012"}, nil
		},
		Account: func(p resource.Project, email string) string {
			if email == "" {
				return p.Number + "-compute@developer.gserviceaccount.com"
			}
			return email
		},
		Sockets: func(c local.Caller) engine.Sockets {
			w.callers <- c
			return engine.Sockets{
				Metadata: func(l net.Listener) { http.Serve(l, say("metadata of "+c.InstanceID)) },
				Edge:     func(l net.Listener) { server.ServeTLS(l, nil) },
				DNS:      func(pc net.PacketConn, l net.Listener) { names.Serve(pc, l) },
			}
		},
	})
	return w
}

// revision is a ready-to-run revision of an image with that configuration.
func (w *world) revision(t testing.TB, cfg v1.Config, change func(*run.Container)) run.Revision {
	t.Helper()
	layer, err := w.images.AddLayer(t.Context(), []oci.File{
		{Path: "/app", Mode: 0o755, Data: program}, {Path: "/notes", Mode: 0o644, Data: []byte("not a program")},
		{Path: "/foreign", Mode: 0o755, Data: []byte("\x7fELF but not really")},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0::/:\njoker:x:1000:1001::/:\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := w.images.Assemble(t.Context(), []oci.Layer{layer},
		v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	c := run.Container{Image: "jokes:v1", Port: 8080, Memory: "64Mi", CPU: "1"}
	if change != nil {
		change(&c)
	}
	return run.Revision{
		Name: resource.Revision{
			Service: resource.Service("giggle", "europe-north1", "jokes"),
			ID:      "jokes-00001-abc",
		},
		Template: run.Template{Containers: []run.Container{c}, Concurrency: 80},
		Status:   run.RevisionStatus{ImageDigest: "europe-north1-docker.pkg.dev/giggle/r/jokes@" + digest},
	}
}

// start prepares and starts an instance that is stopped with the test.
func (w *world) start(t *testing.T, rev run.Revision) scale.Instance {
	t.Helper()
	i, err := w.Prepare(t.Context(), rev, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Stop(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

// get asks the app, which may not listen yet.
func get(t *testing.T, i scale.Instance, port int, path string, query ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			for {
				conn, err := i.Dial(ctx, port)
				if err == nil {
					return conn, nil
				}
				select {
				case <-ctx.Done():
					return nil, err
				case <-i.Done():
					return nil, fmt.Errorf("%s: %w", i.Diagnosis(port), err)
				case <-time.After(time.Millisecond):
				}
			}
		},
	}}
	values := url.Values{}
	for k := 0; k+1 < len(query); k += 2 {
		values.Set(query[k], query[k+1])
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://app"+path+"?"+values.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %d %s %v", path, res.StatusCode, b, err)
	}
	return string(b)
}

type info struct {
	Args, Env []string
	Dir       string
	UID, GID  int
}

func look(t *testing.T, i scale.Instance, port int) (out info) {
	t.Helper()
	if err := json.Unmarshal([]byte(get(t, i, port, "/info")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// value is what a C program's getenv would return: the first value of the name.
func (x info) value(name string) string {
	for _, e := range x.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func TestContract(t *testing.T) {
	w := newWorld(t)
	image := v1.Config{
		Entrypoint: []string{"/app"},
		Cmd:        []string{"serve"},
		User:       "joker",
		WorkingDir: "/srv",
		Env:        []string{"PORT=1", "K_SERVICE=image", "FROM_IMAGE=yes", "BOTH=image"},
	}
	for _, tt := range []struct {
		name   string
		change func(*run.Container)
		args   []string
		dir    string
		port   int
	}{
		{"as the image says", nil, []string{"/app", "serve"}, "/srv", 8080},
		{"args", func(c *run.Container) { c.Args = []string{"serve", ":8080", "more"} }, []string{"/app", "serve",
			":8080", "more"}, "/srv", 8080},
		{"command, without the image's cmd", func(c *run.Container) {
			c.Command = []string{"/app", "serve",
				":8080"}
		}, []string{"/app", "serve", ":8080"}, "/srv", 8080},
		{"command and args", func(c *run.Container) { c.Command, c.Args = []string{"/app"}, []string{"serve"} }, []string{"/app", "serve"}, "/srv", 8080},
		{"working directory", func(c *run.Container) { c.WorkingDir = "/else/where" }, []string{"/app",
			"serve"}, "/else/where", 8080},
		{"port", func(c *run.Container) { c.Port = 9000 }, []string{"/app", "serve"}, "/srv", 9000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rev := w.revision(t, image, func(c *run.Container) {
				c.Env = []run.EnvVar{{Name: "BOTH", Value: "revision"}, {Name: "EMPTY"}, {Name: "EQUALS", Value: "a=b"}}
				if tt.change != nil {
					tt.change(c)
				}
			})
			got := look(t, w.start(t, rev), tt.port)
			if !slices.Equal(got.Args, tt.args) || got.Dir != tt.dir || got.UID != 1000 || got.GID != 1001 {
				t.Errorf("args %q, dir %s, uid %d, gid %d; want %q, %s, 1000, 1001", got.Args, got.Dir, got.UID,
					got.GID, tt.args, tt.dir)
			}
			for name, want := range map[string]string{
				"PORT": fmt.Sprint(tt.port), "K_SERVICE": "jokes", "K_REVISION": "jokes-00001-abc",
				"K_CONFIGURATION": "jokes",
				"FROM_IMAGE":      "yes", "BOTH": "revision", "EMPTY": "", "EQUALS": "a=b",
				"SSL_CERT_FILE":       "/etc/ssl/certs/ca-certificates.crt",
				"NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
			} {
				if v := got.value(name); v != want {
					t.Errorf("%s = %q, want %q (%q)", name, v, want, got.Env)
				}
			}
			if !slices.Contains(got.Env, "EMPTY=") {
				t.Errorf("an empty variable is gone: %q", got.Env)
			}
		})
	}
}

// Unmodified client libraries work inside: the metadata server answers by name, and Google's names by TLS.
func TestInside(t *testing.T) {
	w := newWorld(t)
	rev := w.revision(t, v1.Config{Entrypoint: []string{"/app", "serve"}}, nil)
	i := w.start(t, rev)
	want := local.Caller{
		Project: resource.Project{ID: "giggle", Number: "123456789012"}, Region: "europe-north1",
		InstanceID: i.ID(), Account: "123456789012-compute@developer.gserviceaccount.com",
	}
	got := <-w.callers
	if got.Warn == nil {
		t.Error("the sockets can't warn")
	}
	if got.Warn = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("the sockets are for %+v, want %+v", got, want)
	}
	if got := get(t, i, 8080, "/read", "path",
		"/etc/resolv.conf"); !strings.Contains(got, "nameserver 169.254.169.254") ||
		!strings.Contains(got, "ndots:1") || strings.Contains(got, "search") {
		t.Errorf("resolv.conf: %q", got)
	}
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/cert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"} {
		got := get(t, i, 8080, "/read", "path", path)
		if block, _ := pem.Decode([]byte(got)); block == nil || got != string(w.Trust) {
			t.Errorf("%s is not the bundle", path)
		}
	}
	for url, want := range map[string]string{
		"http://metadata.google.internal/": "metadata of " + i.ID(), "http://169.254.169.254/": "metadata of " + i.ID(),
		"https://run.googleapis.com/": "the API", "https://other-hash-lz.a.run.app/": "a service",
	} {
		if got := get(t, i, 8080, "/get", "url", url); got != want {
			t.Errorf("%s from inside: %q, want %q", url, got, want)
		}
	}
}

func TestDiagnosis(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		args []string
		kill bool
		want []string // texts in it
	}{
		{"exit code", []string{"exit", "3"}, false, []string{"exited with code 3.", "It wrote no log."}},
		{"a program of another machine", []string{"/foreign"}, false, []string{"exited with code 1.",
			"xec format error"}},
		{"last lines", []string{"say", "stdout", "one\n", "stderr", "two\n"}, false, []string{"exited with code 0: its program ended by itself.",
			"Its last log lines:\n  ", "one", "two"}},
		{"signal", []string{"deaf"}, true, []string{"ended by signal 9.", "waiting"}},
		{"memory", []string{"eat", "200000000"}, false, []string{"Memory limit of 64 MiB exceeded with 64 MiB used.",
			"--memory"}},
		{"wrong port", []string{"serve", ":9090"}, false, []string{"listens on port 9090, not on 8080", "--port 9090"}},
		{"loopback only", []string{"serve", "127.0.0.1:8080"}, false, []string{"listens on 127.0.0.1:8080",
			"0.0.0.0:8080"}},
		{"done", []string{"say", "stdout", "migrated\n"}, false, []string{"A service is a server", "migrated"}},
		{"no port", []string{"wait"}, false, []string{"runs, but listens on no port.", "waiting"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entry := []string{"/app"}
			if strings.HasPrefix(tt.args[0], "/") {
				entry = nil
			}
			i := w.start(t, w.revision(t, v1.Config{Entrypoint: entry, Cmd: tt.args}, nil))
			if tt.kill {
				until(t, func() (string, bool) {
					got := i.Diagnosis(8080)
					return got,
						strings.Contains(got, "waiting")
				})
				if err := i.Stop(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
			}
			until(t, func() (string, bool) {
				got := i.Diagnosis(8080)
				for _, text := range tt.want {
					if !strings.Contains(got, text) {
						return got, false
					}
				}
				return got, true
			})
			if tt.name == "loopback only" {
				if conn, err := i.Dial(t.Context(), 8080); err == nil {
					conn.Close()
					t.Error("an app on 127.0.0.1 only can be reached")
				}
			}
		})
	}
}

// until waits for a condition; the text says what there is instead.
func until(t *testing.T, ok func() (string, bool)) {
	t.Helper()
	end := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		got, done := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("there is only %q", got)
		}
		<-tick.C
	}
}

func TestOutputIsSeen(t *testing.T) {
	w := newWorld(t)
	rev := w.revision(t, v1.Config{
		Entrypoint: []string{"/app"},
		Cmd:        []string{"say", "stdout", "knock knock\n", "stderr", "who is there\n"},
	}, nil)
	i := w.start(t, rev)
	until(t, func() (string, bool) {
		all := w.written(rev)
		texts := map[string]string{}
		for _, l := range all {
			if l.Labels["instanceId"] != i.ID() || l.Time.IsZero() {
				t.Fatalf("entry %+v", l)
			}
			texts[l.Log] = l.Text
		}
		return fmt.Sprint(all), texts[logging.Stdout] == "knock knock" && texts[logging.Stderr] == "who is there"
	})
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	app := v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}}
	for _, tt := range []struct {
		name   string
		image  v1.Config
		change func(*run.Revision)
		reason string
		text   string
	}{
		{"no command", v1.Config{}, nil, "ContainerMissing", "neither an entrypoint nor a command"},
		{"command is not there", app, func(r *run.Revision) { r.Template.Containers[0].Command = []string{"/nowhere"} }, "ContainerMissing", `"/nowhere" was not found`},
		{"command is not in PATH", app, func(r *run.Revision) { r.Template.Containers[0].Command = []string{"nowhere"} }, "ContainerMissing", `"nowhere" was not found`},
		{"command is no program", app, func(r *run.Revision) { r.Template.Containers[0].Command = []string{"/notes"} }, "ContainerMissing", "is not an executable file"},
		{"command is a directory", app, func(r *run.Revision) { r.Template.Containers[0].Command = []string{"/etc"} }, "ContainerMissing", "is not an executable file"},
		{"no digest", app, func(r *run.Revision) { r.Status.ImageDigest = "jokes:v1" }, "", "no digest"},
		{"image is gone", app, func(r *run.Revision) {
			r.Status.ImageDigest = "jokes@sha256:" +
				strings.Repeat("0", 64)
		}, "", ""},
		{"bad memory", app, func(r *run.Revision) { r.Template.Containers[0].Memory = "lots" }, "", "quantity"},
		{"bad CPU", app, func(r *run.Revision) { r.Template.Containers[0].CPU = "all" }, "", "quantity"},
		{"project is gone", app, func(r *run.Revision) { r.Name.Service.Project = "nowhere" }, "", "no project"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rev := w.revision(t, tt.image, nil)
			if tt.change != nil {
				tt.change(&rev)
			}
			i, err := w.Prepare(t.Context(), rev, nil)
			if err == nil { // some runtimes look for the command when it starts
				defer i.Stop(context.Background(), 0)
				err = i.Start(t.Context())
			}
			if err == nil {
				t.Fatalf("it was started")
			}
			if f := fault.From(err); f.Reason != tt.reason ||
				!strings.Contains(f.Message, tt.text) && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("reason %q, %v; want %q and %q", f.Reason, err, tt.reason, tt.text)
			}
		})
	}
}
