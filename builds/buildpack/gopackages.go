package buildpack

import (
	"errors"
	"fmt"
	"go/build"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/mod/modfile"

	"giggle/fault"
)

// goPackages is what `go list ./...` says of a source, for Linux and with the build tags that it is compiled with. It
// is found out here, by the go command's own rules (package go/build), because a container for it would take longer
// than most compilations.
type goPackages struct {
	module string   // the module's path, "" for a source without go.mod
	mains  []string // directories with a program, "." for the root
	cgo    []string // directories whose package has files that import "C"
}

// maxHeader bounds what is read of a Go file for its package clause and imports.
const maxHeader = 1 << 20

// listGo looks for the packages of a source's module (https://pkg.go.dev/cmd/go#hdr-Package_lists_and_patterns): not in
// vendor, testdata, directories whose names begin with "." or "_", nor in modules of their own, unless go.work uses
// them. Nothing is followed out of the source.
func listGo(src string, tags []string) (out goPackages, err error) {
	root, err := os.OpenRoot(src)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	text, err := readSource(src, "go.mod", maxManifest)
	if err != nil {
		return out, err
	}
	out.module = modfile.ModulePath([]byte(text))
	var ignored []string
	if mod, err := modfile.Parse("go.mod", []byte(text), nil); err == nil { // else the compiler explains it better
		for _, i := range mod.Ignore {
			ignored = append(ignored, i.Path)
		}
	}
	used, err := workspaceModules(src)
	if err != nil {
		return out, err
	}
	context := goContext(root, tags)
	err = fs.WalkDir(root.FS(), ".", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if dir != "." {
			name := d.Name()
			if name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
				isIgnored(dir, ignored) {
				return fs.SkipDir
			}
			if _, err := root.Lstat(path.Join(dir, "go.mod")); err == nil && !slices.Contains(used, dir) {
				return fs.SkipDir
			}
		}
		p, _ := context.ImportDir(dir, 0) // what does not parse, the compiler explains better
		if p == nil || len(p.GoFiles)+len(p.CgoFiles) == 0 {
			return nil
		}
		if p.Name == "main" {
			out.mains = append(out.mains, dir)
		}
		if len(p.CgoFiles) > 0 {
			out.cgo = append(out.cgo, dir)
		}
		return nil
	})
	slices.Sort(out.mains)
	return out, err
}

// goContext is the platform that sources are compiled for, with their files below a directory. cgo is there, as at
// Google: which files there are does not depend on whether this machine has a compiler.
func goContext(root *os.Root, tags []string) *build.Context {
	context := build.Default
	context.GOOS, context.GOARCH, context.GOROOT, context.GOPATH = "linux", runtime.GOARCH, "", ""
	context.CgoEnabled, context.UseAllFiles, context.BuildTags = true, false, tags
	context.Compiler, context.InstallSuffix, context.Dir = "gc", "", ""
	context.JoinPath, context.IsAbsPath = path.Join, path.IsAbs
	context.HasSubdir = func(string, string) (string, bool) { return "", false }
	context.IsDir = func(dir string) bool {
		info, err := root.Stat(dir)
		return err == nil && info.IsDir()
	}
	context.ReadDir = func(dir string) ([]fs.FileInfo, error) {
		entries, err := fs.ReadDir(root.FS(), dir)
		var out []fs.FileInfo
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				out = append(out, info)
			}
		}
		return out, err
	}
	context.OpenFile = func(file string) (io.ReadCloser, error) {
		f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no pipe that blocks
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(fmt.Errorf("%s is no file", file), err, f.Close())
		}
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(f, maxHeader), f}, nil
	}
	return &context
}

// workspaceModules are the directories that go.work uses; nil for none.
func workspaceModules(src string) ([]string, error) {
	text, err := readSource(src, "go.work", maxManifest)
	if err != nil || text == "" {
		return nil, err
	}
	work, err := modfile.ParseWork("go.work", []byte(text), nil)
	if err != nil {
		return nil, nil // the compiler explains it better
	}
	var out []string
	for _, u := range work.Use {
		out = append(out, path.Clean(u.Path))
	}
	return out, nil
}

// isIgnored reports whether go.mod says that a directory holds no packages: "./DIR" of the module's root, "DIR"
// anywhere (https://go.dev/ref/mod#go-mod-file-ignore).
func isIgnored(dir string, ignored []string) bool {
	return slices.ContainsFunc(ignored, func(i string) bool {
		if rooted, ok := strings.CutPrefix(i, "./"); ok {
			return dir == path.Clean(rooted)
		}
		return dir == path.Clean(i) || strings.HasSuffix(dir, "/"+path.Clean(i))
	})
}

// buildTags are the tags of GOFLAGS (https://pkg.go.dev/cmd/go#hdr-Compile_packages_and_dependencies).
func buildTags(goflags string) []string {
	var out []string
	for flag := range strings.FieldsSeq(goflags) {
		if list, ok := strings.CutPrefix(strings.TrimPrefix(flag, "-"), "-tags="); ok {
			out = strings.Split(list, ",") // the last one holds
		} else if list, ok := strings.CutPrefix(flag, "-tags="); ok {
			out = strings.Split(list, ",")
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// target is the package to build: GOOGLE_BUILDABLE, the root if it is a program, or the only program there is.
func target(src, buildable string, have goPackages) (string, error) {
	if buildable != "" {
		return asked(src, buildable, have.module)
	}
	switch mains := have.mains; {
	case slices.Contains(mains, "."):
		return ".", nil
	case len(mains) == 1:
		return "./" + mains[0], nil
	case len(mains) == 0:
		return "", fault.New(fault.InvalidArgument,
			"No package main was found in the source for Linux: there is nothing to run.")
	default:
		return "", fault.New(fault.InvalidArgument,
			"The source has several programs: %s. Choose one with --set-build-env-vars GOOGLE_BUILDABLE=./%s.",
			strings.Join(mains, ", "), mains[0])
	}
}

// asked is what GOOGLE_BUILDABLE names: a directory or a file of the source, an import path of its module, or one of a
// module that it requires.
func asked(src, buildable, module string) (string, error) {
	name := strings.TrimPrefix(buildable, workspace+"/")
	if buildable == workspace {
		name = "."
	}
	clean := path.Clean(name)
	switch {
	case clean == ".":
		return ".", nil
	case clean == ".." || strings.HasPrefix(clean, "../") || path.IsAbs(clean):
		return "", fault.New(fault.InvalidArgument, "GOOGLE_BUILDABLE=%.100q leads out of the source.", buildable)
	}
	none := fault.New(fault.InvalidArgument, "GOOGLE_BUILDABLE=%.100q is not in the source.", buildable)
	if strings.HasPrefix(clean, "-") || strings.ContainsFunc(clean, func(r rune) bool { return r < ' ' }) {
		return "", none
	}
	if info := stat(src, clean); info != nil && (info.IsDir() || strings.HasSuffix(clean, ".go")) {
		return "./" + clean, nil
	}
	first, _, _ := strings.Cut(clean, "/")
	switch pattern := strings.Contains(clean, "..."); {
	case strings.HasPrefix(name, "./") && !pattern:
		return "", none
	case pattern && (strings.HasPrefix(name, "./") || clean == "..."):
		return "./" + clean, nil
	case clean == module:
		return ".", nil
	case module != "" && strings.HasPrefix(clean, module+"/"):
		if dir := strings.TrimPrefix(clean, module+"/"); !pattern && hasDir(src, dir) {
			return "./" + dir, nil
		}
		return clean, nil // a module below may have a path of that kind: go finds out
	case strings.Contains(first, "."):
		return clean, nil // of a module that go.mod requires
	}
	return "", none
}
