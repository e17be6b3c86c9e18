// Command buildpacks makes a builder and a run image of a base image, for tests that run the real lifecycle of Cloud
// Native Buildpacks: buildpacks BASE.tar PROGRAMS BUILDPACK BUILDER.tar RUN.tar. It is not part of the product.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: buildpacks BASE.tar PROGRAMS BUILDPACK BUILDER.tar RUN.tar")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, "buildpacks:", err)
		os.Exit(1)
	}
}

// What both images have.
const (
	users   = "root:x:0:0:root:/root:/bin/sh\ncnb:x:1000:1000:cnb:/home/cnb:/bin/sh\n"
	runName = "images.test/run:1"
	order   = "[[order]]\n[[order.group]]\nid = \"test/java\"\nversion = \"0.0.1\"\n"
	// The labels that pack writes, as far as a platform needs them.
	builderLabel = `{"stack":{"runImage":{"image":"` + runName + `"}},"lifecycle":{"version":"0.20.5","apis":{"platform":{"deprecated":[],"supported":["0.7","0.8","0.9","0.10","0.11","0.12","0.13","0.14"]}}}}`
	layersLabel  = `{"test/java":{"0.0.1":{"api":"0.10"}}}`
)

func run(base, programs, buildpack, builderFile, runFile string) error {
	from, err := tarball.ImageFromPath(base, nil)
	if err != nil {
		return err
	}
	common := []entry{{name: "etc/passwd", data: []byte(users), mode: 0o644}, {name: "home/cnb/", mode: 0o755}}
	builder := append(common, entry{name: "cnb/order.toml", data: []byte(order), mode: 0o644},
		entry{name: "cnb/lifecycle/creator", link: "lifecycle"})
	for _, f := range []struct{ from, to string }{
		{filepath.Join(programs, "lifecycle"), "cnb/lifecycle/lifecycle"},
		{filepath.Join(programs, "launcher"), "cnb/lifecycle/launcher"},
		{filepath.Join(buildpack, "buildpack.toml"), "cnb/buildpacks/test_java/0.0.1/buildpack.toml"},
		{filepath.Join(buildpack, "detect"), "cnb/buildpacks/test_java/0.0.1/bin/detect"},
		{filepath.Join(buildpack, "build"), "cnb/buildpacks/test_java/0.0.1/bin/build"},
	} {
		data, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		builder = append(builder, entry{name: f.to, data: data, mode: 0o755})
	}
	ids := []string{"CNB_USER_ID=1000", "CNB_GROUP_ID=1000"}
	labels := map[string]string{"io.buildpacks.builder.metadata": builderLabel,
		"io.buildpacks.buildpack.layers": layersLabel}
	if err := write(builderFile, "builder", from, builder, ids, labels); err != nil {
		return err
	}
	return write(runFile, "run", from, common, nil, nil)
}

// entry is a file of a layer, a link where it has one, a directory where its name ends in a slash.
type entry struct {
	name, link string
	data       []byte
	mode       int64
}

func write(file, as string, from v1.Image, entries []entry, env []string, labels map[string]string) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Mode: e.mode, Size: int64(len(e.data))}
		if e.link != "" {
			h.Typeflag = tar.TypeSymlink
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	})
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(from, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.Config.User, config.Config.Env = "1000:1000", append(config.Config.Env, env...)
	config.Config.Labels, config.Config.Cmd = labels, nil
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	tag, err := name.NewTag(as)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, img)
}
