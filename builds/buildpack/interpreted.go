package buildpack

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/fault"
	"giggle/oci"
)

// foreign returns a base image of the mirror, unpacked.
func (b *Builder) foreign(name string) (oci.Image, error) {
	img, err := b.cfg.Mirror.Get(name)
	if fault.Is(err, fault.NotFound) {
		return img, fault.New(fault.FailedPrecondition,
			"The image %s is missing on this machine. Run `make images` in Giggle's repository to make it.", name)
	}
	return img, err
}

// app is what an image is made of beside its base.
type app struct {
	base    string            // image of the mirror
	entry   []string          // the command
	env     []string          // beside the base's
	trees   map[string]string // directories of the host, by where they go in the image
	pack    string            // "nodejs"
	version string            // of the runtime, for the label
}

// onBase makes an image of the base's layers and one for each tree.
func (b *Builder) onBase(ctx context.Context, a app) (string, error) {
	manifest, err := b.cfg.Mirror.Copy(ctx, a.base, b.cfg.Blobs)
	if err != nil {
		return "", err
	}
	layers := manifest.Layers
	home, err := b.cfg.Images.AddLayer(ctx, []oci.File{{Path: "/home/nonroot", Mode: fs.ModeDir | 0o777}})
	if err != nil {
		return "", err
	}
	home.CreatedBy = "giggle buildpack: home"
	layers = append(layers, home)
	for _, to := range sortedKeys(a.trees) {
		files, err := appFiles(a.trees[to], to)
		if err != nil {
			return "", err
		}
		layer, err := b.cfg.Images.AddLayer(ctx, files)
		if err != nil {
			return "", err
		}
		layer.CreatedBy = "giggle buildpack: " + to
		layers = append(layers, layer)
	}
	digest, _, err := b.cfg.Images.Assemble(ctx, layers, configFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		History:      manifest.Config.History,
		Config: v1.Config{
			Entrypoint: a.entry,
			WorkingDir: workspace,
			User:       nonroot,
			Env: merged(manifest.Config.Config.Env,
				append([]string{"HOME=/home/nonroot"}, a.env...)),
			Labels: map[string]string{"dev.giggle.buildpack": a.pack, "dev.giggle.runtime-version": a.version},
		},
	})
	return digest, err
}

// merged is an environment with another over it.
func merged(base, over []string) []string {
	set := make(map[string]bool)
	for _, kv := range over {
		name, _, _ := strings.Cut(kv, "=")
		set[name] = true
	}
	var out []string
	for _, kv := range base {
		if name, _, _ := strings.Cut(kv, "="); !set[name] {
			out = append(out, kv)
		}
	}
	return append(out, over...)
}

// projectCache is a directory of a project's own that is kept between builds: what a hostile build leaves in it is no
// other project's.
func (b *Builder) projectCache(project, name string) (string, error) {
	dir := b.path("cache", project, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// errNoDirectory is the failure of a build whose container left something else where a directory should be.
var errNoDirectory = errors.New("the build left something else than a directory behind")

// realDir fails on what is not a directory itself: the container could have put a link there.
func realDir(dir string) error {
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = errNoDirectory
	}
	return err
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
