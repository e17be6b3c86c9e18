package buildpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
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
	have, err := listGo(src, buildTags(job.Env["GOFLAGS"]))
	if err != nil {
		return "", err
	}
	pkg, err := target(src, job.Env["GOOGLE_BUILDABLE"], have)
	if err != nil {
		return "", err
	}
	if want := job.Env["GOOGLE_RUNTIME_VERSION"]; want != "" && "go"+want != toolchain.Config.Labels[VersionLabel] {
		say("GOOGLE_RUNTIME_VERSION=%.20q has no effect: the builder has this one version.", want)
	}
	with := compiler{Image: toolchain}
	if with.cgo, err = b.usesCgo(ctx, job, toolchain, src, pkg, have, say); err != nil {
		return "", err
	}
	if with.cgo {
		if with.Image, err = b.cCompiler(); err != nil {
			return "", err
		}
	}
	program, err := b.compileGo(ctx, job, toolchain, with, src, pkg, out, say)
	if err != nil {
		return "", err
	}
	if command == "" && !with.cgo {
		digest, err := b.assemble(ctx, job, src, program, toolchain)
		return digest, errors.Join(err, program.Close())
	}
	// A command needs a shell, and what C makes a C library: the image is Debian's, with the program first on its PATH.
	if err := program.Close(); err != nil {
		return "", err
	}
	entry := []string{binary}
	if command != "" {
		entry = shell(command)
	}
	return b.onBase(ctx, app{
		base:    ShellImage,
		entry:   entry,
		pack:    "go",
		version: toolchain.Config.Labels[VersionLabel],
		env:     []string{"PATH=" + path.Dir(binary) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		trees:   map[string]string{workspace: src, path.Dir(binary): out},
	})
}

// Images of the mirror beside the toolchain's own.
const (
	ShellImage = "debian:latest" // below programs whose command needs a shell, or which need a C library
	CgoImage   = "golang:latest" // with Go and a C compiler
)

// compiler is what compiles: an image with Go at GoRoot, which has a C compiler for cgo.
type compiler struct {
	oci.Image
	cgo bool
}

// usesCgo reports whether a program is to be compiled with cgo: where the build's CGO_ENABLED says so, or, without it,
// where a package that it is made of needs C. Google's builder always has a C compiler; a program that does without one
// here starts sooner, and on a smaller image.
func (b *Builder) usesCgo(
	ctx context.Context, job task, toolchain oci.Image, src, pkg string, have goPackages, say func(string, ...any),
) (bool, error) {
	if told, ok := job.Env["CGO_ENABLED"]; ok {
		return told == "1", nil
	}
	if len(have.cgo) == 0 && !has(src, "go.sum") && !has(src, "vendor") {
		return false, nil // there is nothing but the source itself, which needs none
	}
	if err := ensureModule(src, toolchain.Config.Labels[VersionLabel]); err != nil {
		return false, err
	}
	cache, err := b.openCache(job.Project, toolchain)
	if err != nil {
		return false, err
	}
	const mark = "uses cgo: "
	args := []string{GoRoot + "/bin/go", "list", "-deps", "-f",
		"{{if and .CgoFiles (not .Standard)}}" + mark + "{{.ImportPath}}{{end}}"}
	if hasDir(src, "vendor") {
		args = append(args, "-mod=vendor")
	}
	var found []string
	listing := func(format string, args ...any) {
		switch line := fmt.Sprintf(format, args...); {
		case strings.HasPrefix(line, mark):
			found = append(found, strings.TrimPrefix(line, mark))
		case strings.HasPrefix(line, "go: downloading "):
			say("%s", line)
		}
	}
	// What fails here fails again when it is compiled, and is explained then.
	if _, _, err = b.runGo(ctx, job, compiler{toolchain, true}, append(args, pkg), src, "", cache, listing,
		func(string, ...any) {}); err != nil {
		return false, err
	}
	if len(found) > 0 {
		say("Compiling with cgo, for %s.", strings.Join(found[:min(len(found), 3)], ", "))
	}
	return len(found) > 0, nil
}

// cCompiler is the image with a C compiler.
func (b *Builder) cCompiler() (oci.Image, error) {
	img, err := b.cfg.Mirror.Get(CgoImage)
	if fault.Is(err, fault.NotFound) {
		return img, fault.New(fault.FailedPrecondition,
			"The program needs cgo, and there is no C compiler: the image %s is missing on this machine. Run "+
				"`make images` in Giggle's repository to make it, or build without C by --set-build-env-vars CGO_ENABLED=0.",
			CgoImage)
	}
	return img, err
}

// compileGo compiles a package of a source and returns the program. The toolchain is the builder's own, whose version
// the caches are for.
func (b *Builder) compileGo(
	ctx context.Context, job task, toolchain oci.Image, with compiler, src, pkg, out string,
	say func(string, ...any),
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
	if err := b.compile(ctx, job, with, args, src, out, cache, say); err != nil {
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

// ensureModule makes a module of a source that is none, as the buildpack does. Without a version it would be the
// language of Go 1.16.
func ensureModule(src, version string) error {
	if _, err := os.Lstat(filepath.Join(src, "go.mod")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mod := "module app\n\ngo " + strings.TrimPrefix(version, "go") + "\n"
	return os.WriteFile(filepath.Join(src, "go.mod"), []byte(mod), 0o644)
}

// goArgs is the compiler's command line.
func goArgs(src, pkg, version string, env map[string]string) ([]string, error) {
	args := []string{GoRoot + "/bin/go", "build", "-o", "/out/main"}
	if err := ensureModule(src, version); err != nil {
		return nil, err
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

// compile runs the compiler in its container.
func (b *Builder) compile(
	ctx context.Context, job task, with compiler, args []string, src, out, cache string, say func(string, ...any),
) error {
	exit, tail, err := b.runGo(ctx, job, with, args, src, out, cache, say, say)
	if err != nil {
		return err
	}
	if exit.OOM {
		return succeeded("The compiler", exit, tail, "")
	}
	return succeeded("go build", exit, tail, hint(tail))
}

// runGo runs the go command in a container, where it may write to out, if there is one. What it says goes to output.
func (b *Builder) runGo(
	ctx context.Context, job task, with compiler, args []string, src, out, cache string,
	output, say func(string, ...any),
) (engine.Exit, []string, error) {
	env := append(GoEnv(), "HOME=/tmp", "PATH="+GoRoot+"/bin:"+engine.DefaultPath, "GOCACHE=/cache/go-build",
		"GOMODCACHE=/cache/mod", "GOPROXY=http://169.254.169.254/goproxy")
	if with.cgo {
		env = append(env, "CGO_ENABLED=1") // the later one holds
	}
	for _, name := range sortedKeys(job.Env) {
		if strings.HasPrefix(name, "CGO_") && name != "CGO_ENABLED" {
			env = append(env, name+"="+job.Env[name])
		}
	}
	if more := job.Env["GOFLAGS"]; more != "" {
		env = append(env, "GOFLAGS="+goflags+" "+more)
	}
	if fetches(src) && !b.cfg.SumDB(ctx) {
		say("Go's checksum database can't be reached; modules are checked against go.sum only.")
		env = append(env, "GOSUMDB=off")
	}
	mounts := []engine.Mount{
		{Source: src, Target: workspace, ReadOnly: true},
		{Source: filepath.Join(cache, "go-build"), Target: "/cache/go-build"},
		{Source: filepath.Join(cache, "mod"), Target: "/cache/mod"},
	}
	if out != "" {
		mounts = append(mounts, engine.Mount{Source: out, Target: "/out"})
	}
	return b.contain(ctx, job, engine.Spec{Layers: with.Layers, Args: args, Env: env, Mounts: mounts}, output)
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
	case strings.Contains(all, "build constraints exclude all Go files"):
		return "\nNo file of that package is for Linux, with the tags of GOFLAGS and with CGO_ENABLED as they are."
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
	base.CreatedBy, app.CreatedBy = "giggle buildpack: base", "giggle buildpack: "+binary
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
		layer.CreatedBy = "giggle buildpack: " + workspace
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
