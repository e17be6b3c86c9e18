// Package dockerfile builds images from Dockerfiles with BuildKit. Each project has one of its own, a child process
// with its own cache, users, network and limits: started when it is first needed, stopped when it has been idle.
//
// It serves the Docker API of build steps (builds/dockerapi) and deploys of a source with a Dockerfile. BuildKit has a
// network with the platform's sockets and nothing else: base images come from the mirror of foreign images through a
// registry that is there only, or from the platform's registry as the build's account. Each RUN step has another
// network, in which that registry is not (package runtime makes it). This package keeps no names of images and pushes
// nothing into repositories: what is built is a digest in the platform's blobs.
package dockerfile

import (
	"bufio"
	"bytes"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/fault"
)

// Engine runs BuildKit: *engine.Engine.
type Engine interface {
	Daemon(ctx context.Context, s engine.DaemonSpec) (*engine.Daemon, error)
}

// Foreign finds the foreign images that Dockerfiles start from: *mirror.Puller.
type Foreign interface {
	// Resolve returns the digest of the manifest of an image, all of which is there then. Say is told, a line at a time,
	// what comes from elsewhere. It fails with NotFound.
	Resolve(ctx context.Context, name string, say func(line string)) (digest string, err error)
	// Open opens a part of one.
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
}

// Config is what New needs.
type Config struct {
	Engine  Engine
	Foreign Foreign
	// Familiar is the mirror's name of a reference to an image.
	Familiar func(ref string) (string, error)
	Blobs    *blob.Dir // of the platform, where images go
	Dir      string    // of the projects' BuildKits, their caches in it
	Path     []string  // directories to look for buildkitd, buildkit-solve and runc in when the PATH has none
	Trust    []byte    // PEM bundle that BuildKit and RUN steps trust
	// this program, which is package runtime when it is started by that name, and engine.DaemonInit; "" builds nothing
	Binary   string
	Unpacker source.Unpacker
	TrustEnv []string      // the names of variables that make programs trust a bundle
	Files    []engine.File // laid over the host's for BuildKit: resolv.conf
	// Sockets is what answers inside the network of each RUN step, and of BuildKit itself, where port 80 is the
	// registry of base images. In a step it is Others.
	Sockets engine.Sockets
	Others  http.Handler
	// Online reports whether builds reach the outside.
	Online func() bool
	// Proxies are variables by which RUN steps find proxies, NAME=VALUE: Docker's predefined arguments, which are in no
	// layer and in no cache's key.
	Proxies []string
	// Token makes an access token of a build's account.
	Token func(ctx context.Context, b builds.Build) (string, error)
	Hosts []string // of the platform's registries

	All     engine.Limits // of all BuildKits and RUN steps together
	Project engine.Limits // of one project's
	Steps   engine.Limits // of a project's RUN steps together: less, so that its BuildKit works on
	Step    engine.Limits // of one RUN step
	Daemons int           // how many BuildKits run at once; 0 is four
	Cache   int64         // bytes of cache that are kept, of each project
	Idle    time.Duration // after which a BuildKit is stopped; 0 is two minutes
	Log     *slog.Logger
}

// Builder builds images. It is safe for concurrent use.
type Builder struct {
	cfg      Config
	removals sync.WaitGroup

	mu       sync.Mutex
	projects map[string]*project
	running  int           // daemons that have a place
	changed  chan struct{} // closed when a place may be free
	closed   bool
}

// Where things are in Config.Dir.
const (
	projects  = "projects"  // a directory for each project
	work      = "work"      // of builds under way
	trustFile = "trust.pem" // what BuildKit's client trusts
	removed   = "removed-"  // begins what is being removed
)

// New returns a builder. BuildKit does not run yet. What is in the directory besides the projects' caches is removed,
// such as the one cache for all projects that there was once.
func New(cfg Config) (*Builder, error) {
	if cfg.Idle == 0 {
		cfg.Idle = 2 * time.Minute
	}
	if cfg.Daemons == 0 {
		cfg.Daemons = 4
	}
	b := &Builder{cfg: cfg, projects: map[string]*project{}, changed: make(chan struct{})}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != projects {
			if err := b.remove(e.Name()); err != nil {
				return nil, err
			}
		}
	}
	for _, dir := range []string{projects, work} {
		if err := os.MkdirAll(b.path(dir), 0o700); err != nil {
			return nil, err
		}
	}
	return b, os.WriteFile(b.path(trustFile), cfg.Trust, 0o600)
}

// remove removes what is at a path below the directory, out of the way at once, from the disk in the background: a
// cache has many files.
func (b *Builder) remove(name string) error {
	to, err := os.MkdirTemp(b.cfg.Dir, removed)
	if err != nil {
		return err
	}
	if err := os.Rename(b.path(name), filepath.Join(to, "it")); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	b.removals.Go(func() {
		if err := os.RemoveAll(to); err != nil {
			b.cfg.Log.Error("remove a cache of builds", "err", err)
		}
	})
	return nil
}

// cacheAge is how long the cache of a project that builds no Dockerfiles any more is kept.
const cacheAge = 14 * 24 * time.Hour

// Keep removes the caches of projects that are gone, and those not used for long.
func (b *Builder) Keep(now time.Time, exists func(project string) bool) error {
	entries, err := os.ReadDir(b.path(projects))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if exists(e.Name()) && now.Sub(st.ModTime()) < cacheAge {
			continue
		}
		errs = append(errs, b.forget(e.Name()))
	}
	return errors.Join(errs...)
}

// forget stops a project's BuildKit and removes its cache, unless it builds just now.
func (b *Builder) forget(id string) error {
	b.mu.Lock()
	p := b.projects[id]
	b.mu.Unlock()
	if p == nil {
		return b.remove(filepath.Join(projects, id))
	}
	p.rest()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.daemon != nil {
		return nil // the next time
	}
	p.stage.forget()
	return b.remove(filepath.Join(projects, id))
}

func (b *Builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.cfg.Dir}, elem...)...)
}

// Request says what to build.
type Request struct {
	Build      builds.Build // whose account reads base images
	Context    string       // directory with the files that the Dockerfile copies; not trusted
	Dockerfile string       // its path in Context; "" is Dockerfile
	Target     string       // stage, "" for the last
	Platform   string       // "" for this machine's
	Args       map[string]string
	Labels     map[string]string
	NoCache    bool
	Network    string   // of RUN steps: "none", "" for the usual one
	Hosts      []string // "NAME=ADDRESS", names of their own in RUN steps
	Ulimits    []string // "NAME=SOFT:HARD", of RUN steps
	Shm        int64    // bytes of /dev/shm in RUN steps; 0 is the usual
	// Secrets are what RUN --mount=type=secret reads, Keys what the SSH agents of RUN --mount=type=ssh have, by their ids.
	Secrets, Keys map[string][]byte
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
		return Image{}, fault.New(fault.InvalidArgument, "The Dockerfile %.200q must be within the build context.",
			r.Dockerfile)
	}
	hosts, err := b.look(r, log)
	if err != nil {
		return Image{}, err
	}
	if b.cfg.Binary == "" {
		return Image{}, fault.New(fault.FailedPrecondition,
			"This program is not giggle itself and builds no Dockerfiles.")
	}
	p, err := b.acquire(ctx, r.Build.Project, hosts)
	if err != nil {
		return Image{}, err
	}
	defer p.release()
	dir, err := os.MkdirTemp(b.path(work), "b-")
	if err != nil {
		return Image{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log = &sharedLog{w: log}
	defer p.listen(log)()
	return p.solve(ctx, r, dir, log)
}

// sharedLog is a log that several write to.
type sharedLog struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// maxDockerfile bounds what is looked at of a Dockerfile, in bytes.
const maxDockerfile = 1 << 20

// look reads the Dockerfile before BuildKit does, for what would need a network. It returns the registries that
// BuildKit has to know.
func (b *Builder) look(r Request, log io.Writer) (hosts []string, err error) {
	root, err := os.OpenRoot(r.Context)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	f, err := root.OpenFile(r.Dockerfile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "unable to prepare context: there is no Dockerfile %q in the source",
			r.Dockerfile)
	}
	defer func() { _ = f.Close() }() // it was only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fault.New(fault.FailedPrecondition, "unable to prepare context: %q is not a file", r.Dockerfile)
	}
	lines, top := bufio.NewScanner(io.LimitReader(f, maxDockerfile)), true
	for lines.Scan() {
		text := lines.Text()
		top = top && strings.HasPrefix(strings.TrimSpace(text), "#")
		if m := syntaxLine().FindStringSubmatch(text); top && m != nil {
			_, _ = fmt.Fprintf(log, "# syntax=%s is ignored: BuildKit's own Dockerfile frontend builds it.\n", m[1])
		}
		if baseLine().MatchString(text) {
			hosts = append(hosts, b.unknown(text)...)
		}
	}
	for _, v := range r.Args {
		hosts = append(hosts, b.unknown("="+v)...)
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	return hosts[:min(len(hosts), maxHosts)], nil
}

// maxHosts bounds the registries that one Dockerfile brings up.
const maxHosts = 32

// baseLine finds the lines of a Dockerfile that may name an image.
var baseLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)^\s*(FROM|ARG)\s|\bfrom=`) })

// hostOf finds what may be the host of a registry: before the name of an image, or as the value of an argument.
var hostOf = sync.OnceValue(func() *regexp.Regexp {
	const label, port = `[a-z0-9][a-z0-9-]*`, `:[0-9]{1,5}`
	named := `(?:` + label + `\.)+[a-z]{2,63}(?:` + port + `)?|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:` + port + `)?`
	return regexp.MustCompile(`(?:^|[\s="',])(` + named + `|` + label + port + `)/[a-z0-9]` +
		`|=["']?(` + named + `)(?:["'/\s]|$)`)
})

// unknown are the registries in a text that BuildKit isn't told of anyway.
func (b *Builder) unknown(text string) (hosts []string) {
	for _, m := range hostOf().FindAllStringSubmatch(text, maxHosts) {
		host := m[1] + m[2]
		known := host == socketAddress || slices.Contains(foreign, host) || slices.Contains(b.cfg.Hosts, host)
		if !known {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

var syntaxLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*#\s*syntax\s*=\s*(\S{1,200})`) })

// options are what the Dockerfile frontend is asked for.
func (r Request) options(proxies []string) map[string]string {
	out := map[string]string{
		"filename": filepath.ToSlash(r.Dockerfile),
		"cmdline":  "none", // so that a "# syntax=" line is not followed (frontend/dockerfile/builder in BuildKit)
	}
	for key, value := range map[string]string{"target": r.Target, "platform": r.Platform} {
		if value != "" {
			out[key] = value
		}
	}
	for _, variable := range proxies {
		name, value, _ := strings.Cut(variable, "=")
		out["build-arg:"+name] = value
	}
	for k, v := range r.Args {
		if k != "BUILDKIT_SYNTAX" {
			out["build-arg:"+k] = v
		}
	}
	for k, v := range r.Labels {
		out["label:"+k] = v
	}
	if r.NoCache {
		out["no-cache"] = ""
	}
	// https://docs.docker.com/build/buildkit/frontend/ and frontend/dockerui/attr.go in BuildKit.
	for key, value := range map[string]string{
		"force-network-mode": r.Network,
		"add-hosts":          strings.Join(r.Hosts, ","),
		"ulimit":             strings.Join(r.Ulimits, ","),
	} {
		if value != "" {
			out[key] = value
		}
	}
	if r.Shm > 0 {
		out["shm-size"] = strconv.FormatInt(r.Shm, 10)
	}
	return out
}

// job is the input of BuildKit's client, hack/buildkit/solve.
type job struct {
	Address, Context string
	Options          map[string]string
	Image            string
	Accounts         map[string]account
	Secrets, Keys    map[string][]byte
}

type account struct {
	User, Password string
}

// solve runs BuildKit's client to its end. What it is to do it reads from its input: arguments are for all to see.
func (p *project) solve(ctx context.Context, r Request, dir string, log io.Writer) (Image, error) {
	b := p.b
	client, err := b.program("buildkit-solve")
	if err != nil {
		return Image{}, err
	}
	token, err := b.cfg.Token(ctx, r.Build)
	if err != nil {
		return Image{}, err
	}
	repository, done := p.stage.open()
	defer done()
	j := job{
		Address:  "unix://" + p.socket(),
		Context:  r.Context,
		Options:  r.options(b.cfg.Proxies),
		Image:    socketAddress + "/" + repository.name,
		Accounts: map[string]account{socketAddress: {stageUser, repository.secret}},
		Secrets:  r.Secrets,
		Keys:     r.Keys,
	}
	for _, host := range b.cfg.Hosts {
		j.Accounts[host] = account{"oauth2accesstoken", token}
	}
	in, err := json.Marshal(j)
	if err != nil {
		return Image{}, err
	}
	cmd := exec.CommandContext(ctx, client)
	cmd.Dir, cmd.Env = dir, []string{"DOCKER_CONFIG=" + dir, "HOME=" + dir, "SSL_CERT_FILE=" + b.path(trustFile)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	out := &failure{to: log}
	var result bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &result, out
	if err := p.run(cmd); err != nil {
		return Image{}, err
	}
	err = cmd.Wait()
	out.flush()
	if ctx.Err() != nil {
		return Image{}, ctx.Err()
	}
	if err != nil {
		return Image{}, p.explain(out, err)
	}
	var made struct {
		Digest string `json:"containerimage.digest"`
		Config string `json:"containerimage.config.digest"`
	}
	if err := json.Unmarshal(result.Bytes(), &made); err != nil {
		return Image{}, fmt.Errorf("result of BuildKit: %w", err)
	}
	if !p.stage.pushed(made.Digest) || !p.stage.pushed(made.Config) {
		return Image{}, errors.New("BuildKit returned an image that it did not push")
	}
	return Image{Digest: made.Digest, Config: made.Config}, nil
}

// missing finds the reference of a base image in BuildKit's message.
var missing = regexp.MustCompile(`failed to resolve source metadata for (\S+): (.*)`)

// unreached is how BuildKit, and the git that it runs, say that they reach no host of a URL.
var unreached = regexp.MustCompile(`dial tcp|no such host|[Cc]ould not resolve host`)

// explain turns the end of BuildKit's output into the build's failure.
func (p *project) explain(out *failure, err error) error {
	last := out.last
	if last == "" {
		last = err.Error()
	}
	if m := missing.FindStringSubmatch(last); m != nil {
		return p.missing(m[1], m[2])
	}
	if unreached.MatchString(last) && !p.b.cfg.Online() {
		return fault.New(fault.FailedPrecondition,
			"%s. Builds reach nothing outside of the platform: start it with egress (`giggle up --egress=public`), on "+
				"a machine with a network, or put the file into the source and COPY it", last)
	}
	return fault.New(fault.FailedPrecondition, "%s", last)
}

// missing is the failure of a base image that can't be read.
func (p *project) missing(ref, why string) error {
	if cause := p.stage.refused(ref); cause != "" {
		return fault.New(fault.FailedPrecondition, "failed to solve: %s", cause)
	}
	host, _, _ := strings.Cut(ref, "/")
	short := strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if strings.HasSuffix(host, "-docker.pkg.dev") {
		return fault.New(fault.FailedPrecondition, "failed to solve: the base image %s can't be read: %s", ref, why)
	}
	return fault.New(fault.FailedPrecondition,
		"failed to solve: the base image %s is not on this machine, and builds have no network. Put it into the mirror of foreign images with `giggle images add %s` (%s)", ref, short, why)
}

// failure passes BuildKit's output on and remembers why it failed: its last "error:" line.
type failure struct {
	mu   sync.Mutex
	to   io.Writer
	part []byte
	last string
}

// maxOutputLine bounds a line of the output.
const maxOutputLine = 64 << 10

func (f *failure) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := slices.Index(p, '\n')
		if i < 0 {
			f.part = append(f.part, p...)
			if len(f.part) > maxOutputLine {
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
func (b *Builder) BuildSource(
	ctx context.Context, job builds.Build, _ builds.Step, archive io.ReadSeeker, size int64, log io.Writer,
) (digest string, err error) {
	defer fault.Wrap(&err, "dockerfile.BuildSource(%s)", job.Name.ID)
	dir, err := os.MkdirTemp(b.path(work), "source-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Links may lead anywhere: BuildKit follows none out of the directory.
	if err := b.cfg.Unpacker.Extract(ctx, archive, size, dir, source.DefaultLimits); err != nil {
		return "", err
	}
	img, err := b.Build(ctx, Request{Build: job, Context: dir}, log)
	return img.Digest, err
}
