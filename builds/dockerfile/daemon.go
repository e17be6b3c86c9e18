package dockerfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"giggle/builds/dockerfile/runtime"
	"giggle/engine"
	"giggle/fault"
)

// socketAddress is the address of the platform's sockets, where BuildKit finds the registry of this package.
const socketAddress = "169.254.169.254"

// foreign are registries whose images are looked for beside the platform's own, which may be of others, too.
var foreign = []string{
	"docker.io", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io", "mirror.gcr.io", "quay.io", "ghcr.io",
	"mcr.microsoft.com", "registry.k8s.io",
	"public.ecr.aws", "registry.access.redhat.com", "docker.elastic.co", "nvcr.io", "cgr.dev", "giggle.dev",
	"localhost",
}

// Where BuildKit finds its files.
const (
	socketPath = engine.DaemonRun + "/buildkitd.sock"
	configPath = "/etc/buildkitd.toml"
	trustPath  = "/etc/giggle-trust.pem"
	tmpPath    = engine.DaemonState + "/tmp"
	cachePath  = engine.DaemonState + "/" + cacheDir
)

// startTimeout bounds how long BuildKit takes until it answers.
const startTimeout = 30 * time.Second

// maxStepConns bounds those of one RUN step to what it finds on port 80.
const maxStepConns = 128

// program finds one of BuildKit's programs: in the PATH, then in the directories of the configuration.
func (b *Builder) program(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil && filepath.IsAbs(p) {
		return p, nil
	}
	for _, dir := range b.cfg.Path {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 && filepath.IsAbs(p) {
			return p, nil
		}
	}
	return "", fault.New(fault.FailedPrecondition,
		"Dockerfiles are built with BuildKit, and this machine has no %s. Run `hack/setup build` in Giggle's repository, which builds it.", name)
}

// project is what builds of one project share: a BuildKit with its cache, and what it has pushed.
type project struct {
	b     *Builder
	id    string
	stage *stage

	// Guarded by the builder's lock.
	users int
	busy  int       // those of them that build
	up    bool      // it has one of the places of running daemons
	since time.Time // when the last user left
	idle  *time.Timer

	mu     sync.Mutex // held while the daemon starts and stops; taken before the builder's
	daemon *engine.Daemon
	tail   *tail    // of the daemon's log
	hosts  []string // registries that its builds have named, besides those that every BuildKit knows

	hearing sync.Mutex
	logs    map[io.Writer]bool // of the builds that are under way
}

// acquire makes sure that a project's BuildKit runs and knows some registries, and holds it until release is called.
func (b *Builder) acquire(ctx context.Context, id string, hosts []string) (*project, error) {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return nil, fault.New(fault.InvalidArgument, "%.100q is no project.", id)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, stopping()
	}
	p := b.projects[id]
	if p == nil {
		p = &project{b: b, id: id}
		p.stage = newStage(b.cfg, p.say)
		b.projects[id] = p
	}
	p.users++
	if p.idle != nil {
		p.idle.Stop()
	}
	b.mu.Unlock()
	for {
		others, err := p.ensure(ctx, hosts)
		if err != nil {
			p.leave(0)
			return nil, err
		}
		if others == nil {
			return p, nil
		}
		select {
		case <-others:
		case <-ctx.Done():
			p.leave(0)
			return nil, ctx.Err()
		}
	}
}

func stopping() error { return fault.New(fault.Unavailable, "The platform stops.") }

// ensure starts the daemon where none runs that knows the registries: what it is told of them it reads once. Where
// others build with one that doesn't, it returns what is closed when that may have changed.
func (p *project) ensure(ctx context.Context, hosts []string) (others <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := slices.ContainsFunc(hosts, func(h string) bool { return !slices.Contains(p.hosts, h) })
	if p.daemon != nil {
		select {
		case <-p.daemon.Done(): // it crashed
			p.b.cfg.Log.Error("BuildKit ended by itself", "project", p.id, "err", p.daemon.Err(), "log",
				p.tail.String())
			if err := p.stopLocked(); err != nil {
				return nil, err
			}
		default:
			p.b.mu.Lock()
			busy, changed := p.busy, p.b.changed
			if !news {
				p.busy++
			}
			p.b.mu.Unlock()
			if !news {
				return nil, nil
			}
			if busy > 0 {
				return changed, nil
			}
			if err := p.stopLocked(); err != nil {
				return nil, err
			}
		}
	}
	if news {
		if len(p.hosts) >= maxProjectHosts {
			p.hosts = nil
		}
		p.hosts = append(p.hosts, hosts...)
		slices.Sort(p.hosts)
		p.hosts = slices.Compact(p.hosts)
	}
	if err := p.b.place(ctx, p); err != nil {
		return nil, err
	}
	if err := p.startLocked(ctx); err != nil {
		p.hosts = nil // none of them keeps the next build from starting it
		if p.daemon == nil {
			p.b.vacate(p)
		}
		return nil, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.busy++
	return nil, nil
}

// maxProjectHosts bounds the registries that a project's BuildKit is told of besides those that all are.
const maxProjectHosts = 256

// place waits until fewer daemons run than may: the one that has been idle longest is stopped for it.
func (b *Builder) place(ctx context.Context, p *project) error {
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return stopping()
		}
		if b.running < b.cfg.Daemons {
			b.running++
			p.up = true
			b.mu.Unlock()
			return nil
		}
		var oldest *project
		for _, other := range b.projects {
			if other.up && other.users == 0 && (oldest == nil || other.since.Before(oldest.since)) {
				oldest = other
			}
		}
		changed := b.changed
		b.mu.Unlock()
		if oldest != nil {
			oldest.rest()
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// vacate gives a project's place back.
func (b *Builder) vacate(p *project) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.up {
		p.up = false
		b.running--
	}
	b.newsLocked()
}

// newsLocked wakes who waits for a place.
func (b *Builder) newsLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// release ends what acquire began.
func (p *project) release() { p.leave(1) }

func (p *project) leave(busy int) {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	p.busy -= busy
	p.users--
	if b.closed {
		return
	}
	if p.users == 0 {
		p.since = time.Now()
		p.idle = time.AfterFunc(b.cfg.Idle, p.rest)
	}
	b.newsLocked()
}

// rest stops an idle daemon.
func (p *project) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b.mu.Lock()
	used := p.users > 0 || p.b.closed
	p.b.mu.Unlock()
	if used {
		return
	}
	if err := p.stopLocked(); err != nil {
		p.b.cfg.Log.Error("stop BuildKit", "project", p.id, "err", err)
	}
}

// startLocked starts BuildKit and waits until it answers.
func (p *project) startLocked(ctx context.Context) error {
	b := p.b
	programs := map[string]string{runtime.Name: b.cfg.Binary}
	for _, name := range []string{"buildkitd", "runc"} {
		at, err := b.program(name)
		if err != nil {
			return err
		}
		if programs[name], err = filepath.EvalSymlinks(at); err != nil {
			return err
		}
	}
	dir := b.path(projects, p.id)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.RemoveAll(filepath.Join(dir, "tmp")),
		os.Mkdir(filepath.Join(dir, "tmp"), 0o700)); err != nil {
		return err
	}
	if err := p.openCaches(filepath.Join(dir, cacheDir)); err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil { // Keep goes by it
		return err
	}
	in := func(name string) string { return path.Join(engine.DaemonPrograms, name) }
	plan, err := json.Marshal(runtime.Plan{
		Runtime: in("runc"),
		Trust:   trustPath,
		Env:     b.cfg.TrustEnv,
		IDs:     engine.IDs,
		Caches:  cachePath,
	})
	if err != nil {
		return err
	}
	sockets, steps := b.cfg.Sockets, b.cfg.Sockets
	sockets.Metadata = func(l net.Listener) { serve(l, p.stage) }
	sockets = sockets.Saying(p.say, time.Now) // ADD of a URL is BuildKit's own
	steps.Metadata = func(l net.Listener) { serve(netutil.LimitListener(l, maxStepConns), b.cfg.Others) }
	steps = steps.Saying(p.say, time.Now)
	p.tail = &tail{}
	begin := time.Now()
	d, err := b.cfg.Engine.Daemon(ctx, engine.DaemonSpec{
		ID: p.id,
		Args: []string{in("buildkitd"), "--config", configPath, "--root", engine.DaemonState, "--addr",
			"unix://" + socketPath},
		Env: []string{"PATH=" + engine.DaemonPrograms + ":" + engine.DefaultPath, "HOME=/tmp",
			"SSL_CERT_FILE=" + trustPath, "TMPDIR=" + tmpPath},
		Dir:      dir,
		Programs: programs,
		Files: append([]engine.File{
			{Path: "/etc/hosts", Data: hostsFile()},
			{Path: configPath, Data: []byte(b.config(in(runtime.Name), p.hosts))},
			{Path: trustPath, Data: b.cfg.Trust},
			{Path: runtime.PlanFile(in(runtime.Name)), Data: plan},
		}, b.cfg.Files...),
		Output:           p.tail,
		Sockets:          sockets,
		ContainerSockets: steps,
		All:              b.cfg.All,
		Whole:            b.cfg.Project,
		Containers:       b.cfg.Steps,
		Each:             b.cfg.Step,
	})
	if err != nil {
		return err
	}
	p.daemon = d
	if err := p.answers(ctx); err != nil {
		if stopped := p.stopLocked(); stopped != nil {
			b.cfg.Log.Error("stop BuildKit", "project", p.id, "err", stopped)
		}
		return err
	}
	b.cfg.Log.Debug("BuildKit runs", "project", p.id, "in", time.Since(begin).Round(time.Millisecond))
	return nil
}

// listen has a log hear of what RUN steps and BuildKit itself were refused, until the function that it returns is
// called. Which build that belongs to only BuildKit knows, so all of the project's hear of it.
func (p *project) listen(log io.Writer) func() {
	p.hearing.Lock()
	defer p.hearing.Unlock()
	if p.logs == nil {
		p.logs = make(map[io.Writer]bool)
	}
	p.logs[log] = true
	return func() {
		p.hearing.Lock()
		defer p.hearing.Unlock()
		delete(p.logs, log)
	}
}

func (p *project) say(text string) {
	p.hearing.Lock()
	defer p.hearing.Unlock()
	for log := range p.logs {
		_, _ = fmt.Fprintln(log, text) // a log that can't be written fails the build elsewhere
	}
}

// cacheDir is where the caches of RUN steps are in a project's directory (package runtime).
const cacheDir = "caches"

// openCaches makes the caches of a project's RUN steps, which have a quarter of what the project may keep: what has
// grown out of it since BuildKit was last started begins again.
func (p *project) openCaches(dir string) error {
	if bytes, err := used(dir); err != nil || bytes > p.b.cfg.Cache/4 {
		if err := p.b.remove(filepath.Join(projects, p.id, cacheDir)); err != nil {
			return err
		}
	}
	if st, err := os.Lstat(dir); err == nil && !st.IsDir() { // BuildKit is root where this is
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return runtime.MakeCaches(dir)
}

// used is how many bytes files take; 0 where nothing is there. It fails on what no tool makes, such as paths that are
// too long.
func used(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		st, err := d.Info()
		if err == nil {
			bytes += st.Size()
		}
		return err
	})
	return bytes, err
}

func serve(l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	_ = s.Serve(l) // ends with the listener
}

// answers waits until BuildKit takes connections.
func (p *project) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := p.daemon.Dial(socketPath); err == nil {
			return c.Close()
		}
		select {
		case <-p.daemon.Done():
			return fmt.Errorf("buildkitd ended: %w: %s", p.daemon.Err(), p.tail)
		case <-ctx.Done():
			return fmt.Errorf("buildkitd does not answer: %w: %s", ctx.Err(), p.tail)
		case <-tick.C:
		}
	}
}

// run starts BuildKit's client beside BuildKit: it is the client that gets tokens from registries.
func (p *project) run(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.daemon == nil {
		return stopping()
	}
	return p.daemon.Start(cmd)
}

// socket is BuildKit's, as its client sees it.
func (p *project) socket() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.daemon == nil {
		return ""
	}
	return p.daemon.Path(socketPath)
}

// stopLocked stops BuildKit.
func (p *project) stopLocked() error {
	if p.daemon == nil {
		return nil
	}
	d := p.daemon
	p.daemon = nil
	err := d.Stop(5 * time.Second)
	p.b.vacate(p)
	return err
}

// Running counts the daemons.
func (b *Builder) Running() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

// Close stops all of BuildKit; builds under way fail.
func (b *Builder) Close() error {
	b.mu.Lock()
	b.closed = true
	var all []*project
	for _, p := range b.projects {
		if p.idle != nil {
			p.idle.Stop()
		}
		all = append(all, p)
	}
	b.newsLocked()
	b.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			errs[i] = p.stopLocked()
		})
	}
	wg.Wait()
	b.removals.Wait()
	return errors.Join(errs...)
}

// hostsFile is BuildKit's /etc/hosts. Where the mirror has no image BuildKit asks the registry itself, if builds have a
// way to the outside: past what `giggle up --pull` says, the log-ins and the limits. So those are at the platform's own
// address.
func hostsFile() []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, host := range append([]string{"registry-1.docker.io", "index.docker.io"}, foreign...) {
		if host != "localhost" {
			fmt.Fprintf(&b, "%s %s\n", socketAddress, host)
		}
	}
	return []byte(b.String())
}

// config is BuildKit's configuration (docs/buildkitd.toml.md in its source). The host's network, as it calls it, is the
// namespace that our runtime gives to each step.
func (b *Builder) config(runtime string, more []string) string {
	var s strings.Builder
	fmt.Fprintf(&s, `[worker.oci]
enabled = true
snapshotter = "overlayfs"
binary = %q
networkMode = "host"
max-parallelism = 4
gc = true
maxUsedSpace = "%dMB"
minFreeSpace = "10%%"
[worker.containerd]
enabled = false
[history]
maxAge = "1h"
maxEntries = 20
[frontend."gateway.v0"]
enabled = false
[registry.%q]
http = true
`, runtime, (b.cfg.Cache-b.cfg.Cache/4)>>20, socketAddress)
	hosts := slices.Concat(b.cfg.Hosts, foreign, more)
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		fmt.Fprintf(&s, "[registry.%q]\nmirrors = [%q]\n", host, socketAddress+"/mirror")
	}
	return s.String()
}

// tail keeps the end of BuildKit's log.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// tailSize is how much of the log is kept, in bytes.
const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - tailSize; over > 0 {
		t.data = slices.Delete(t.data, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
