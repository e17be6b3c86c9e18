// Command builder makes the image that compiles Go source: the local Go toolchain as one layer, with the standard
// library compiled already. hack/builder/build calls it; it does nothing when the mirror has the image of this
// toolchain.
package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/artifacts/mirror"
	"giggle/builds/buildpack"
	"giggle/fault"
	"giggle/oci"
)

func main() {
	dir := flag.String("mirror", "/var/cache/giggle/mirror", "directory of the mirror")
	std := flag.String("std", "", "build cache that has the standard library already, or most of it; it is completed")
	flag.Parse()
	if err := run(context.Background(), *dir, *std); err != nil {
		fmt.Fprintln(os.Stderr, "builder:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, cache string) error {
	m, err := mirror.Open(dir)
	if err != nil {
		return err
	}
	goroot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return err
	}
	goversion, err := goEnv(ctx, "GOVERSION")
	if err != nil {
		return err
	}
	// The builder asks for the image by one name; the version in the label says which toolchain it holds.
	if have, err := m.List(); err != nil {
		return err
	} else {
		for _, e := range have {
			if e.Name == buildpack.GoImage && e.Config.Labels[buildpack.VersionLabel] == goversion {
				return nil
			}
		}
	}
	if cache == "" {
		if cache, err = os.MkdirTemp("", "giggle-builder-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(cache) }()
	}
	warm := exec.CommandContext(ctx, filepath.Join(goroot, "bin", "go"), "build", "std")
	warm.Env = append(os.Environ(), append(buildpack.GoEnv(), "GOWORK=off", "GOCACHE="+cache, "GOROOT="+goroot)...)
	if out, err := warm.CombinedOutput(); err != nil {
		return fmt.Errorf("go build std: %w\n%s", err, out)
	}
	files := []oci.File{
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/false\n")},
		{Path: "/tmp", Mode: fs.ModeDir | 0o777 | fs.ModeSticky},
		{Path: "/workspace", Mode: fs.ModeDir | 0o755},
	}
	for _, t := range []struct {
		from, to string
		skip     func(string, bool) bool
	}{{goroot, buildpack.GoRoot, dead}, {cache, buildpack.WarmCache, nil}} {
		more, err := oci.Tree(t.from, t.to, t.skip)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	return m.Put(ctx, buildpack.GoImage, "made from the local Go toolchain", time.Now(),
		func(images *oci.Images) (string, error) {
			layer, err := images.AddLayer(ctx, files)
			if err != nil {
				return "", err
			}
			layer.CreatedBy = "giggle: " + goversion
			cfg := v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", Config: v1.Config{
				Env:    []string{"PATH=" + buildpack.GoRoot + "/bin"},
				Labels: map[string]string{mirror.StandInLabel: "true", buildpack.VersionLabel: goversion},
			}}
			digest, _, err := images.Assemble(ctx, []oci.Layer{layer}, cfg)
			return digest, err
		})
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output()
	if err != nil {
		return "", fault.New(fault.FailedPrecondition, "`go env %s` failed: is Go on the PATH?", name)
	}
	return strings.TrimSpace(string(out)), nil
}

// dead reports whether a file of the toolchain is no use to a build.
func dead(rel string, dir bool) bool {
	if dir {
		return rel == "test" || rel == "doc" || rel == "api" || rel == "misc" || rel == "pkg/obj" ||
			filepath.Base(rel) == "testdata"
	}
	return strings.HasSuffix(rel, "_test.go")
}
