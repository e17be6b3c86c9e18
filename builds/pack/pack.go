// Package pack builds sources with Cloud Native Buildpacks: it runs the lifecycle of a builder image, Google's or any
// other, in a container of the engine.
//
// It serves build steps, as what stands in for the pack CLI, and package buildpack, for the languages that it does not
// know. A builder has the rights of a build step and no more: the lifecycle reads its run image from a directory and
// writes what it makes to one (an OCI layout), so that it needs no registry, no daemon and no token. Where images come
// from and go to is behind interfaces that cloud fills.
package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// Engine runs containers: *engine.Engine.
type Engine interface {
	Prepare(ctx context.Context, s engine.Spec) (*engine.Instance, error)
}

// Finder finds builders and run images, as the build's account. Both fail with NotFound and PermissionDenied.
type Finder interface {
	// Image returns an image ready to be mounted. Say is told, a line at a time, what comes from elsewhere.
	Image(ctx context.Context, b builds.Build, name string, say func(line string)) (oci.Image, error)
	// Pull brings an image into the platform's blobs and returns its manifest's digest.
	Pull(ctx context.Context, b builds.Build, name string, say func(line string)) (digest string, err error)
}

// Inspector reads manifests of the platform's blobs: *oci.Images.
type Inspector interface {
	Inspect(ctx context.Context, digest string) (oci.Manifest, error)
}

// Config is what New needs.
type Config struct {
	Engine    Engine
	Images    Finder
	Manifests Inspector
	Blobs     *blob.Dir // of the platform
	// Scratch is a directory of a build that is bounded, and removed with the build.
	Scratch  func(b builds.Build) string
	Caches   string // directory of the projects' caches, on the same file system
	Sockets  func(b builds.Build) engine.Sockets
	Groups   func(b builds.Build) []engine.Group // that its containers share limits with; nil is none
	Files    []engine.File                       // laid over every builder: resolv.conf, certificates
	Env      []string                            // of the lifecycle
	Memory   int64                               // bytes, of one build's container
	Pids     int64
	Unpacker source.Unpacker
	NewID    func() string
	Now      func() time.Time
	Log      *slog.Logger
}

// Lifecycle builds sources with builders.
type Lifecycle struct{ cfg Config }

// New returns what builds sources with builders.
func New(cfg Config) *Lifecycle { return &Lifecycle{cfg} }

// Request is what is to be built.
type Request struct {
	Image      string // the name that it gets
	Builder    string // "" for DefaultBuilder
	RunImage   string // "" for the builder's
	Process    string // that the image starts by default; "" for what the buildpacks say
	Level      string // of the log; "" for info
	Buildpacks []string
	Env        map[string]string
	ClearCache bool
}

// BuildSource builds a source with Google's builder. It fails with NotFound where that is not to be had.
func (l *Lifecycle) BuildSource(
	ctx context.Context, of builds.Build, step builds.Step, archive io.ReadSeeker, size int64, log io.Writer,
) (digest string, err error) {
	return l.Build(ctx, of, Request{Image: step.Image, Env: step.Variables()}, archive, size, log)
}

// The directories of the lifecycle's container.
const (
	appDir      = "/workspace"
	layersDir   = "/layers"
	platformDir = "/platform"
	cacheDir    = "/cache"
	layoutDir   = "/layout"
)

// Build builds the source in an archive and returns the image's digest; the image is in the platform's blobs then. It
// fails with NotFound where the builder or its run image is not to be had.
func (l *Lifecycle) Build(
	ctx context.Context, b builds.Build, r Request, archive io.ReadSeeker, size int64, log io.Writer,
) (digest string, err error) {
	defer fault.Wrap(&err, "pack.Build(%s)", b.Name.ID)
	if r.Builder == "" {
		r.Builder = DefaultBuilder
	}
	for name, value := range r.Env {
		if err := checkVariable(name, value); err != nil {
			return "", err
		}
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }
	with, err := l.builder(ctx, b, r.Builder, func(line string) { say("%s", line) })
	if err != nil {
		return "", err
	}
	name, below, err := l.runImage(ctx, b, r, with, func(line string) { say("%s", line) })
	if err != nil {
		return "", err
	}
	order, err := with.order(r.Buildpacks)
	if err != nil {
		return "", err
	}
	out, err := layoutPath(r.Image)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(l.cfg.Scratch(b), "pack-") // only root can enter: steps leave files of any kind
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := l.furnish(ctx, dir, r, name, below, order, archive, size); err != nil {
		return "", err
	}
	giveBack, err := l.takeCache(b.Project, r, with, filepath.Join(dir, "cache"))
	if err != nil {
		return "", err
	}
	defer giveBack()
	if err := own(dir, with.uid, with.gid); err != nil {
		return "", err
	}
	say("Builder %s, run image %s, Platform API %s", r.Builder, name, with.api)
	if err := l.create(ctx, b, r, with, dir, name, order != "", log); err != nil {
		return "", err
	}
	return l.collect(ctx, filepath.Join(dir, "layout"), out, below)
}

// furnish makes the directories of the container, with the source, the variables and the run image.
func (l *Lifecycle) furnish(
	ctx context.Context, dir string, r Request, runImage string, below oci.Manifest, order string,
	archive io.ReadSeeker, size int64,
) error {
	for _, sub := range []string{"app", "layers", "layout", "platform", "platform/env"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	// Links may lead anywhere: nobody follows them but the container.
	if err := l.cfg.Unpacker.Extract(ctx, archive, size, filepath.Join(dir, "app"), source.DefaultLimits); err != nil {
		return err
	}
	for name, value := range r.Env {
		if err := os.WriteFile(filepath.Join(dir, "platform", "env", name), []byte(value), 0o644); err != nil {
			return err
		}
	}
	if order != "" {
		if err := os.WriteFile(filepath.Join(dir, "layers", "order.toml"), []byte(order), 0o644); err != nil {
			return err
		}
	}
	return l.layOut(ctx, filepath.Join(dir, "layout"), runImage, below)
}

// own gives all that is in a directory to the builder's user. No container has written to it yet, but for the cache,
// of which only the top is given: the rest is of the same user already.
func own(dir string, uid, gid int) error {
	cache := filepath.Join(dir, "cache")
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		if err := os.Lchown(p, uid, gid); err != nil {
			return err
		}
		if p == cache {
			return fs.SkipDir
		}
		return nil
	})
}

// create runs the lifecycle's creator to its end.
func (l *Lifecycle) create(
	ctx context.Context, b builds.Build, r Request, with builder, dir, runImage string, ordered bool, log io.Writer,
) error {
	level := r.Level
	if level == "" {
		level = "info"
	}
	s := engine.Spec{
		ID:     l.cfg.NewID(),
		Layers: with.Layers,
		User:   fmt.Sprintf("%d:%d", with.uid, with.gid),
		Dir:    appDir,
		Memory: l.cfg.Memory,
		Pids:   l.cfg.Pids,
		Disk:   true,
		Files:  l.cfg.Files,
		// Writing to a directory is what the lifecycle calls experimental.
		Env: override(with.Config.Env,
			append(slices.Clone(l.cfg.Env), "CNB_PLATFORM_API="+with.api, "CNB_EXPERIMENTAL_MODE=warn")),
		Args: []string{"/cnb/lifecycle/creator", "-app", appDir, "-layers", layersDir, "-platform", platformDir,
			"-cache-dir", cacheDir, "-layout", "-layout-dir", layoutDir, "-run-image", runImage, "-log-level", level,
			"-no-color", "-uid", fmt.Sprint(with.uid), "-gid", fmt.Sprint(with.gid)},
		Sockets: l.cfg.Sockets(b).Saying(func(text string) { _, _ = fmt.Fprintln(log, text) }, l.cfg.Now),
	}
	for _, m := range []struct{ sub, target string }{{"app", appDir}, {"layers", layersDir}, {"platform", platformDir},
		{"cache", cacheDir}, {"layout", layoutDir}} {
		s.Mounts = append(s.Mounts, engine.Mount{Source: filepath.Join(dir, m.sub), Target: m.target})
	}
	if l.cfg.Groups != nil {
		s.Groups = l.cfg.Groups(b)
	}
	if r.Process != "" {
		s.Args = append(s.Args, "-process-type", r.Process)
	}
	if ordered {
		s.Args = append(s.Args, "-order", layersDir+"/order.toml")
	}
	s.Args = append(s.Args, r.Image)
	s.Output = func(line engine.Line) { _, _ = fmt.Fprintln(log, line.Text) }
	c, err := l.cfg.Engine.Prepare(ctx, s)
	if err != nil {
		return err
	}
	exit, err := c.Run(ctx)
	if err != nil {
		return err
	}
	return ended(r.Builder, exit, l.cfg.Memory)
}

// override is a builder's environment with variables in place of its own: of two of one name a program takes which it
// likes.
func override(env, with []string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(have string) bool {
		name, _, _ := strings.Cut(have, "=")
		return slices.ContainsFunc(with, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	})
	return append(out, with...)
}

// ended is nil for a lifecycle that ended well, else why it failed. The statuses are those of the Platform API.
func ended(builder string, exit engine.Exit, memory int64) error {
	why := ""
	switch {
	case exit.Code == 0:
		return nil
	case exit.OOM:
		why = fmt.Sprintf("it ran out of its memory of %d MiB", memory>>20)
	case exit.Code == 11:
		why = "it knows none of the Platform APIs that Giggle speaks"
	case exit.Code == 20:
		why = "none of its buildpacks fits the source"
	case exit.Code == 21:
		why = "a buildpack failed when it looked at the source"
	case exit.Code == 51:
		why = "a buildpack failed to build the source"
	default:
		why = "its lines above say why"
	}
	return fault.New(fault.FailedPrecondition, "The builder %s failed with status %d: %s.", builder, exit.Code, why)
}

// isGoogles reports whether a builder is one of those that the built-in builders can stand in for.
func isGoogles(name string) bool {
	return name == "" || name == "gcr.io/buildpacks/builder" || strings.HasPrefix(name, "gcr.io/buildpacks/builder:")
}
