package dockerfile

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/build"
	"giggle/build/dockerfile/runtime"
	"giggle/engine"
	"giggle/fault"
)

// inside is the address of the platform's sockets, where BuildKit finds the registry of this package.
const inside = "169.254.169.254"

// foreign are the registries whose images are looked for in the mirror.
var foreign = []string{
	"docker.io", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io", "mirror.gcr.io", "quay.io", "ghcr.io", "mcr.microsoft.com", "registry.k8s.io",
	"public.ecr.aws", "registry.access.redhat.com", "docker.elastic.co", "nvcr.io", "cgr.dev", "giggle.dev", "localhost",
}

// trustFile has the certificates that BuildKit trusts, in Config.Dir.
const trustFile = "trust.pem"

// starting bounds how long BuildKit takes until it answers.
const starting = 30 * time.Second

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
	return "", fault.New(fault.FailedPrecondition, "Dockerfiles are built with BuildKit, and this machine has no %s. Run `make setup`, which builds it.", name)
}

// acquire makes sure that BuildKit runs, and holds it until release is called.
func (b *Builder) acquire(ctx context.Context) (release func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, fault.New(fault.Unavailable, "The platform stops.")
	}
	if b.daemon != nil {
		select {
		case <-b.daemon.Done(): // it crashed
			b.cfg.Log.Error("BuildKit ended by itself", "err", b.daemon.Err(), "log", b.tail.String())
			if err := b.stop(); err != nil {
				return nil, err
			}
		default:
		}
	}
	if b.daemon == nil {
		if err := b.start(ctx); err != nil {
			return nil, err
		}
	}
	if b.idle != nil {
		b.idle.Stop()
	}
	b.users++
	return b.release, nil
}

func (b *Builder) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users > 0 || b.closed {
		return
	}
	b.idle = time.AfterFunc(b.cfg.Idle, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.users > 0 || b.closed {
			return
		}
		if err := b.stop(); err != nil {
			b.cfg.Log.Error("stop BuildKit", "err", err)
		}
	})
}

// start starts BuildKit and waits until it answers. The lock is held.
func (b *Builder) start(ctx context.Context) error {
	daemon, err := b.program("buildkitd")
	if err != nil {
		return err
	}
	program, err := b.program("runc")
	if err != nil {
		return err
	}
	socket := b.path("buildkitd.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	trust := b.path(trustFile)
	if err := os.WriteFile(trust, b.cfg.Trust, 0o644); err != nil {
		return err
	}
	if b.cfg.Binary != "" {
		program, err = runtime.Install(b.path("runtime"), b.cfg.Binary, runtime.Plan{Runtime: program, Trust: trust, Env: b.cfg.TrustEnv})
		if err != nil {
			return err
		}
	}
	config := b.path("buildkitd.toml")
	if err := os.WriteFile(config, []byte(b.config(program)), 0o600); err != nil {
		return err
	}
	b.tail = &tail{}
	sockets := b.cfg.Sockets
	sockets.Metadata = func(l net.Listener) {
		s := &http.Server{Handler: b.stage, ReadHeaderTimeout: 10 * time.Second}
		_ = s.Serve(l) // ends with the daemon
	}
	begin := time.Now()
	d, err := b.cfg.Engine.Daemon(ctx, engine.DaemonSpec{
		ID: "buildkit", Args: []string{daemon, "--config", config, "--root", b.path("state"), "--addr", "unix://" + socket},
		Env:   []string{"PATH=" + strings.Join(b.cfg.Path, ":"), "HOME=" + b.cfg.Dir, "SSL_CERT_FILE=" + trust, "TMPDIR=" + b.path("work")},
		Files: b.cfg.Files, Memory: b.cfg.Memory, Pids: b.cfg.Pids, Output: b.tail, Sockets: sockets,
	})
	if err != nil {
		return err
	}
	b.daemon = d
	if err := b.answers(ctx, socket); err != nil {
		if stopped := b.stop(); stopped != nil {
			b.cfg.Log.Error("stop BuildKit", "err", stopped)
		}
		return err
	}
	b.cfg.Log.Debug("BuildKit runs", "in", time.Since(begin).Round(time.Millisecond))
	return nil
}

// answers waits until BuildKit takes connections.
func (b *Builder) answers(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
		select {
		case <-b.daemon.Done():
			return fmt.Errorf("buildkitd ended: %w: %s", b.daemon.Err(), b.tail)
		case <-ctx.Done():
			return fmt.Errorf("buildkitd does not answer: %w: %s", ctx.Err(), b.tail)
		case <-tick.C:
		}
	}
}

// run starts BuildKit's client beside BuildKit: it is the client that gets tokens from registries.
func (b *Builder) run(cmd *exec.Cmd) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.daemon == nil {
		return fault.New(fault.Unavailable, "The platform stops.")
	}
	return b.daemon.Start(cmd)
}

// stop stops BuildKit. The lock is held.
func (b *Builder) stop() error {
	if b.daemon == nil {
		return nil
	}
	d := b.daemon
	b.daemon = nil
	return d.Stop(5 * time.Second)
}

// Running reports whether BuildKit runs.
func (b *Builder) Running() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.daemon != nil
}

// Close stops BuildKit; builds under way fail.
func (b *Builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.idle != nil {
		b.idle.Stop()
	}
	return b.stop()
}

// config is BuildKit's configuration (docs/buildkitd.toml.md in its source). The host's network, as it calls it, is the
// namespace that it runs in.
func (b *Builder) config(runtime string) string {
	var s strings.Builder
	fmt.Fprintf(&s, `[worker.oci]
enabled = true
snapshotter = "overlayfs"
binary = %q
networkMode = "host"
defaultCgroupParent = %q
max-parallelism = 4
gc = true
gckeepstorage = "%dMB"
[worker.containerd]
enabled = false
[history]
maxAge = "1h"
maxEntries = 20
[frontend."gateway.v0"]
enabled = false
[registry.%q]
http = true
`, runtime, b.cfg.Engine.DaemonCgroup("buildkit"), b.cfg.Cache>>20, inside)
	for _, host := range foreign {
		fmt.Fprintf(&s, "[registry.%q]\nmirrors = [%q]\n", host, inside+"/mirror")
	}
	return s.String()
}

// credentials writes the file that BuildKit's client has the credentials of one build in.
func (b *Builder) credentials(ctx context.Context, job build.Build, dir, secret string) error {
	type entry struct {
		Auth string `json:"auth"`
	}
	basic := func(user, password string) entry {
		return entry{base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	}
	auths := map[string]entry{inside: basic(stageUser, secret)}
	token, err := b.cfg.Token(ctx, job)
	if err != nil {
		return err
	}
	for _, host := range b.cfg.Hosts {
		auths[host] = basic("oauth2accesstoken", token)
	}
	raw, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
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
