package buildpack

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// The image with the toolchain, as hack/builder makes it, and where things are in it.
const (
	GoImage      = "giggle.dev/builder/go"
	VersionLabel = "dev.giggle.go-version" // of the toolchain, "go1.26.8"
	GoRoot       = "/usr/local/go"
	WarmCache    = "/var/cache/go-build" // build cache with the standard library
)

// goflags are the compiler flags of every compilation.
const goflags = "-trimpath -buildvcs=false"

// GoEnv is the environment of every compilation, the standard library's in the builder image too: with another one its
// cache would not be used.
func GoEnv() []string {
	return []string{"GOFLAGS=" + goflags, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH,
		"GOTOOLCHAIN=local", "GOENV=off"}
}

// Where a built image has its program and its source, as Google's buildpacks have them.
const (
	binary    = "/layers/google.go.build/bin/main"
	workspace = "/workspace"
)

// configFile shortens the name that oci's callers must use.
type configFile = v1.ConfigFile

// buildGo compiles the program and makes the image.
func (b *Builder) buildGo(ctx context.Context, job task, src, out string, say func(string, ...any)) (string, error) {
	toolchain, err := b.cfg.Mirror.Get(GoImage)
	if fault.Is(err, fault.NotFound) {
		return "", fault.New(fault.FailedPrecondition,
			"The Go builder image is missing on this machine. Run `make setup` in Giggle's repository to make it.")
	}
	if err != nil {
		return "", err
	}
	if job.Env["GOOGLE_FUNCTION_TARGET"] != "" {
		return "", fault.New(fault.Unimplemented, "The build variable GOOGLE_FUNCTION_TARGET is not implemented yet.")
	}
	command, err := entrypoint(src, job.Env)
	if err != nil {
		return "", err
	}
	pkg, err := target(src, job.Env["GOOGLE_BUILDABLE"])
	if err != nil {
		return "", err
	}
	if want := job.Env["GOOGLE_RUNTIME_VERSION"]; want != "" && "go"+want != toolchain.Config.Labels[VersionLabel] {
		say("GOOGLE_RUNTIME_VERSION=%.20q has no effect: the builder has this one version.", want)
	}
	program, err := b.compileGo(ctx, job, toolchain, src, pkg, out, say)
	if err != nil {
		return "", err
	}
	if command == "" {
		digest, err := b.assemble(ctx, job, src, program, toolchain)
		return digest, errors.Join(err, program.Close())
	}
	// A command needs a shell: the image is Debian's, with the program first on its PATH.
	if err := program.Close(); err != nil {
		return "", err
	}
	return b.onBase(ctx, app{
		base:    ShellImage,
		entry:   shell(command),
		pack:    "go",
		version: toolchain.Config.Labels[VersionLabel],
		env:     []string{"PATH=" + path.Dir(binary) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		trees:   map[string]string{workspace: src, path.Dir(binary): out},
	})
}

// ShellImage is the mirror's image below programs whose command needs a shell.
const ShellImage = "debian:latest"

// compileGo compiles a package of a source and returns the program.
func (b *Builder) compileGo(
	ctx context.Context, job task, toolchain oci.Image, src, pkg, out string, say func(string, ...any),
) (*os.File, error) {
	version := toolchain.Config.Labels[VersionLabel]
	args, err := goArgs(src, pkg, version, job.Env)
	if err != nil {
		return nil, err
	}
	cache, err := b.openCache(job.Project, toolchain)
	if err != nil {
		return nil, err
	}
	say("Using %s", version)
	say("Running %q", strings.Join(args, " "))
	start := time.Now()
	if err := b.compile(ctx, job, toolchain, args, src, out, cache, say); err != nil {
		return nil, err
	}
	say("Compiled %s in %s", pkg, time.Since(start).Round(10*time.Millisecond))
	return openProgram(filepath.Join(out, "main"))
}

// openProgram opens what the compiler made. Its container is not trusted, and could leave anything in its place.
func openProgram(file string) (*os.File, error) {
	none := fault.New(fault.FailedPrecondition, "The compiler left no program. Is the target a package main?")
	// no link out, no pipe that blocks
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return nil, errors.Join(none, err, f.Close())
	}
	return f, nil
}

// goArgs is the compiler's command line.
func goArgs(src, pkg, version string, env map[string]string) ([]string, error) {
	args := []string{GoRoot + "/bin/go", "build", "-o", "/out/main"}
	if _, err := os.Lstat(filepath.Join(src, "go.mod")); errors.Is(err, fs.ErrNotExist) {
		// As the buildpack does for source without a module. Without a version it would be the language of Go 1.16.
		mod := "module app\n\ngo " + strings.TrimPrefix(version, "go") + "\n"
		if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte(mod), 0o644); err != nil {
			return nil, err
		}
	}
	if hasDir(src, "vendor") {
		args = append(args, "-mod=vendor")
	}
	ldflags := "-s -w"
	if more := env["GOOGLE_GOLDFLAGS"]; more != "" {
		ldflags += " " + more
	}
	args = append(args, "-ldflags="+ldflags)
	if more := env["GOOGLE_GOGCFLAGS"]; more != "" {
		args = append(args, "-gcflags="+more)
	}
	return append(args, pkg), nil
}

// target is the package to build: GOOGLE_BUILDABLE, the root if it is a program, or the only program there is.
func target(src, buildable string) (string, error) {
	if buildable != "" {
		clean := path.Clean(strings.TrimPrefix(buildable, "./"))
		if clean != "." && !fs.ValidPath(clean) {
			return "", fault.New(fault.InvalidArgument, "GOOGLE_BUILDABLE=%.100q leads out of the source.", buildable)
		}
		if st := stat(src, clean); st == nil || !st.IsDir() && !strings.HasSuffix(clean, ".go") {
			return "", fault.New(fault.InvalidArgument, "GOOGLE_BUILDABLE=%.100q is not in the source.", buildable)
		}
		if clean == "." {
			return ".", nil
		}
		return "./" + clean, nil
	}
	mains, err := mainPackages(src)
	if err != nil {
		return "", err
	}
	switch {
	case slices.Contains(mains, "."):
		return ".", nil
	case len(mains) == 1:
		return "./" + mains[0], nil
	case len(mains) == 0:
		return "", fault.New(fault.InvalidArgument, "No package main was found in the source: there is nothing to run.")
	}
	return "", fault.New(fault.InvalidArgument,
		"The source has several programs: %s. Choose one with --set-build-env-vars GOOGLE_BUILDABLE=./%s.",
		strings.Join(mains, ", "), mains[0])
}

// mainPackages lists the directories with a package main.
func mainPackages(src string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != src && (name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") ||
				strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(src, filepath.Dir(p))
		if err != nil || slices.Contains(out, rel) {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil || f.Name.Name != "main" || ignored(p) {
			return nil // what does not parse, the compiler explains better
		}
		out = append(out, rel)
		return nil
	})
	slices.Sort(out)
	return out, err
}

// ignored reports whether a file has the build constraint by which tools are kept out of a package.
func ignored(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 2048)
	n, _ := io.ReadFull(f, head)
	return strings.Contains(string(head[:n]), "//go:build ignore")
}

// compile runs the compiler in its container.
func (b *Builder) compile(
	ctx context.Context, job task, toolchain oci.Image, args []string, src, out, cache string, say func(string, ...any),
) error {
	env := append(GoEnv(), "HOME=/tmp", "PATH="+GoRoot+"/bin", "GOCACHE=/cache/go-build", "GOMODCACHE=/cache/mod",
		"GOPROXY=http://169.254.169.254/goproxy")
	if more := job.Env["GOFLAGS"]; more != "" {
		env = append(env, "GOFLAGS="+goflags+" "+more) // the later one holds
	}
	if fetches(src) && !b.cfg.SumDB(ctx) {
		say("Go's checksum database can't be reached; modules are checked against go.sum only.")
		env = append(env, "GOSUMDB=off")
	}
	exit, tail, err := b.contain(ctx, job, engine.Spec{
		Layers: toolchain.Layers,
		Args:   args,
		Env:    env,
		Mounts: []engine.Mount{
			{Source: src, Target: workspace, ReadOnly: true}, {Source: out, Target: "/out"},
			{Source: filepath.Join(cache, "go-build"), Target: "/cache/go-build"},
			{Source: filepath.Join(cache, "mod"), Target: "/cache/mod"},
		},
	}, say)
	if err != nil {
		return err
	}
	if exit.OOM {
		return succeeded("The compiler", exit, tail, "")
	}
	return succeeded("go build", exit, tail, hint(tail))
}

// fetches reports whether a source may need modules that it does not hold.
func fetches(src string) bool {
	return has(src, "go.sum") && !has(src, "vendor")
}

// hint says what to do about failures that are not in the user's code.
func hint(tail []string) string {
	all := strings.Join(tail, "\n")
	switch {
	case strings.Contains(all, "GOTOOLCHAIN=local"):
		return "\nThe source wants a newer Go than the builder has: lower the go line of go.mod, or install a newer Go and run `make setup`."
	case strings.Contains(all, "missing go.sum entry"):
		return "\nRun `go mod tidy` and deploy again."
	case strings.Contains(all, "module proxy upstream can't be reached"):
		return "\nThere is no network for modules that were not fetched before. `go mod vendor` makes a source that needs none."
	}
	return ""
}

// assemble makes the image: base, program, source.
func (b *Builder) assemble(
	ctx context.Context, job task, src string, program *os.File, toolchain oci.Image,
) (string, error) {
	base, err := b.base.layer(ctx, b.cfg, toolchain)
	if err != nil {
		return "", err
	}
	st, err := program.Stat()
	if err != nil {
		return "", err
	}
	content := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(program, 0, st.Size())), nil }
	app, err := b.cfg.Images.AddLayer(ctx, []oci.File{{Path: binary, Mode: 0o755, Size: st.Size(), Open: content}})
	if err != nil {
		return "", err
	}
	layers := []oci.Layer{base, app}
	if job.Env["GOOGLE_CLEAR_SOURCE"] != "true" {
		files, err := appFiles(src, workspace)
		if err != nil {
			return "", err
		}
		layer, err := b.cfg.Images.AddLayer(ctx, files)
		if err != nil {
			return "", err
		}
		layers = append(layers, layer)
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	digest, _, err := b.cfg.Images.Assemble(ctx, layers, configFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Config: v1.Config{
			Entrypoint: []string{binary},
			WorkingDir: workspace,
			User:       nonroot,
			Env:        env,
			Labels: map[string]string{"dev.giggle.buildpack": "go",
				VersionLabel: toolchain.Config.Labels[VersionLabel]},
		},
	})
	return digest, err
}
