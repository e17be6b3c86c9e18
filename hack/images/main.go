// Command images makes the offline set of foreign images in the mirror, from Debian packages and the toolchains of this
// machine: what Dockerfiles and build steps start from where no network gives the originals. Each is labelled as a
// stand-in. `make images` calls it; what the mirror has already, made by the same recipe, is left alone.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/artifacts/mirror"
	"giggle/oci"
)

// suite is the release of Debian that everything is made of.
const suite = "bookworm"

// recipe changes when the layers would come out otherwise: images of another recipe are made again.
const recipe = "2"

// recipeLabel says what an image was made by.
const recipeLabel = "dev.giggle.recipe"

var epoch = time.Unix(0, 0).UTC()

func main() {
	dir := flag.String("mirror", "/var/cache/giggle/mirror", "directory of the mirror")
	ollama := flag.String("ollama", "", "make the stand-in for ollama/ollama only, from this program")
	version := flag.String("ollama-version", "", "its version, without a v")
	flag.Parse()
	do := func(ctx context.Context) error { return run(ctx, *dir) }
	if *ollama != "" {
		do = func(ctx context.Context) error { return addOllama(ctx, *dir, *ollama, *version) }
	}
	if err := do(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) error {
	m, err := mirror.Open(dir)
	if err != nil {
		return err
	}
	have, err := m.List()
	if err != nil {
		return err
	}
	made := make(map[string]string) // recipes by name
	for _, e := range have {
		made[e.Name] = e.Config.Labels[recipeLabel]
	}
	w := &workshop{ctx: ctx, mirror: m}
	defer w.clean()
	for _, img := range set(registries(ctx)) {
		label, err := recipeOf(ctx, img)
		if err != nil {
			return err
		}
		var missing []string
		for _, n := range img.names {
			if made[n] != label {
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			continue
		}
		if err := w.make(img, missing, label); err != nil {
			return fmt.Errorf("%s: %w", img.names[0], err)
		}
	}
	if w.started.IsZero() {
		return nil
	}
	w.say("done in %s", time.Since(w.started).Round(time.Second))
	return nil
}

// recipeOf names all that an image is made of.
func recipeOf(ctx context.Context, img image) (string, error) {
	parts := []string{recipe, suite}
	for _, l := range img.layers {
		parts = append(parts, l)
		switch l {
		case "go", "go-cache":
			parts = append(parts, goVersion(ctx))
		case "node":
			parts = append(parts, nodeVersion(ctx), yarnPackage)
		case "gcloud":
			parts = append(parts, sdkVersion(ctx))
		}
	}
	config, err := json.Marshal(img.config)
	sum := sha256.Sum256(append([]byte(strings.Join(parts, " ")), config...))
	return hex.EncodeToString(sum[:8]), err
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func goVersion(ctx context.Context) string   { return output(ctx, "go", "env", "GOVERSION") }
func nodeVersion(ctx context.Context) string { return output(ctx, "node", "--version") }

// registries are the machine's own settings of where packages come from.
func registries(ctx context.Context) packageSources {
	return packageSources{modules: output(ctx, "go", "env", "GOPROXY"), sdk: sdkVersion(ctx)}
}

// workshop makes layers, each once.
type workshop struct {
	ctx     context.Context
	mirror  *mirror.Mirror
	started time.Time
	dir     string // of trees
	trees   map[string]*tree
	below   map[string]files // fingerprints of a Debian layer and what is below it
	layers  map[string]oci.Layer
}

func (w *workshop) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "images: "+format+"\n", args...)
}

// start makes room for trees: in memory where there is enough, because dpkg syncs every file.
func (w *workshop) start() (err error) {
	if !w.started.IsZero() {
		return nil
	}
	w.started = time.Now()
	w.trees, w.below, w.layers = make(map[string]*tree), make(map[string]files), make(map[string]oci.Layer)
	w.say("making the offline images (once, a few minutes)")
	parent := ""
	if free("/dev/shm") > 6<<30 {
		parent = "/dev/shm"
	}
	w.dir, err = os.MkdirTemp(parent, "giggle-images-")
	if err == nil {
		err = os.Chmod(w.dir, 0o755) // apt's own user passes through
	}
	return err
}

func (w *workshop) clean() {
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// make puts an image into the mirror under its names.
func (w *workshop) make(img image, names []string, label string) error {
	if err := w.start(); err != nil {
		return err
	}
	config := img.config
	config.Labels = map[string]string{mirror.StandInLabel: "true", recipeLabel: label}
	return w.mirror.PutAll(w.ctx, names, "made here from Debian "+suite+" and local toolchains", time.Now(),
		func(images *oci.Images) (string, error) {
			var layers []oci.Layer
			for i, name := range img.layers {
				layer, ok := w.layers[name]
				if !ok {
					start := time.Now()
					var err error
					below := ""
					if i > 0 {
						below = img.layers[i-1]
					}
					layer, err = images.AddTar(w.ctx, func(out io.Writer) error { return w.write(name, below, out) })
					if err != nil {
						return "", err
					}
					w.layers[name] = layer
					w.say("layer %-8s %4d MB in %s", name, layer.Size>>20,
						time.Since(start).Round(100*time.Millisecond))
				}
				layer.CreatedBy = "giggle: " + name
				layers = append(layers, layer)
			}
			digest, _, err := images.Assemble(w.ctx, layers, v1.ConfigFile{
				Architecture: runtime.GOARCH,
				OS:           "linux",
				Created:      v1.Time{Time: w.started.UTC().Truncate(time.Second)},
				Config:       config,
			})
			return digest, err
		})
}

// packages are what Debian layers have on top of the smallest Debian.
var packages = map[string][]string{
	"tools": {"git", "curl", "gcc", "g++", "make", "libc6-dev", "pkg-config", "openssh-client", "python3", "unzip", "wget",
		"xz-utils"},
	"python": {"python3", "python3-pip", "python3-venv"},
	"sdk":    {"python3", "python3-venv", "git", "curl", "gnupg", "jq", "lsb-release", "make", "openssh-client"},
}

// write writes one layer.
func (w *workshop) write(name, below string, out io.Writer) error {
	if name == "debian" || packages[name] != nil {
		return w.writeDebian(name, out)
	}
	files, err := w.files(name)
	if err != nil {
		return err
	}
	return oci.WriteLayer(out, files)
}

// debian is the smallest tree, made once.
func (w *workshop) debian() (*tree, error) {
	if t := w.trees["debian"]; t != nil {
		return t, nil
	}
	t, err := bootstrap(w.ctx, filepath.Join(w.dir, "debian"))
	w.trees["debian"] = t
	return t, err
}

// installed is the smallest tree with packages on top, made once.
func (w *workshop) installed(name string) (*tree, error) {
	if t := w.trees[name]; t != nil {
		return t, nil
	}
	base, err := w.debian()
	if err != nil {
		return nil, err
	}
	t, err := base.copy(w.ctx, filepath.Join(w.dir, name))
	if err != nil {
		return nil, err
	}
	if err := t.install(w.ctx, packages[name]...); err != nil {
		return nil, err
	}
	w.trees[name] = t
	return t, nil
}

func (w *workshop) writeDebian(name string, out io.Writer) error {
	base, err := w.debian()
	if err != nil {
		return err
	}
	if w.below["debian"] == nil { // also when the layer itself is in the mirror already
		into := io.Discard
		if name == "debian" {
			into = out
		}
		if w.below["debian"], err = base.layer(w.ctx, into, nil); err != nil || name == "debian" {
			return err
		}
	}
	t, err := w.installed(name)
	if err != nil {
		return err
	}
	_, err = t.layer(w.ctx, out, w.below["debian"])
	return err
}
