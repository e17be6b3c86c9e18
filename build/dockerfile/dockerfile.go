// Package dockerfile builds images from Dockerfiles with BuildKit, which runs as a child process: started when it is
// first needed, stopped when it has been idle.
//
// It serves the Docker API of build steps (build/dockerapi) and deploys of a source with a Dockerfile. BuildKit and what
// it runs have a network of their own, with the platform's sockets and nothing else: base images come from the mirror
// of foreign images through a registry that is there only, or from the platform's registry as the build's account. It
// keeps no names of images and pushes nothing into repositories: what is built is a digest in the platform's blobs.
package dockerfile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"giggle/blob"
	"giggle/build"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/source"
)

// Engine runs BuildKit: *engine.Engine.
type Engine interface {
	Daemon(ctx context.Context, s engine.DaemonSpec) (*engine.Daemon, error)
	DaemonCgroup(id string) string
}

// Mirror has the foreign images that Dockerfiles start from: *mirror.Mirror.
type Mirror interface {
	Get(name string) (oci.Image, error)
	Blobs() (*blob.Dir, error)
}

// Config is what New needs.
type Config struct {
	Engine Engine
	Mirror Mirror
	// Familiar is the mirror's name of a reference to an image.
	Familiar func(ref string) (string, error)
	Blobs    *blob.Dir     // of the platform, where images go
	Dir      string        // of BuildKit's state, its cache in it
	Path     []string      // directories to look for buildkitd, buildctl and runc in when the PATH has none
	Trust    []byte        // PEM bundle that BuildKit trusts, and RUN steps where Binary is set
	Binary   string        // the program that is package runtime when it is started by that name; "" leaves RUN steps alone
	TrustEnv []string      // the names of variables that make programs trust a bundle
	Files    []engine.File // laid over the host's for BuildKit: resolv.conf
	// Sockets is what answers inside the network of builds. Of its port 80 all but /v2/, the registry of base images, is
	// Others.
	Sockets engine.Sockets
	Others  http.Handler
	// Token makes an access token of a build's account.
	Token  func(ctx context.Context, b build.Build) (string, error)
	Hosts  []string      // of the platform's registries
	Memory int64         // bytes, of all builds together
	Pids   int64         // processes of all builds together
	Cache  int64         // bytes of cache that are kept
	Idle   time.Duration // after which BuildKit is stopped; 0 is two minutes
	Log    *slog.Logger
}

// Builder builds images. It is safe for concurrent use.
type Builder struct {
	cfg   Config
	stage *stage

	mu     sync.Mutex
	daemon *engine.Daemon
	tail   *tail // of the daemon's log
	users  int
	idle   *time.Timer
	closed bool
}

// New returns a builder. BuildKit does not run yet.
func New(cfg Config) (*Builder, error) {
	if cfg.Idle == 0 {
		cfg.Idle = 2 * time.Minute
	}
	b := &Builder{cfg: cfg, stage: newStage(cfg)}
	if err := os.RemoveAll(b.path("work")); err != nil {
		return nil, err
	}
	return b, os.MkdirAll(b.path("work"), 0o700)
}

func (b *Builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.cfg.Dir}, elem...)...)
}

// Request says what to build.
type Request struct {
	Build      build.Build // whose account reads base images
	Context    string      // directory with the files that the Dockerfile copies; not trusted
	Dockerfile string      // its path in Context; "" is Dockerfile
	Target     string      // stage, "" for the last
	Platform   string      // "" for this machine's
	Args       map[string]string
	Labels     map[string]string
	NoCache    bool
}

// Image is an image that was built: its manifest and configuration are in the platform's blobs.
type Image struct {
	Digest string // of the manifest
	Config string // digest of the configuration: Docker's image id
}

// Build builds an image. BuildKit's plain progress goes to log. A fault is the Dockerfile's failure, for people.
func (b *Builder) Build(ctx context.Context, r Request, log io.Writer) (_ Image, err error) {
	defer fault.Wrap(&err, "dockerfile.Build(%s)", r.Build.Name.ID)
	if r.Dockerfile == "" {
		r.Dockerfile = "Dockerfile"
	}
	if !filepath.IsLocal(r.Dockerfile) {
		return Image{}, fault.New(fault.InvalidArgument, "The Dockerfile %.200q must be within the build context.", r.Dockerfile)
	}
	if err := b.look(r, log); err != nil {
		return Image{}, err
	}
	release, err := b.acquire(ctx)
	if err != nil {
		return Image{}, err
	}
	defer release()
	work, err := os.MkdirTemp(b.path("work"), "b-")
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	repository, secret, done := b.stage.open()
	defer done()
	if err := b.credentials(ctx, r.Build, work, secret); err != nil {
		return Image{}, err
	}
	return b.solve(ctx, r, work, repository, log)
}

// look reads the Dockerfile before BuildKit does, for what would need a network.
func (b *Builder) look(r Request, log io.Writer) error {
	root, err := os.OpenRoot(r.Context)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // it was only read
	f, err := root.OpenFile(r.Dockerfile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fault.New(fault.FailedPrecondition, "unable to prepare context: there is no Dockerfile %q in the source", r.Dockerfile)
	}
	defer func() { _ = f.Close() }() // it was only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fault.New(fault.FailedPrecondition, "unable to prepare context: %q is not a file", r.Dockerfile)
	}
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() && strings.HasPrefix(strings.TrimSpace(lines.Text()), "#") {
		if m := syntaxLine().FindStringSubmatch(lines.Text()); m != nil {
			_, _ = fmt.Fprintf(log, "# syntax=%s is ignored: BuildKit's own Dockerfile frontend builds it.\n", m[1])
		}
	}
	return nil
}

var syntaxLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*#\s*syntax\s*=\s*(\S{1,200})`) })

// solve runs BuildKit's client to its end.
func (b *Builder) solve(ctx context.Context, r Request, work, repository string, log io.Writer) (Image, error) {
	client, err := b.program("buildctl")
	if err != nil {
		return Image{}, err
	}
	result := filepath.Join(work, "result.json")
	args := []string{
		"--addr", "unix://" + b.path("buildkitd.sock"), "build", "--progress=plain", "--frontend=dockerfile.v0",
		"--local", "context=" + r.Context, "--local", "dockerfile=" + r.Context, "--opt", "filename=" + filepath.ToSlash(r.Dockerfile),
		"--opt", "cmdline=none", // so that a "# syntax=" line is not followed (frontend/dockerfile/builder in BuildKit)
		"--metadata-file", result,
		"--output", "type=image,name=" + repository + ",push=true,compression=gzip",
	}
	option := func(key, value string) {
		if value != "" {
			args = append(args, "--opt", key+"="+value)
		}
	}
	option("target", r.Target)
	option("platform", r.Platform)
	for _, k := range sorted(r.Args) {
		if k != "BUILDKIT_SYNTAX" {
			args = append(args, "--opt", "build-arg:"+k+"="+r.Args[k])
		}
	}
	for _, k := range sorted(r.Labels) {
		args = append(args, "--opt", "label:"+k+"="+r.Labels[k])
	}
	if r.NoCache {
		args = append(args, "--no-cache")
	}
	cmd := exec.CommandContext(ctx, client, args...)
	cmd.Dir, cmd.Env = work, []string{"DOCKER_CONFIG=" + work, "HOME=" + work, "SSL_CERT_FILE=" + b.path(trustFile)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	out := &failure{to: log}
	cmd.Stdout, cmd.Stderr = out, out
	if err := b.run(cmd); err != nil {
		return Image{}, err
	}
	err = cmd.Wait()
	out.flush()
	if ctx.Err() != nil {
		return Image{}, ctx.Err()
	}
	if err != nil {
		return Image{}, b.explain(out, err)
	}
	raw, err := os.ReadFile(result)
	if err != nil {
		return Image{}, err
	}
	var made struct {
		Digest string `json:"containerimage.digest"`
		Config string `json:"containerimage.config.digest"`
	}
	if err := json.Unmarshal(raw, &made); err != nil {
		return Image{}, fmt.Errorf("result of BuildKit: %w", err)
	}
	if made.Digest == "" {
		return Image{}, errors.New("BuildKit returned no digest")
	}
	return Image{Digest: made.Digest, Config: made.Config}, nil
}

func sorted(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// missing finds the reference of a base image in BuildKit's message.
var missing = regexp.MustCompile(`failed to resolve source metadata for (\S+): (.*)`)

// explain turns the end of BuildKit's output into the build's failure.
func (b *Builder) explain(out *failure, err error) error {
	last := out.last
	if last == "" {
		last = err.Error()
	}
	if m := missing.FindStringSubmatch(last); m != nil {
		return b.missing(m[1], m[2])
	}
	return fault.New(fault.FailedPrecondition, "%s", last)
}

// missing is the failure of a base image that can't be read.
func (b *Builder) missing(ref, why string) error {
	host, _, _ := strings.Cut(ref, "/")
	short := strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if strings.HasSuffix(host, "-docker.pkg.dev") {
		return fault.New(fault.FailedPrecondition, "failed to solve: the base image %s can't be read: %s", ref, why)
	}
	return fault.New(fault.FailedPrecondition, "failed to solve: the base image %s is not on this machine, and builds have no network. Put it into the mirror of foreign images with `giggle images add %s` (%s)", ref, short, why)
}

// failure passes BuildKit's output on and remembers why it failed: its last "error:" line.
type failure struct {
	mu   sync.Mutex
	to   io.Writer
	part []byte
	last string
}

// longest bounds a line of the output.
const longest = 64 << 10

func (f *failure) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := slices.Index(p, '\n')
		if i < 0 {
			f.part = append(f.part, p...)
			if len(f.part) > longest {
				f.line()
			}
			return n, nil
		}
		f.part = append(f.part, p[:i]...)
		f.line()
		p = p[i+1:]
	}
	return n, nil
}

func (f *failure) line() {
	text := string(f.part)
	f.part = f.part[:0]
	if why, ok := strings.CutPrefix(text, "error: "); ok {
		f.last = why
		return // the caller says it
	}
	_, _ = io.WriteString(f.to, text+"\n")
}

func (f *failure) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.part) > 0 {
		f.line()
	}
}

// BuildSource unpacks an uploaded source and builds its Dockerfile. It returns the image's digest.
func (b *Builder) BuildSource(ctx context.Context, job build.Build, archive io.ReadSeeker, size int64, log io.Writer) (digest string, err error) {
	defer fault.Wrap(&err, "dockerfile.BuildSource(%s)", job.Name.ID)
	dir, err := os.MkdirTemp(b.path("work"), "source-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := source.Extract(ctx, archive, size, dir, source.DefaultLimits); err != nil {
		return "", err
	}
	img, err := b.Build(ctx, Request{Build: job, Context: dir}, log)
	return img.Digest, err
}
