// Package buildpack turns source code into an image without a Dockerfile, as Google's buildpacks do: Go, Node.js,
// Python and static sites itself; other languages are handed to the real ones, or fail with a message that says so.
//
// The compiler or package manager runs in a container of the engine, as hardened as any service, with no network but
// the platform's proxies for Go modules and npm packages. The image is put together here, from a small base of our own,
// and is reproducible: the same source makes the same digest. Where sources and images are kept is package build's and
// its interfaces' business.
package buildpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// Engine runs the compiler's container: *engine.Engine.
type Engine interface {
	Prepare(ctx context.Context, s engine.Spec) (*engine.Instance, error)
}

// Assembler makes images: *oci.Images over the platform's blobs.
type Assembler interface {
	AddLayer(ctx context.Context, files []oci.File) (oci.Layer, error)
	Assemble(ctx context.Context, layers []oci.Layer, cfg configFile) (digest string, manifest []byte, err error)
}

// Mirror has the images with the toolchains and the bases: *mirror.Mirror.
type Mirror interface {
	Get(name string) (oci.Image, error)
	Copy(ctx context.Context, name string, into *blob.Dir) (oci.Manifest, error)
}

// Others builds sources in the languages that are not built in here: *pack.Lifecycle. It fails with NotFound where it
// can't.
type Others interface {
	BuildSource(
		ctx context.Context, b builds.Build, step builds.Step, source io.ReadSeeker, size int64, log io.Writer,
	) (digest string, err error)
}

// Config is what New needs.
type Config struct {
	Engine Engine
	Images Assembler
	Mirror Mirror
	Blobs  *blob.Dir // of the platform, where bases are copied to
	Dir    string    // for sources being built and for the compiler's caches
	// SystemTrust is the PEM bundle of the machine's certificates, for the base image: without our CA, so that the
	// image is the same on every platform of the machine.
	SystemTrust []byte
	// Sockets is what answers inside a build's container: the metadata server, the module proxy below /goproxy/ and the
	// package registry below /npm/.
	Sockets func(b builds.Build) engine.Sockets
	Groups  func(b builds.Build) []engine.Group // that its containers share limits with; nil is none
	// SumDB reports whether Go's checksum database can be reached.
	SumDB func(ctx context.Context) bool
	// Online reports whether builds reach the outside; nil is never.
	Online      func() bool
	PythonIndex string // URL of the index that pip asks; "" for pip's own
	// Files are laid over the toolchain's image: resolv.conf, certificates.
	Files    []engine.File
	Unpacker source.Unpacker // of what is built
	Others   Others          // nil for none
	NewID    func() string
	Log      *slog.Logger
}

// Builder makes images of sources.
type Builder struct {
	cfg  Config
	base base
	seed sync.Mutex
}

// New returns a builder. What builds left behind when the platform was killed is removed.
func New(cfg Config) (*Builder, error) {
	b := &Builder{cfg: cfg}
	if err := os.RemoveAll(b.path("work")); err != nil {
		return nil, err
	}
	for _, dir := range []string{"work", "cache"} {
		if err := os.MkdirAll(b.path(dir), 0o700); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.cfg.Dir}, elem...)...)
}

// task is what is built, and how.
type task struct {
	builds.Build
	Env map[string]string // build variables, such as GOOGLE_BUILDABLE
}

// BuildSource unpacks the source, finds out what it is, and builds it. It returns the image's digest.
func (b *Builder) BuildSource(
	ctx context.Context, of builds.Build, step builds.Step, archive io.ReadSeeker, size int64, log io.Writer,
) (digest string, err error) {
	defer fault.Wrap(&err, "buildpack.BuildSource(%s)", of.Name.ID)
	job := task{Build: of, Env: step.Variables()}
	work, err := os.MkdirTemp(b.path("work"), job.Name.ID+"-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	src, out := filepath.Join(work, "src"), filepath.Join(work, "out")
	for _, dir := range []string{src, out} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := b.cfg.Unpacker.Extract(ctx, archive, size, src, source.DefaultLimits); err != nil {
		return "", err
	}
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }
	lang, err := detect(src, job.Env["GOOGLE_RUNTIME"])
	if err != nil {
		return "", err
	}
	if !slices.Contains([]string{golang, nodejs, python, static}, lang) {
		return b.other(ctx, job, step, lang, archive, size, log)
	}
	say("=== %s (giggle.buildpacks.%s) ===", lang, strings.ToLower(lang))
	switch lang {
	case golang:
		return b.buildGo(ctx, job, src, out, say)
	case nodejs:
		return b.buildNode(ctx, job, src, say)
	case python:
		return b.buildPython(ctx, job, src, out, say)
	default:
		return b.buildStatic(ctx, job, src, out, say)
	}
}

// other builds a source in a language that is not built in.
func (b *Builder) other(
	ctx context.Context, job task, step builds.Step, lang string, archive io.ReadSeeker, size int64, log io.Writer,
) (digest string, err error) {
	why := ""
	if b.cfg.Others != nil {
		if _, err := archive.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		digest, err := b.cfg.Others.BuildSource(ctx, job.Build, step, archive, size, log)
		if !fault.Is(err, fault.NotFound) {
			return digest, err
		}
		why = " Others are built by Google's builder, but " + strings.TrimSuffix(fault.From(err).Message, ".") +
			". Where there is a network, `giggle images pull` fetches an image, and --pull lets builds do it."
	}
	return "", fault.New(fault.Unimplemented,
		"The source is %s; Go, Node.js, Python and static sites can be built without a Dockerfile.%s Write a Dockerfile, or build an image yourself and deploy it with --image.", lang, why)
}

// The languages that Google's buildpacks know, by the files that tell them.
const (
	golang = "Go"
	nodejs = "Node.js"
	python = "Python"
	static = "Static"
)

// signs are in the order in which they count.
var signs = []struct{ language, file string }{
	{golang, "go.mod"}, {golang, "*.go"}, {nodejs, "package.json"}, {python, "requirements.txt"},
	{python, "pyproject.toml"}, {python, "*.py"},
	{"Java", "pom.xml"}, {"Java", "build.gradle"}, {"Java", "build.gradle.kts"}, {"Java", "*.java"}, {"Java", "*.jar"},
	{"Ruby", "Gemfile"}, {"Ruby", "*.rb"}, {"PHP", "composer.json"}, {"PHP", "*.php"},
	{".NET", "*.csproj"}, {".NET", "*.fsproj"}, {".NET", "*.vbproj"}, {static, "index.html"},
}

// runtimes are the values of GOOGLE_RUNTIME.
var runtimes = map[string]string{"go": golang, "nodejs": nodejs, "python": python, "static": static, "java": "Java",
	"ruby": "Ruby", "php": "PHP", "dotnet": ".NET"}

// detect says which language a source is written in: what the user says, or the files at its root.
func detect(src, want string) (string, error) {
	if want != "" {
		if lang := runtimes[strings.TrimRight(strings.ToLower(want), "0123456789.")]; lang != "" {
			return lang, nil
		}
		return "", fault.New(fault.InvalidArgument, "GOOGLE_RUNTIME=%.40q is no runtime: go, nodejs, python, static, java, ruby, php or dotnet.", want)
	}
	for _, s := range signs {
		found, err := filepath.Glob(filepath.Join(src, s.file))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return s.language, nil
		}
	}
	// A module whose only commands are further down, without go.mod at the root.
	if have, err := listGo(src, nil); err == nil && len(have.mains) > 0 {
		return golang, nil
	}
	return "", fault.New(fault.InvalidArgument,
		"No buildpack fits the source: at its root there is none of go.mod, *.go, package.json, requirements.txt, *.py, index.html. Was --source the right directory?")
}
