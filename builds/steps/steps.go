// Package steps runs the steps of Cloud Build's builds: each is a container of the engine, as hardened as a service's,
// and all of one build share /workspace, /builder/home and their volumes. What is built in runs in place of a
// container.
//
// It serves package builds, whose scheduler says which build runs and what becomes of its images and files. Where a
// step's image is, what answers on its sockets and what is built in is behind interfaces that cloud fills. It builds no
// image itself: the store of those that steps make is another's.
package steps

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"giggle/builds"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/engine/lan"
	"giggle/fault"
	"giggle/oci"
)

// Engine runs the containers: *engine.Engine.
type Engine interface {
	Prepare(ctx context.Context, s engine.Spec) (*engine.Instance, error)
}

// Finder finds the images of steps.
type Finder interface {
	// Image returns an image ready to be mounted, by the name that the step gives. Say is told, a line at a time, what
	// comes from elsewhere. It fails with NotFound, and with PermissionDenied when the build's account may not read it.
	Image(ctx context.Context, b builds.Build, name string, say func(line string)) (oci.Image, error)
}

// Store keeps the images that the steps of a build make, until the build has ended.
type Store interface {
	// Find returns the digest of an image, or NotFound.
	Find(ctx context.Context, b builds.Build, name string) (digest string, err error)
	// Image returns an image ready to be mounted, or NotFound.
	Image(ctx context.Context, b builds.Build, name string) (oci.Image, error)
	// Add keeps an image of the platform's blobs under names.
	Add(ctx context.Context, b builds.Build, digest string, names ...string) error
	// Drop forgets the images of a build.
	Drop(b builds.Build) error
}

// SourceBuilder makes an image of a source: what is built in.
type SourceBuilder interface {
	// BuildSource returns the digest of the image's manifest, which the platform's blobs hold then. What the user
	// should know as it goes is written to log. A fault's message is the build's failure for people; an error that is
	// none is ours.
	BuildSource(
		ctx context.Context, b builds.Build, step builds.Step, source io.ReadSeeker, size int64, log io.Writer,
	) (digest string, err error)
}

// OwnImage is an image of the platform's own in place of one of Google's.
type OwnImage struct {
	oci.Image
	Mounts []engine.Mount
	Files  []engine.File
	Env    []string
}

// Program does what a step's container would do, in place of it.
type Program interface {
	// Run does a step. It returns the names and the digest of the image that it made, if it made one: the platform's
	// blobs hold it then. A fault's message is the step's failure for people.
	Run(ctx context.Context, b builds.Build, step builds.Step, log io.Writer) (names []string, digest string, err error)
}

// Config is what New needs.
type Config struct {
	Engine Engine
	Images Finder
	// Builders are the images that are always the platform's own, by their names without tag:
	// "gcr.io/cloud-builders/gcloud".
	Builders map[string]func(ctx context.Context, b builds.Build) (OwnImage, error)
	Programs map[string]Program // in place of containers, by the names of images without tag
	BuiltIn  map[builds.Builtin]SourceBuilder
	Store    Store // nil when there is no builder that makes images
	// Docker returns the path of the socket of a build's Docker, which every step has; nil is none.
	Docker func(b builds.Build) (path string, err error)
	// Networks are what a step of a build is on, by its number; nil is none.
	Networks func(b builds.Build, step int) ([]lan.Member, error)
	// Token makes an access token of a build's account, for the registries at Hosts; nil is none.
	Token    func(ctx context.Context, b builds.Build) (string, error)
	Hosts    []string
	Dir      string // of the workspaces; what is in it is removed
	Sockets  func(b builds.Build) engine.Sockets
	Groups   func(b builds.Build) []engine.Group // that its containers share limits with; nil is none
	Files    []engine.File                       // laid over every image: resolv.conf, certificates
	Env      []string                            // of every step
	Memory   int64                               // bytes, of one step
	Pids     int64                               // processes of one step
	Disk     int64                               // bytes, of one build's workspace
	Admit    func(n int64) error                 // fails when the disk is full; nil never does
	Parallel int                                 // steps at once, of all builds
	Unpacker source.Unpacker                     // of the workspaces' sources
	NewID    func() string
	Now      func() time.Time
	Log      *slog.Logger
}

// Runner runs the steps of builds.
type Runner struct {
	cfg   Config
	slots *semaphore.Weighted
	kept  kept
}

var _ builds.Steps = (*Runner)(nil)

// New returns a runner. What builds left behind when the platform was killed is removed.
func New(cfg Config) (*Runner, error) {
	if cfg.Admit == nil {
		cfg.Admit = func(int64) error { return nil }
	}
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, err
	}
	return &Runner{
		cfg:   cfg,
		slots: semaphore.NewWeighted(int64(cfg.Parallel)),
		kept:  kept{busy: make(map[*workspace]int)},
	}, os.MkdirAll(cfg.Dir, 0o700)
}

// workspace is what the steps of one build share: directories below dir.
type workspace struct {
	*Runner
	build builds.Build
	dir   string
	until time.Time // it is kept until then, where it is kept

	source io.ReadSeeker // for what is built in, which unpacks it by rules of its own
	size   int64

	auth string // of the build's account at registries, as it stands in its configuration of Docker

	mu     sync.Mutex
	made   map[string]string   // digests of images that are made by what is built in
	specs  map[int]engine.Spec // of the steps that were started
	failed int                 // the step that ended the build, -1 for none
}

// Open makes a build's directories, with its source in /workspace. It fails with ResourceExhausted when the disk is
// full.
func (r *Runner) Open(
	ctx context.Context, b builds.Build, archive io.ReadSeeker, size int64,
) (_ builds.Workspace, err error) {
	defer fault.Wrap(&err, "steps.Open(%s)", b.Name.ID)
	if err := r.kept.expire(r.cfg.Now()); err != nil {
		return nil, err
	}
	if err := r.cfg.Admit(0); err != nil {
		return nil, err
	}
	w := &workspace{
		Runner: r,
		build:  b,
		dir:    filepath.Join(r.cfg.Dir, b.Name.ID),
		specs:  make(map[int]engine.Spec),
		made:   make(map[string]string),
		failed: -1,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.dir))
		}
	}()
	if err := os.Mkdir(w.dir, 0o711); err != nil {
		return nil, err
	}
	for _, name := range []string{"workspace", "home", "volumes"} {
		if err := w.mkdir(name); err != nil {
			return nil, err
		}
	}
	if b.Spec.BuiltIn() == nil {
		if err := w.giveCredentials(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case b.Spec.BuiltIn() != nil:
		w.source, w.size = archive, size
	case size > 0:
		limits := source.DefaultLimits
		limits.Bytes = min(limits.Bytes, r.cfg.Disk)
		if err := r.cfg.Unpacker.Extract(ctx, archive, size, w.path("workspace"), limits); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *workspace) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// mkdir makes a directory that a step of any user may write to.
func (w *workspace) mkdir(elem ...string) error {
	p := w.path(elem...)
	if err := os.Mkdir(p, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(p, 0o777) // past the umask
}

// Image returns the digest of an image that the steps made.
func (w *workspace) Image(ctx context.Context, name string) (string, error) {
	w.mu.Lock()
	digest, ok := w.made[name]
	w.mu.Unlock()
	if ok {
		return digest, nil
	}
	if w.cfg.Store == nil {
		return "", fault.New(fault.NotFound, "The build made no image %q.", name)
	}
	return w.cfg.Store.Find(ctx, w.build, name)
}

// Close removes the directories, or keeps them for a while when a step has failed: for a look inside.
func (w *workspace) Close() error {
	if w.failed >= 0 {
		return w.kept.keep(w, w.cfg.Now())
	}
	return w.remove()
}

func (w *workspace) remove() error {
	var err error
	if w.cfg.Store != nil {
		err = w.cfg.Store.Drop(w.build)
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// maxMatches bounds the files of one pattern.
const maxMatches = 10_000

// Files calls fn for each file that a pattern means. Steps are not trusted: no link leads out of the workspace, and
// what is no file is passed over.
func (w *workspace) Files(
	ctx context.Context, pattern string, fn func(name string, size int64, r io.Reader) error,
) (err error) {
	root, err := os.OpenRoot(w.path("workspace"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	pattern = path.Clean(strings.TrimPrefix(pattern, "/"))
	names, err := match(root.FS(), pattern)
	if err != nil {
		return fault.New(fault.FailedPrecondition, "The pattern %q can't be looked for: %v", pattern, err)
	}
	if len(names) > maxMatches {
		return fault.New(fault.FailedPrecondition, "The pattern %q means %d files; %d are the most.", pattern,
			len(names), maxMatches)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.file(root, name, fn); err != nil {
			return err
		}
	}
	return nil
}

func (w *workspace) file(root *os.Root, name string, fn func(string, int64, io.Reader) error) error {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no pipe that blocks
	if err != nil {
		return nil // gone, or a link to somewhere else
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	return fn(name, st.Size(), io.LimitReader(f, st.Size()))
}

// match is fs.Glob with "**" for any number of directories, as gsutil has it.
func match(fsys fs.FS, pattern string) ([]string, error) {
	if !strings.Contains(pattern, "**") {
		return fs.Glob(fsys, pattern)
	}
	dir, rest, _ := strings.Cut(pattern, "**")
	dir, rest = path.Clean(dir), strings.TrimPrefix(rest, "/")
	var out []string
	err := fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what can't be read is not there
		}
		ok, err := path.Match(rest, d.Name())
		if ok || rest == "" {
			out = append(out, p)
		}
		if len(out) > maxMatches {
			return fs.SkipAll
		}
		return err
	})
	return out, err
}
