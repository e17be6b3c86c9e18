package dockerapi_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/builds"
	"giggle/builds/dockerapi"
	"giggle/builds/dockerfile"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// contexts is a Builder that remembers what it got, and makes no image.
type contexts struct {
	seen  []string
	asked []string // for RUN steps
	last  dockerfile.Request
	blobs *blob.Dir
}

// madeManifest is what BuildKit makes.
const madeManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
	`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,` +
	`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},` +
	`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":2,` +
	`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","annotations":{"a":"b"}}]}`

func (c *contexts) Build(ctx context.Context, r dockerfile.Request, _ io.Writer) (dockerfile.Image, error) {
	c.last = r
	files, err := os.ReadDir(r.Context)
	for _, f := range files {
		c.seen = append(c.seen, f.Name())
	}
	c.asked = append(c.asked, fmt.Sprint(r.Network, " ", r.Hosts, " ", r.Ulimits, " ", r.Shm))
	if err != nil {
		return dockerfile.Image{}, err
	}
	made, err := c.blobs.Put(ctx, strings.NewReader(madeManifest), "")
	return dockerfile.Image{Digest: string(made.Digest), Config: "sha256:0123456789abcdef"}, err
}

// nothing has neither images nor a registry.
type nothing struct{}

func (nothing) Unpack(context.Context, string) (oci.Image, error) { return oci.Image{}, nil }
func (nothing) Inspect(_ context.Context, digest string) (oci.Manifest, error) {
	return oci.Manifest{}, fault.New(fault.NotFound, "no %s", digest)
}
func (nothing) Pull(context.Context, builds.Build, string, func(string)) (string, error) {
	return "", fault.New(fault.PermissionDenied, "not allowed")
}
func (nothing) Push(context.Context, builds.Build, string, string) error {
	return fault.New(fault.PermissionDenied, "not allowed")
}
func (nothing) Prepare(context.Context, engine.Spec) (*engine.Instance, error) {
	return nil, fault.New(fault.ResourceExhausted, "no container")
}

// docker is the client of one build's socket.
type docker struct {
	http    *http.Client
	builder *contexts
	shared  string
	server  *dockerapi.Server
}

func newDocker(t testing.TB) *docker {
	t.Helper()
	return newDockerOf(t, func(*blob.Dir) dockerapi.Unpacker { return nothing{} })
}

// newStore has the images that are loaded into it.
func newStore(t testing.TB) *docker {
	t.Helper()
	return newDockerOf(t, func(blobs *blob.Dir) dockerapi.Unpacker {
		images, err := oci.New(t.TempDir(), blobs, oci.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return images
	})
}

func newDockerOf(t testing.TB, images func(*blob.Dir) dockerapi.Unpacker) *docker {
	t.Helper()
	blobs, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "giggle-docker-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	builder := &contexts{blobs: blobs}
	n := 0
	s, err := dockerapi.New(dockerapi.Config{
		Builder:  builder,
		Images:   images(blobs),
		Registry: nothing{},
		Blobs:    blobs,
		Engine:   nothing{},
		Dir:      filepath.Join(dir, "d"),
		Familiar: mirror.Familiar,
		Shared:   func(builds.Build) string { return dir },
		Sockets:  func(builds.Build) engine.Sockets { return engine.Sockets{} },
		NewID:    func() string { n++; return fmt.Sprint("id", n) },
		Now:      time.Now,
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	socket, err := s.Socket(builds.Build{})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &docker{&http.Client{Transport: transport}, builder, dir, s}
}

// call returns the status and the whole answer.
func (d *docker) call(t testing.TB, method, path string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://docker"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// archive is a tar archive of files.
func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.PAXRecords["text"]
		h.PAXRecords = nil
		if h.Typeflag == 0 {
			h.Typeflag, h.Size, h.Mode = tar.TypeReg, max(h.Size, int64(len(text))), 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w,
			io.MultiReader(strings.NewReader(text),
				bytes.NewReader(make([]byte, h.Size-int64(len(text)))))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name, text string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"text": text}}
}

func TestWhatContainersCantHave(t *testing.T) {
	d := newDocker(t)
	for body, want := range map[string]string{
		`{"HostConfig":{"Privileged":true}}`:                         "--privileged",
		`{"OpenStdin":true}`:                                         "standard input",
		`{"HostConfig":{"CapAdd":["SYS_ADMIN"]}}`:                    "--cap-add",
		`{"HostConfig":{"CapDrop":["ALL"]}}`:                         "--cap-drop",
		`{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}`:      "--security-opt",
		`{"HostConfig":{"Devices":[{"PathOnHost":"/dev/sda"}]}}`:     "--device",
		`{"HostConfig":{"DeviceRequests":[{}]}}`:                     "--gpus",
		`{"HostConfig":{"NetworkMode":"host"}}`:                      "--network=host",
		`{"HostConfig":{"PidMode":"host"}}`:                          "namespaces",
		`{"HostConfig":{"UsernsMode":"host"}}`:                       "namespaces",
		`{"HostConfig":{"IpcMode":"container:x"}}`:                   "namespaces",
		`{"HostConfig":{"Dns":["1.1.1.1"]}}`:                         "--dns",
		`{"HostConfig":{"Tmpfs":{"/x":""}}}`:                         "--tmpfs",
		`{"HostConfig":{"ReadonlyRootfs":true}}`:                     "--read-only",
		`{"HostConfig":{"RestartPolicy":{"Name":"always"}}}`:         "--restart",
		`{"HostConfig":{"PortBindings":{"80/tcp":[{}]}}}`:            "--publish",
		`{"HostConfig":{"PublishAllPorts":true}}`:                    "--publish",
		`{"HostConfig":{"VolumesFrom":["x"]}}`:                       "--volumes-from",
		`{"HostConfig":{"NetworkMode":"container:x"}}`:               "--network=container:x",
		`{"Image":"x","HostConfig":{"NetworkMode":"cloudbuild"}}`:    "No such image",
		`{"Image":"x","HostConfig":{"RestartPolicy":{"Name":"no"}}}`: "No such image",
		`{`:                          "can't be read",
		strings.Repeat(" ", 2<<20):   "can't be read",
		`{"HostConfig":"nothing"}`:   "can't be read",
		`{"Cmd":{"a":"text"}}`:       "can't be read",
		`{"HostConfig":{"Memory":""`: "can't be read",
	} {
		if status, text := d.call(t, "POST", "/v1.44/containers/create", strings.NewReader(body)); status < 400 ||
			status == 500 || !strings.Contains(text, want) {
			t.Errorf("%.80s: %d %s, want %q", body, status, text, want)
		}
	}
}

func TestWhatIsNotServedSaysSo(t *testing.T) {
	d := newDocker(t)
	for _, call := range []string{"POST /swarm/init", "GET /events",
		"POST /containers/prune", "POST /build/prune", "POST /session"} {
		method, path, _ := strings.Cut(call, " ")
		status, text := d.call(t, method, "/v1.44"+path, nil)
		var answer struct{ Message string }
		if err := json.Unmarshal([]byte(text), &answer); status != http.StatusNotImplemented || err != nil ||
			!strings.Contains(answer.Message, path) {
			t.Errorf("%s: %d %s", call, status, text)
		}
	}
}

func TestLoad(t *testing.T) {
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag("example.com/a:v1")
	if err != nil {
		t.Fatal(err)
	}
	var good, small bytes.Buffer
	if err := tarball.Write(ref, img, &good); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&small)
	if _, err := z.Write(good.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	many := make([]tar.Header, 10_001)
	for i := range many {
		many[i] = file(fmt.Sprint("f", i), "")
	}
	for what, tt := range map[string]struct {
		body io.Reader
		want string
	}{
		"an archive of docker save": {&good, "Loaded image: example.com/a:v1"},
		"the same, compressed":      {&small, "Loaded image: example.com/a:v1"},
		"no archive":                {strings.NewReader("no archive"), "can't be read"},
		"nothing":                   {strings.NewReader(""), "no archive of docker save"},
		"half of one":               {bytes.NewReader(good.Bytes()[:good.Len()/2]), "can't be read"},
		"no manifest":               {archive(t, file("a", "b")), "no archive of docker save"},
		"a manifest of 5 MiB": {archive(t,
			tar.Header{Name: "manifest.json", Size: 5 << 20}), "bigger than 4 MiB"},
		"a configuration of 5 MiB": {archive(t, file("manifest.json", `[{"Config":"c","RepoTags":["a:b"]}]`),
			tar.Header{Name: "./c", Size: 5 << 20}), "bigger than 4 MiB"},
		"a configuration elsewhere": {archive(t, file("manifest.json", `[{"Config":"c","RepoTags":["a:b"]}]`),
			tar.Header{Name: "c", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "is no file"},
		"a manifest that is a loop": {archive(t, tar.Header{
			Name:     "manifest.json",
			Typeflag: tar.TypeSymlink,
			Linkname: "manifest.json",
		}), "no archive of docker save"},
		"too many files": {archive(t, many...), "more than 10000 entries"},
		"a tag that is none": {archive(t, file("manifest.json", `[{"Config":"c","RepoTags":["a b"]}]`),
			file("c", "{}")), "damaged"},
		"a layer that is missing": {archive(t,
			file("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":["l"]}]`),
			file("c", `{"rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`)), "damaged"},
	} {
		t.Run(what, func(t *testing.T) {
			status, text := newDocker(t).call(t, "POST", "/v1.44/images/load", tt.body)
			if status == 500 || !strings.Contains(text, tt.want) {
				t.Errorf("%d %s, want %q", status, text, tt.want)
			}
		})
	}
}

func TestBuildContexts(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for what, tt := range map[string]struct {
		body io.Reader
		want string
	}{
		"a good one": {archive(t, file("Dockerfile", "FROM x")), "Successfully built 0123456789ab"},
		"no archive": {strings.NewReader("no archive, and long enough to be one: " +
			strings.Repeat("x", 600)), "message"},
		"a path that leads out": {archive(t, file("../../../../../../../../"+outside, "x")), "message"},
		"a link that leads out": {archive(t, tar.Header{
			Name:     "l",
			Typeflag: tar.TypeSymlink,
			Linkname: filepath.Dir(outside),
		}, file("l/outside", "x")), "message"},
	} {
		t.Run(what, func(t *testing.T) {
			status, text := newDocker(t).call(t, "POST", "/v1.44/build?t=x:y", tt.body)
			if status == 500 || !strings.Contains(text, tt.want) {
				t.Errorf("%d %s, want %q", status, text, tt.want)
			}
			if _, err := os.Lstat(outside); err == nil {
				t.Error("a file was written outside the build")
			}
		})
	}
	d := newDocker(t)
	for query, want := range map[string]string{
		"remote=https://example.com/x": "somewhere else", "version=2": "DOCKER_BUILDKIT",
		"buildargs={": "buildargs can't be read", "labels=[]": "labels can't be read", "t=a%20b%00": "reference",
	} {
		if status, text := d.call(t, "POST", "/v1.44/build?"+query,
			archive(t, file("Dockerfile", "FROM x"))); status < 400 || status == 500 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %q", query, status, text, want)
		}
	}
}

// No body of a create, and no archive, is an internal error or ends the platform.
func FuzzCreate(f *testing.F) {
	f.Add([]byte(`{"Image":"x","Cmd":["a"],"HostConfig":{"Binds":["/workspace:/w"],"PidsLimit":1}}`))
	f.Add([]byte(`{"HostConfig":{"RestartPolicy":{}}}`))
	d := newDocker(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if status, text := d.call(t, "POST", "/containers/create", bytes.NewReader(body)); status < 400 ||
			status == 500 {
			t.Errorf("%d %s", status, text)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add(archive(f, file("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":["l"]}]`), file("c", "{}"),
		file("l", "x")).Bytes())
	d := newDocker(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if status, text := d.call(t, "POST", "/images/load", bytes.NewReader(body)); status == 500 {
			t.Errorf("%d %s", status, text)
		}
	})
}
