package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/source"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
)

const labels = `{"stack":{"runImage":{"image":"a.test/run","mirrors":["b.test/run"]}},` +
	`"images":[{"image":"a.test/run"},{"image":"c.test/run"}],"lifecycle":{"apis":{"platform":{"supported":["0.11","0.12","0.13"]}}}}`

func builderImage(env []string, labels map[string]string) oci.Image {
	var img oci.Image
	img.Config.Env, img.Config.Labels = env, labels
	return img
}

func TestDescribe(t *testing.T) {
	ids := []string{"CNB_USER_ID=33", "CNB_GROUP_ID=34"}
	const meta, packs = "io.buildpacks.builder.metadata", "io.buildpacks.buildpack.layers"
	got, err := describe("b", builderImage(ids, map[string]string{meta: labels,
		packs: `{"google/java":{"1.0":{}},"two":{"1":{},"2":{}}}`}))
	if err != nil || got.uid != 33 || got.gid != 34 || got.api != "0.13" ||
		!slices.Equal(got.runs, []string{"a.test/run", "c.test/run", "b.test/run"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	for asked, want := range map[string]string{
		"google/java":                       "[[order]]\n[[order.group]]\nid = \"google/java\"\nversion = \"1.0\"\n",
		"urn:cnb:builder:google/java@1.0":   "[[order]]\n[[order.group]]\nid = \"google/java\"\nversion = \"1.0\"\n",
		"two@2":                             "[[order]]\n[[order.group]]\nid = \"two\"\nversion = \"2\"\n",
		"two":                               "",
		"google/java@2.0":                   "",
		"https://example.com/buildpack.tgz": "",
	} {
		order, err := got.order([]string{asked})
		if order != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", asked, order, err)
		}
	}
	for name, img := range map[string]oci.Image{
		"no user":   builderImage(nil, map[string]string{meta: labels}),
		"root":      builderImage([]string{"CNB_USER_ID=0", "CNB_GROUP_ID=0"}, map[string]string{meta: labels}),
		"too high":  builderImage([]string{"CNB_USER_ID=65536", "CNB_GROUP_ID=1"}, map[string]string{meta: labels}),
		"no labels": builderImage(ids, nil),
		"no JSON":   builderImage(ids, map[string]string{meta: "{"}),
		"old": builderImage(ids, map[string]string{
			meta: `{"lifecycle":{"apis":{"platform":{"supported":["0.3"]}}}}`}),
		"wrong layers": builderImage(ids, map[string]string{meta: labels, packs: "[]"}),
	} {
		if _, err := describe("b", img); !fault.Is(err, fault.FailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fixture is a lifecycle over blobs of its own, without images.
type fixture struct {
	*Lifecycle
	blobs *blob.Dir
	dir   string
}

// none finds no image.
type none struct{}

func (none) Image(_ context.Context, _ builds.Build, name string, _ func(string)) (oci.Image, error) {
	return oci.Image{}, fault.New(fault.NotFound, "the image %s is not on this machine", name)
}

func (none) Pull(context.Context, builds.Build, string, func(string)) (string, error) {
	return "", fault.New(fault.NotFound, "nothing is there")
}

func setup(t *testing.T) fixture {
	t.Helper()
	dir := t.TempDir()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := oci.New(filepath.Join(dir, "layers"), blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := images.Close(); err != nil {
			t.Error(err)
		}
	})
	return fixture{New(Config{
		Images:    none{},
		Manifests: images,
		Blobs:     blobs,
		Scratch:   func(builds.Build) string { return dir },
		Caches:    filepath.Join(dir, "caches"),
		Now:       func() time.Time { return time.Unix(1_800_000_000, 0) },
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}), blobs, dir}
}

func hash(b []byte) v1.Hash {
	h, err := v1.NewHash(string(blob.FromBytes(b)))
	if err != nil {
		panic(err)
	}
	return h
}

// image is a manifest with its configuration, over layers of any content.
func image(layers ...[]byte) (manifest, config []byte) {
	cf := v1.ConfigFile{OS: "linux", Architecture: "amd64"}
	m := v1.Manifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	for _, l := range layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, hash(l))
		m.Layers = append(m.Layers, v1.Descriptor{
			MediaType: "application/vnd.oci.image.layer.v1.tar",
			Size:      int64(len(l)),
			Digest:    hash(l),
		})
	}
	config, _ = json.Marshal(cf) // of plain values
	m.Config = v1.Descriptor{
		MediaType: "application/vnd.oci.image.config.v1+json",
		Size:      int64(len(config)),
		Digest:    hash(config),
	}
	manifest, _ = json.Marshal(m)
	return manifest, config
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// What the lifecycle leaves becomes an image of the platform's blobs: its own layers from the directory, the run
// image's from where they are. What is no such thing is refused.
func TestLayout(t *testing.T) {
	ctx := t.Context()
	f := setup(t)
	below, app := []byte("the run image's layer"), []byte("the app's layer")
	runManifest, runConfig := image(below)
	for _, b := range [][]byte{below, runManifest, runConfig} {
		if _, err := f.blobs.Put(ctx, bytes.NewReader(b), blob.FromBytes(b)); err != nil {
			t.Fatal(err)
		}
	}
	run, err := f.cfg.Manifests.Inspect(ctx, hash(runManifest).String())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.dir, "layout")
	if err := f.layOut(ctx, dir, "images.test/run:1", run); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "images.test/run/1/index.json"))
	if err != nil || !strings.Contains(string(index), hash(runManifest).Hex) {
		t.Errorf("the index of the run image: %s, %v", index, err)
	}
	const at = "europe-docker.pkg.dev/p/r/app/latest"
	if got, err := layoutPath("europe-docker.pkg.dev/p/r/app"); got != at || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	manifest, config := image(below, app)
	blobAt := func(b []byte) string { return filepath.Join(dir, at, "blobs", "sha256", hash(b).Hex) }
	made := func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(dir, at)); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, at, "index.json"),
			fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q}]}`, hash(manifest)))
		for _, b := range [][]byte{manifest, config, app} {
			write(t, blobAt(b), b)
		}
		write(t, blobAt(below), nil) // the lifecycle leaves an empty file for a layer that it was not given
	}
	outside := filepath.Join(f.dir, "outside")
	write(t, outside, app)
	link := func(t *testing.T, target, file string) {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func(t *testing.T){
		"no index":    func(t *testing.T) { _ = os.Remove(filepath.Join(dir, at, "index.json")) },
		"no image":    func(t *testing.T) { write(t, filepath.Join(dir, at, "index.json"), []byte("{}")) },
		"large index": func(t *testing.T) { _ = os.Truncate(filepath.Join(dir, at, "index.json"), maxDocument+1) },
		"wrong layer": func(t *testing.T) { write(t, blobAt(app), []byte("another")) },
		"no layer":    func(t *testing.T) { _ = os.Remove(blobAt(app)) },
		"link":        func(t *testing.T) { link(t, outside, blobAt(app)) },
		"link above":  func(t *testing.T) { link(t, f.dir, filepath.Join(dir, at)) },
		"pipe": func(t *testing.T) {
			_ = os.Remove(blobAt(app))
			if err := syscall.Mkfifo(blobAt(app), 0o666); err != nil {
				t.Fatal(err)
			}
		},
		"wrong manifest": func(t *testing.T) { write(t, blobAt(manifest), []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			made(t)
			harm(t)
			if digest, err := f.collect(ctx, dir, at, run); err == nil {
				t.Errorf("%s was taken", digest)
			}
			if _, err := f.blobs.Stat(ctx, blob.FromBytes(manifest)); err == nil {
				t.Error("the manifest was kept")
			}
		})
	}
	made(t)
	digest, err := f.collect(ctx, dir, at, run)
	if err != nil || digest != hash(manifest).String() {
		t.Fatalf("%s, %v", digest, err)
	}
	for _, b := range [][]byte{manifest, config, app, below} {
		if _, err := f.blobs.Stat(ctx, blob.FromBytes(b)); err != nil {
			t.Error(err)
		}
	}
}

// A cache comes back to the builds of its project, image and builder, and to nobody else.
func TestCache(t *testing.T) {
	f := setup(t)
	n := 0
	build := func(project string, r Request, with builder) string {
		t.Helper()
		n++
		dir := filepath.Join(f.dir, fmt.Sprint("build", n))
		giveBack, err := f.takeCache(project, r, with, dir)
		if err != nil {
			t.Fatal(err)
		}
		seen, err := os.ReadFile(filepath.Join(dir, "who"))
		if err != nil {
			seen = []byte("nobody")
		}
		write(t, filepath.Join(dir, "who"), []byte(project))
		giveBack()
		return string(seen)
	}
	r, user := Request{Image: "a.test/app:1", Builder: "b"}, builder{uid: 1000, gid: 1000}
	build("p", r, user)
	later := r
	later.Image = "a.test/app:2"
	if got := build("p", later, user); got != "p" {
		t.Errorf("the next build of the image finds the cache of %s", got)
	}
	another := r
	another.Builder = "c"
	for name, got := range map[string]string{
		"project": build("q", r, user), "builder": build("p", another, user), "user": build("p", r, builder{uid: 1}),
	} {
		if got != "nobody" {
			t.Errorf("another %s finds the cache of %s", name, got)
		}
	}
	clear := r
	clear.ClearCache = true
	if got := build("p", clear, user); got != "nobody" {
		t.Errorf("a cleared cache is that of %s", got)
	}

	// Two at once: the second starts with an empty one, and the last to end leaves its own.
	first, err := f.takeCache("p", r, user, filepath.Join(f.dir, "first"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.takeCache("p", r, user, filepath.Join(f.dir, "second"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "second", "who")); err == nil {
		t.Error("two builds have one cache")
	}
	first()
	second()
	if got := build("p", r, user); got != "nobody" {
		t.Errorf("after both: %s", got)
	}

	left := func() []string {
		found, err := filepath.Glob(filepath.Join(f.cfg.Caches, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	onlyP := func(project string) bool { return project == "p" }
	if err := f.Keep(f.cfg.Now(), onlyP); err != nil || len(left()) != 3 {
		t.Errorf("%v; of the projects that are there, three caches are left: %v", err, left())
	}
	if _, err := os.Stat(filepath.Join(f.cfg.Caches, "q")); err == nil {
		t.Error("the cache of a project that is gone is there")
	}
	if err := f.Keep(f.cfg.Now().Add(cacheAge+time.Hour), onlyP); err != nil || len(left()) != 0 {
		t.Errorf("%v; caches that nobody uses are left: %v", err, left())
	}
}

// builtIn notes what it was asked to build.
type builtIn struct {
	env   []string
	names []string
}

func (b *builtIn) BuildSource(
	_ context.Context, _ builds.Build, step builds.Step, archive io.ReadSeeker, _ int64, _ io.Writer,
) (string, error) {
	b.env = step.Env
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if err != nil {
			return "sha256:built-in", nil
		}
		b.names = append(b.names, h.Name)
	}
}

func build(steps ...builds.Step) builds.Build {
	return builds.Build{
		Name:    resource.Build("p", "global", "b-1"),
		Project: "p",
		Spec:    builds.Spec{Steps: steps},
	}
}

// Without Google's builder the built-in builders stand in for it, with the source as it is in the workspace: links are
// kept as links, and what is no file stays away. Another builder is needed.
func TestBuiltInInPlaceOfGoogles(t *testing.T) {
	f := setup(t)
	workspace := filepath.Join(f.dir, "workspace")
	write(t, filepath.Join(workspace, "app", "index.html"), []byte("hello"))
	if err := os.Symlink("/etc/shadow", filepath.Join(workspace, "app", "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(workspace, "app", "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	b := &builtIn{}
	var pushed []string
	cli := &CLI{Lifecycle: f.Lifecycle, BuiltIn: b, Shared: func(builds.Build) string { return f.dir },
		Push: func(_ context.Context, _ builds.Build, image, digest string) error {
			pushed = append(pushed, image+" "+digest)
			return nil
		}}
	gcloud := []builds.Step{
		{Name: Images[0], Entrypoint: "pack", Args: []string{"config", "default-builder", DefaultBuilder}},
		{Name: Images[0], Entrypoint: "pack", Args: []string{"build", "a.test/app", "--network", "cloudbuild", "--env", "A=1",
			"--path", "app", "--publish"}},
	}
	var log strings.Builder
	if names, digest, err := cli.Run(t.Context(), build(gcloud...), gcloud[0], &log); err != nil || digest != "" {
		t.Errorf("config: %v, %s, %v", names, digest, err)
	}
	names, digest, err := cli.Run(t.Context(), build(gcloud...), gcloud[1], &log)
	if err != nil || digest != "sha256:built-in" || !slices.Equal(names, []string{"a.test/app"}) {
		t.Errorf("%v, %s, %v", names, digest, err)
	}
	if !slices.Equal(b.names, []string{"index.html", "link"}) || !slices.Equal(b.env, []string{"A=1"}) {
		t.Errorf("built of %v with %v", b.names, b.env)
	}
	if !slices.Equal(pushed, []string{"a.test/app sha256:built-in"}) {
		t.Errorf("pushed %v", pushed)
	}
	if !strings.Contains(log.String(), "builder gcr.io/buildpacks/builder:latest is not to be had") ||
		!strings.Contains(log.String(), "take its place") {
		t.Errorf("the log does not say it:\n%s", &log)
	}
	left, err := filepath.Glob(filepath.Join(f.dir, "pack-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	for name, tt := range map[string]struct {
		step builds.Step
		code fault.Code
	}{
		"another builder": {builds.Step{Args: []string{"build", "a.test/app", "-B", "b.test/builder"}}, fault.NotFound},
		"chosen before":   {builds.Step{Args: []string{"build", "a.test/app"}}, fault.NotFound},
		"a buildpack":     {builds.Step{Args: []string{"build", "a.test/app", "-B", DefaultBuilder, "-b", "x"}}, fault.NotFound},
		"outside":         {builds.Step{Args: []string{"build", "a.test/app", "-p", "../.."}}, fault.InvalidArgument},
		"nowhere":         {builds.Step{Args: []string{"build", "a.test/app", "-p", "none"}}, fault.InvalidArgument},
		"a script":        {builds.Step{Script: "pack build x"}, fault.Unimplemented},
		"a shell":         {builds.Step{Entrypoint: "sh", Args: []string{"build", "x"}}, fault.Unimplemented},
		"another command": {builds.Step{Args: []string{"rebase", "a.test/app"}}, fault.Unimplemented},
	} {
		of := build(builds.Step{Name: Images[1] + ":0.36", Args: []string{"config", "default-builder", "b.test/builder"}})
		if _, _, err := cli.Run(t.Context(), of, tt.step, io.Discard); !fault.Is(err, tt.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, filepath.Join(workspace, "app", "project.toml"), nil)
	if _, _, err := cli.Run(t.Context(), build(gcloud...), gcloud[1], io.Discard); !fault.Is(err, fault.Unimplemented) {
		t.Errorf("project.toml: %v", err)
	}
}

// A source that an earlier step has made huge, without any disk, is not written out.
func TestSourceIsBounded(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "big"), nil)
	if err := os.Truncate(filepath.Join(dir, "big"), 1<<40); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	to, err := os.Create(filepath.Join(t.TempDir(), "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	if _, err := pack(t.Context(), root, ".", to, source.DefaultLimits); !fault.Is(err, fault.ResourceExhausted) {
		t.Error(err)
	}
	if st, err := to.Stat(); err != nil || st.Size() > 1<<20 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.Remove(filepath.Join(dir, "big")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), nil)
	}
	if _, err := pack(t.Context(), root, ".", to, source.Limits{Bytes: 1, Entries: 2}); !fault.Is(err,
		fault.ResourceExhausted) {
		t.Error(err)
	}
}

// A builder does not choose what its lifecycle is told.
func TestOverride(t *testing.T) {
	env := []string{"PATH=/bin", "CNB_PLATFORM_API=0.3", "CNB_PLATFORM_API=0.4", "CNB_USER_ID=1"}
	want := []string{"PATH=/bin", "CNB_USER_ID=1", "CNB_PLATFORM_API=0.13"}
	if got := override(env, []string{"CNB_PLATFORM_API=0.13"}); !slices.Equal(got, want) || len(env) != 4 {
		t.Errorf("%q", got)
	}
}

func TestEnded(t *testing.T) {
	for want, exit := range map[string]engine.Exit{"memory of 4096 MiB": {Code: 137, OOM: true},
		"fits the source": {Code: 20}, "failed to build": {Code: 51}, "status 1": {Code: 1}} {
		if err := ended("b", exit, 4<<30); !fault.Is(err, fault.FailedPrecondition) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", exit, err)
		}
	}
	if err := ended("b", engine.Exit{}, 0); err != nil {
		t.Error(err)
	}
}
