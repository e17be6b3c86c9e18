// Package dockerapi is the Docker Engine API as far as build steps need it: a socket per build that the real docker CLI
// of a step talks to, with an image store of the build's own.
//
// It serves gcr.io/cloud-builders/docker. Images are built by builds/dockerfile, containers run in the engine, as
// hardened as a step, and pushes and pulls are made as the build's account. There is no Docker daemon: what is not here
// answers 501 with a sentence that says so.
//
// Rules: https://docs.docker.com/reference/api/engine/version/v1.44/
package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/dockerfile"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/engine/lan"
	"giggle/fault"
	"giggle/oci"
)

// Builder builds Dockerfiles: *dockerfile.Builder.
type Builder interface {
	Build(ctx context.Context, r dockerfile.Request, log io.Writer) (dockerfile.Image, error)
}

// Unpacker reads images: *oci.Images.
type Unpacker interface {
	Inspect(ctx context.Context, digest string) (oci.Manifest, error)
	Unpack(ctx context.Context, digest string) (oci.Image, error)
}

// Registry is where a build pulls from and pushes to, as its account.
type Registry interface {
	// Pull brings an image into the platform's blobs and returns its manifest's digest. Say is told, a line at a time,
	// what comes from elsewhere. It fails with NotFound and PermissionDenied.
	Pull(ctx context.Context, b builds.Build, name string, say func(line string)) (digest string, err error)
	// Push puts an image of the platform's blobs into a repository.
	Push(ctx context.Context, b builds.Build, name, digest string) error
}

// Engine runs containers: *engine.Engine.
type Engine interface {
	Prepare(ctx context.Context, s engine.Spec) (*engine.Instance, error)
}

// Config is what New needs.
type Config struct {
	Builder  Builder
	Images   Unpacker
	Registry Registry
	Blobs    *blob.Dir
	Engine   Engine
	Familiar func(ref string) (string, error) // one name for all that mean the same image
	Dir      string                           // of the sockets and of what is being sent; what is in it is removed
	// Shared is the host's directory of what the steps of a build share: "workspace" and "home" are in it.
	Shared  func(b builds.Build) string
	Sockets func(b builds.Build) engine.Sockets
	Groups  func(b builds.Build) []engine.Group // that its containers share limits with; nil is none
	Files   []engine.File
	Env     []string
	Memory  int64 // bytes, of a container at most
	Pids    int64
	// Unpacker is for build contexts.
	Unpacker source.Unpacker
	NewID    func() string
	Now      func() time.Time
	Log      *slog.Logger
}

// Server has the sockets of the builds that run.
type Server struct {
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session // by build
	serial   int
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, sessions: map[string]*session{}}, os.MkdirAll(cfg.Dir, 0o700)
}

// session is one build's Docker.
type session struct {
	*Server
	build  builds.Build
	dir    string
	ctx    context.Context
	cancel context.CancelFunc
	server *http.Server

	mu         sync.Mutex
	images     []*image
	containers map[string]*container
	networks   []*network
	lan        lan.LAN
	running    sync.WaitGroup
}

// Socket returns the path of a build's socket, which it opens at the first call.
func (s *Server) Socket(b builds.Build) (path string, err error) {
	defer fault.Wrap(&err, "dockerapi.Socket(%s)", b.Name.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[b.Name.String()]
	if !ok {
		s.serial++
		x = &session{
			Server:     s,
			build:      b,
			dir:        filepath.Join(s.cfg.Dir, strconv.Itoa(s.serial)),
			containers: map[string]*container{},
		}
		x.openNetworks()
		if err := os.MkdirAll(filepath.Join(x.dir, "tmp"), 0o700); err != nil {
			return "", err
		}
		l, err := net.Listen("unix", x.socket())
		if err != nil {
			return "", err
		}
		if err := os.Chmod(x.socket(), 0o666); err != nil { // only the build's steps see it
			return "", errors.Join(err, l.Close())
		}
		x.ctx, x.cancel = context.WithCancel(context.Background())
		x.server = &http.Server{
			Handler:           x.routes(),
			ReadHeaderTimeout: 10 * time.Second,
			MaxHeaderBytes:    maxHeaders,
			BaseContext:       func(net.Listener) context.Context { return x.ctx },
		}
		go func() { _ = x.server.Serve(l) }() // ends with Close
		s.sessions[b.Name.String()] = x
	}
	return x.socket(), nil
}

func (x *session) socket() string { return filepath.Join(x.dir, "docker.sock") }

func (s *Server) session(b builds.Build) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[b.Name.String()]
}

// Find returns the digest of an image that a build has made, or NotFound.
func (s *Server) Find(_ context.Context, b builds.Build, name string) (digest string, err error) {
	if x := s.session(b); x != nil {
		if img, err := x.find(name); err == nil {
			return img.digest, nil
		}
	}
	return "", fault.New(fault.NotFound, "The build made no image %q.", name)
}

// Add keeps an image of the platform's blobs among those that a build has made, under names that it takes from others.
func (s *Server) Add(ctx context.Context, b builds.Build, digest string, names ...string) error {
	if _, err := s.Socket(b); err != nil { // which makes the session
		return err
	}
	x := s.session(b)
	familiar := make([]string, len(names))
	for i, n := range names {
		var err error
		if familiar[i], err = x.name(n); err != nil {
			return err
		}
	}
	id, err := x.configOf(ctx, digest)
	if err != nil {
		return err
	}
	return x.add(id, digest, familiar...)
}

// Image returns an image that a build has made, ready to be mounted, or NotFound.
func (s *Server) Image(ctx context.Context, b builds.Build, name string) (oci.Image, error) {
	digest, err := s.Find(ctx, b, name)
	if err != nil {
		return oci.Image{}, err
	}
	return s.cfg.Images.Unpack(ctx, digest)
}

// Drop ends a build's Docker: its containers are stopped, its images forgotten.
func (s *Server) Drop(b builds.Build) error {
	s.mu.Lock()
	x := s.sessions[b.Name.String()]
	delete(s.sessions, b.Name.String())
	s.mu.Unlock()
	if x == nil {
		return nil
	}
	x.cancel()
	err := x.server.Close()
	x.running.Wait()
	x.mu.Lock()
	for _, c := range x.containers {
		if i := c.made(); i != nil {
			i.Discard()
		}
	}
	x.mu.Unlock()
	return errors.Join(err, x.lan.Close(), os.RemoveAll(x.dir))
}

// Close drops all builds.
func (s *Server) Close() error {
	s.mu.Lock()
	var all []builds.Build
	for _, x := range s.sessions {
		all = append(all, x.build)
	}
	s.mu.Unlock()
	var errs []error
	for _, b := range all {
		errs = append(errs, s.Drop(b))
	}
	return errors.Join(errs...)
}

// version is the API's version that is spoken.
const version = "1.44"

var versioned = regexp.MustCompile(`^/v[0-9]+\.[0-9]+`)

// routes are the calls that are served.
func (x *session) routes() http.Handler {
	m := http.NewServeMux()
	call := func(pattern string, fn func(http.ResponseWriter, *http.Request) error) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := fn(w, r); err != nil {
				x.fail(w, r, err)
			}
		})
	}
	call("GET /_ping", ping) // HEAD, too
	call("GET /version", x.version)
	call("GET /info", x.info)
	call("POST /auth", logIn)
	call("POST /build", x.buildImage)
	call("GET /images/json", x.listImages)
	call("POST /images/create", x.pull)
	call("POST /images/load", x.load)
	call("GET /images/get", x.save)
	call("/images/{rest...}", x.image)
	call("POST /containers/create", x.createContainer)
	call("GET /containers/json", x.listContainers)
	call("GET /containers/{id}/json", x.withContainer(x.inspectContainer))
	call("GET /containers/{id}/logs", x.withContainer(x.logs))
	call("POST /containers/{id}/attach", x.withContainer(x.attach))
	call("POST /containers/{id}/start", x.withContainer(x.start))
	call("POST /containers/{id}/wait", x.withContainer(x.wait))
	call("POST /containers/{id}/stop", x.withContainer(x.stop))
	call("POST /containers/{id}/kill", x.withContainer(x.stop))
	call("DELETE /containers/{id}", x.withContainer(x.remove))
	call("GET /containers/{id}/archive", x.withContainer(x.copyFrom)) // HEAD, too
	call("PUT /containers/{id}/archive", x.withContainer(x.copyTo))
	call("GET /volumes", x.listVolumes)
	call("POST /volumes/create", x.createVolume)
	call("GET /volumes/{name}", x.volume)
	call("DELETE /volumes/{name}", x.volume)
	call("GET /networks", x.listNetworks)
	call("POST /networks/create", x.createNetwork)
	call("POST /networks/prune", x.pruneNetworks)
	call("GET /networks/{name}", x.withNetwork(x.inspectNetwork))
	call("DELETE /networks/{name}", x.withNetwork(x.removeNetwork))
	call("POST /networks/{name}/connect", x.withNetwork(x.connect))
	call("POST /networks/{name}/disconnect", x.withNetwork(x.disconnect))
	// docker inspect tries this first
	call("GET /containers/{rest...}", func(_ http.ResponseWriter, r *http.Request) error {
		return fault.New(fault.NotFound, "No such container: %.200s", strings.TrimSuffix(r.PathValue("rest"), "/json"))
	})
	for _, kind := range []string{"plugins", "services", "nodes", "tasks", "secrets",
		"configs"} {
		call("GET /"+kind+"/{rest...}", func(_ http.ResponseWriter, r *http.Request) error { // and these after images
			return fault.New(fault.NotFound, "No such object: %.200s", r.PathValue("rest"))
		})
	}
	call("/", func(_ http.ResponseWriter, r *http.Request) error {
		return fault.New(fault.Unimplemented,
			"Giggle's Docker for build steps has build, tag, push, pull, run, images, inspect, login, rmi, save, load, logs, ps, rm, stop, cp, volume, network, version and info; %s %.100s is not among them.", r.Method, r.URL.Path)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		w.Header().Set("Builder-Version", "1") // so that the CLI sends Dockerfiles here and looks for no plugin
		w.Header().Set("Docker-Experimental", "false")
		w.Header().Set("Ostype", "linux")
		w.Header().Set("Server", "Giggle")
		if v := versioned.FindString(r.URL.Path); v != "" {
			r.URL.Path, r.URL.RawPath = r.URL.Path[len(v):], ""
		}
		m.ServeHTTP(w, r)
	})
}

// fail answers with an error in Docker's form.
func (x *session) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	if f.Code == fault.Internal {
		x.cfg.Log.Error("docker in a build", "build", x.build.Name, "call", r.URL.Path, "err", err)
	}
	status := f.Code.HTTPStatus()
	if f.Code == fault.Unimplemented { // as Docker's daemons have it, and no client retries it
		status = http.StatusNotImplemented
	}
	reply(w, status, map[string]string{"message": f.Message})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// body reads a request's JSON.
func body(w http.ResponseWriter, r *http.Request, into any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(into); err != nil {
		return fault.New(fault.InvalidArgument, "The request's body can't be read: %v", err)
	}
	return nil
}

func ping(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, "OK")
	return err
}

func (x *session) version(w http.ResponseWriter, _ *http.Request) error {
	reply(w, http.StatusOK, map[string]any{
		"Platform": map[string]string{"Name": "Giggle"}, "Version": "giggle", "ApiVersion": version,
		"MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64",
		"Components": []any{},
	})
	return nil
}

func (x *session) info(w http.ResponseWriter, _ *http.Request) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{
		"ID": "giggle", "Name": "giggle", "ServerVersion": "giggle", "OperatingSystem": "Giggle build",
		"OSType": "linux", "Architecture": "x86_64",
		"Driver": "overlay", "Images": len(x.images), "Containers": len(x.containers),
		"IndexServerAddress": "https://index.docker.io/v1/",
		// Else the CLI warns of what these containers have no need of.
		"MemoryLimit": true, "SwapLimit": true, "OomKillDisable": true, "CpuCfsQuota": true, "CpuCfsPeriod": true,
		"CPUShares": true, "CPUSet": true,
		"IPv4Forwarding": true, "BridgeNfIptables": true, "BridgeNfIp6tables": true,
	})
	return nil
}

// logIn takes any credentials and keeps none: pushes and pulls are made as the build's account.
func logIn(w http.ResponseWriter, r *http.Request) error {
	var given struct{}
	if err := body(w, r, &given); err != nil {
		return err
	}
	reply(w, http.StatusOK, map[string]string{"Status": "Login Succeeded", "IdentityToken": ""})
	return nil
}

// stream writes Docker's lines of progress, each at once.
type stream struct {
	w  io.Writer
	mu sync.Mutex
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	return &stream{w: w}
}

func (s *stream) send(v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if json.NewEncoder(s.w).Encode(v) == nil {
		if f, ok := s.w.(http.Flusher); ok {
			f.Flush()
		}
	}
}

// Write sends the output of a build.
func (s *stream) Write(p []byte) (int, error) {
	s.send(map[string]string{"stream": string(p)})
	return len(p), nil
}

func (s *stream) status(text string) { s.send(map[string]string{"status": text}) }

func (s *stream) fail(text string) {
	s.send(map[string]any{"errorDetail": map[string]string{"message": text}, "error": text})
}
