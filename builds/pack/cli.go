package pack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"giggle/builds"
	"giggle/builds/source"
	"giggle/fault"
)

// Images are the images with the pack CLI that the platform stands in for, by their names without tag: the one that
// gcloud names, and pack's own.
var Images = []string{"gcr.io/k8s-skaffold/pack", "buildpacksio/pack", "docker.io/buildpacksio/pack"}

// SourceBuilder is what is built in: *buildpack.Builder.
type SourceBuilder interface {
	BuildSource(
		ctx context.Context, b builds.Build, step builds.Step, source io.ReadSeeker, size int64, log io.Writer,
	) (digest string, err error)
}

// CLI does what the pack CLI does in a build step: pack build, and pack config default-builder.
type CLI struct {
	Lifecycle *Lifecycle
	BuiltIn   SourceBuilder // in place of Google's builder where that is not to be had
	Push      func(ctx context.Context, b builds.Build, image, digest string) error
	Shared    func(b builds.Build) string // the directory with the build's workspace
}

// Run does a step. It returns the names and the digest of the image that it made, if it made one.
func (c *CLI) Run(
	ctx context.Context, b builds.Build, step builds.Step, log io.Writer,
) (names []string, digest string, err error) {
	if step.Script != "" || step.Entrypoint != "" && path.Base(step.Entrypoint) != "pack" {
		return nil, "", fault.New(fault.Unimplemented,
			"In place of %s Giggle runs pack alone: a script or an entrypoint other than pack is not implemented.", step.Name)
	}
	switch args := step.Args; {
	case len(args) > 0 && args[0] == "build":
		return c.build(ctx, b, step, args[1:], log)
	case isDefault(args): // the build step reads it
		return nil, "", nil
	default:
		return nil, "", fault.New(fault.Unimplemented,
			"Of pack there are `pack build` and `pack config default-builder`; %.100q is not implemented.",
			strings.Join(args, " "))
	}
}

// isDefault reports whether arguments choose the builder of the next steps.
func isDefault(args []string) bool {
	return len(args) == 3 && args[0] == "config" && args[1] == "default-builder"
}

// defaultBuilder is the builder that the pack steps of a build have chosen.
func defaultBuilder(b builds.Build) string {
	out := DefaultBuilder
	for _, s := range b.Spec.Steps {
		if slices.ContainsFunc(Images, func(n string) bool { return s.Name == n || strings.HasPrefix(s.Name, n+":") }) &&
			isDefault(s.Args) {
			out = s.Args[2]
		}
	}
	return out
}

func (c *CLI) build(
	ctx context.Context, b builds.Build, step builds.Step, args []string, log io.Writer,
) (names []string, digest string, err error) {
	root, err := os.OpenRoot(filepath.Join(c.Shared(b), "workspace"))
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	variables := (&builds.Step{Env: append(slices.Clone(b.Spec.Options.Env), step.Env...)}).Variables()
	o, err := parse(args, environment{
		lookup: func(name string) string { return variables[name] },
		read:   func(file string) (string, error) { return read(root, step.Dir, file) },
	})
	if err != nil {
		return nil, "", err
	}
	if o.builder == "" {
		o.builder = defaultBuilder(b)
	}
	dir, err := inside(step.Dir, o.path)
	if err != nil {
		return nil, "", err
	}
	if _, err := root.Lstat(path.Join(dir, "project.toml")); err == nil {
		return nil, "", fault.New(fault.Unimplemented,
			"pack build: project.toml is not implemented. Give what it says as flags: --builder, --buildpack, --env.")
	}
	archive, err := os.CreateTemp(c.Shared(b), "pack-*.tar")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, archive.Close(), os.Remove(archive.Name())) }()
	size, err := pack(ctx, root, dir, archive, source.DefaultLimits)
	if err != nil {
		return nil, "", err
	}
	digest, err = c.Lifecycle.Build(ctx, b, Request{
		Image:      o.image,
		Builder:    o.builder,
		RunImage:   o.runImage,
		Process:    o.process,
		Level:      o.level,
		Buildpacks: o.buildpacks,
		Env:        o.env,
		ClearCache: o.clearCache,
	}, archive, size, log)
	if fault.Is(err, fault.NotFound) && isGoogles(o.builder) && len(o.buildpacks) == 0 && o.process == "" &&
		o.runImage == "" {
		_, _ = fmt.Fprintf(log, "%s Giggle's own builders take its place.\n", sentence(fault.From(err).Message))
		built := builds.Step{Image: o.image}
		for name, value := range o.env {
			built.Env = append(built.Env, name+"="+value)
		}
		if _, err := archive.Seek(0, io.SeekStart); err != nil {
			return nil, "", err
		}
		digest, err = c.BuiltIn.BuildSource(ctx, b, built, archive, size, log)
	}
	if err != nil {
		return nil, "", err
	}
	names = append([]string{o.image}, o.tags...)
	if o.publish {
		for _, name := range names {
			if err := c.Push(ctx, b, name, digest); err != nil {
				return nil, "", err
			}
		}
	}
	_, _ = fmt.Fprintf(log, "Successfully built image %s (%s)\n", strings.Join(names, ", "), digest)
	return names, digest, nil
}

// sentence is a message with a capital and a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// inside is a path of the workspace, relative to it, as a step in a directory of it writes it.
func inside(dir, p string) (string, error) {
	const workspace = "/workspace"
	full := path.Join(workspace, dir, p)
	if path.IsAbs(dir) {
		full = path.Join(dir, p)
	}
	if path.IsAbs(p) {
		full = path.Clean(p)
	}
	if full == workspace {
		return ".", nil
	}
	rel, ok := strings.CutPrefix(full, workspace+"/")
	if !ok {
		return "", refuse("the path %.200q is outside of /workspace.", p)
	}
	return rel, nil
}

// read reads a small file of the workspace.
func read(root *os.Root, dir, file string) (string, error) {
	name, err := inside(dir, file)
	if err != nil {
		return "", err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", refuse("the file %.200q can't be read.", file)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxVariable+1))
	if err != nil || len(text) > maxVariable {
		return "", refuse("the file %.200q can't be read, or it is larger than %d bytes.", file, maxVariable)
	}
	return string(text), nil
}

// pack writes a directory of the workspace to a tar archive, from the start of which it can be read then. Steps are not
// trusted: no link is followed, and what is neither a file, a directory nor a link is left away.
func pack(
	ctx context.Context, root *os.Root, dir string, to io.WriteSeeker, limits source.Limits,
) (size int64, err error) {
	app, err := root.OpenRoot(dir)
	if err != nil {
		return 0, refuse("there is no directory %.200q in the workspace.", dir)
	}
	defer func() { err = errors.Join(err, app.Close()) }()
	w := tar.NewWriter(to)
	err = fs.WalkDir(app.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		if limits.Entries--; limits.Entries < 0 {
			return fault.New(fault.ResourceExhausted, "pack build: the source has too many files.")
		}
		switch d.Type() {
		case fs.ModeDir:
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
		case fs.ModeSymlink:
			target, err := app.Readlink(name)
			if err != nil {
				return err
			}
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
		case 0:
			return packFile(app, name, w, &limits.Bytes)
		}
		return nil
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	if size, err = to.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	_, err = to.Seek(0, io.SeekStart)
	return size, err
}

func packFile(app *os.Root, name string, w *tar.Writer, left *int64) error {
	f, err := app.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	if *left -= st.Size(); *left < 0 {
		return fault.New(fault.ResourceExhausted, "pack build: the source is larger than %d MiB.",
			source.DefaultLimits.Bytes>>20)
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: st.Size(),
		Mode: int64(st.Mode().Perm())}); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, st.Size())
	return err
}
