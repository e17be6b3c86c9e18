package dockerapi_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// pack is an archive of a directory.
func pack(t testing.TB, dir string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// unpack makes a directory of an archive.
func unpack(t testing.TB, archive io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// layoutOf is an archive of an OCI image layout.
func layoutOf(t testing.TB, annotations map[string]string, add mutate.Appendable) *bytes.Buffer {
	t.Helper()
	dir := t.TempDir()
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: add, Descriptor: v1.Descriptor{Annotations: annotations}})
	if _, err := layout.Write(dir, index); err != nil {
		t.Fatal(err)
	}
	return pack(t, dir)
}

// What is loaded, in every form, is saved so that others read it: as an archive of Docker and as an OCI image layout.
func TestLoadAndSave(t *testing.T) {
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	ociImage := mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	other, err := random.Image(500, 1)
	if err != nil {
		t.Fatal(err)
	}
	both := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	tarballOf := func(names ...string) *bytes.Buffer {
		var out bytes.Buffer
		images := make(map[name.Tag]v1.Image)
		for _, n := range names {
			tag, err := name.NewTag(n)
			if err != nil {
				t.Fatal(err)
			}
			images[tag] = img
		}
		if err := tarball.MultiWrite(images, &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	const containerd, ref = "io.containerd.image.name", "org.opencontainers.image.ref.name"
	nameless := func() *bytes.Buffer {
		dir := unpack(t, tarballOf("a:b"))
		b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.Replace(b, []byte(`["a:b"]`), []byte("null"), 1)
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return pack(t, dir)
	}
	for what, c := range map[string]struct {
		archive *bytes.Buffer
		save    string   // what docker save is asked for
		tags    []string // that it writes
	}{
		"an archive of Docker":             {tarballOf("gcr.io/p/a:v1"), "gcr.io/p/a:v1", []string{"gcr.io/p/a:v1"}},
		"of Docker Hub":                    {tarballOf("debian:12"), "debian:12", []string{"debian:12"}},
		"a whole repository":               {tarballOf("r.example/a:1", "r.example/a:2"), "r.example/a", []string{"r.example/a:1", "r.example/a:2"}},
		"one of two tags":                  {tarballOf("r.example/a:1", "r.example/a:2"), "r.example/a:2", []string{"r.example/a:2"}},
		"by its id":                        {tarballOf("a:b"), config.Hex[:12], nil},
		"without a name":                   {nameless(), config.Hex[:12], nil},
		"an OCI layout as containerd's":    {layoutOf(t, map[string]string{containerd: "docker.io/library/a:v1", ref: "v1"}, img), "a:v1", []string{"a:v1"}},
		"an OCI layout as podman's":        {layoutOf(t, map[string]string{ref: "localhost/a:v1"}, ociImage), "localhost/a:v1", []string{"localhost/a:v1"}},
		"an OCI layout without a name":     {layoutOf(t, map[string]string{ref: "v1"}, ociImage), config.Hex[:12], nil},
		"an OCI layout of two platforms":   {layoutOf(t, map[string]string{containerd: "a:v1"}, both), "a:v1", []string{"a:v1"}},
		"an OCI layout of Docker's images": {layoutOf(t, map[string]string{containerd: "r.example:5000/a:v1"}, img), "r.example:5000/a:v1", []string{"r.example:5000/a:v1"}},
	} {
		t.Run(what, func(t *testing.T) {
			d := newStore(t)
			if status, text := d.call(t, "POST", "/v1.44/images/load", c.archive); status != 200 ||
				!strings.Contains(text, "Loaded image") || strings.Contains(text, "error") {
				t.Fatalf("%d %s", status, text)
			}
			status, saved := d.call(t, "GET", "/v1.44/images/get?names="+c.save, nil)
			if status != 200 {
				t.Fatalf("%d %.300s", status, saved)
			}
			opener := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(saved)), nil }
			got, err := tarball.Image(opener, nil)
			if err != nil {
				t.Fatal(err)
			}
			list, err := tarball.LoadManifest(opener)
			if err != nil || len(list) != 1 || !slices.Equal(list[0].RepoTags, c.tags) {
				t.Errorf("manifest.json is %+v, %v; want the tags %q", list, err, c.tags)
			}
			dir := unpack(t, strings.NewReader(saved))
			index, err := layout.ImageIndexFromPath(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Index(index); err != nil {
				t.Error(err)
			}
			m, err := index.IndexManifest()
			if err != nil || len(m.Manifests) != max(1, len(c.tags)) {
				t.Fatalf("index.json is %+v, %v", m, err)
			}
			same, err := index.Image(m.Manifests[0].Digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, img := range []v1.Image{got, same} {
				if id, err := img.ConfigName(); err != nil || id != config {
					t.Errorf("the configuration is %s, %v; want %s", id, err, config)
				}
				if err := validate.Image(img); err != nil {
					t.Error(err)
				}
			}
			var repositories map[string]map[string]string
			b, err := fs.ReadFile(os.DirFS(dir), "repositories")
			if err != nil || json.Unmarshal(b, &repositories) != nil {
				t.Errorf("repositories: %s, %v", b, err)
			}
			for _, tag := range c.tags {
				if i := strings.LastIndexByte(tag, ':'); repositories[tag[:i]][tag[i+1:]] == "" {
					t.Errorf("repositories has no %s: %s", tag, b)
				}
			}
		})
	}
}

// Archives that are no good OCI layouts are refused, and nothing outside of them is read.
func TestLoadHostileLayouts(t *testing.T) {
	version := file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	digest := "sha256:" + strings.Repeat("0", 64)
	index := file("index.json", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"`+digest+`","size":2}]}`)
	at := "blobs/sha256/" + strings.Repeat("0", 64)
	for what, c := range map[string]struct {
		entries []tar.Header
		want    string
	}{
		"no index":              {nil, "has no file"},
		"an index that is none": {[]tar.Header{file("index.json", "{")}, "can't be read"},
		"an index of 5 MiB":     {[]tar.Header{{Name: "index.json", Size: 5 << 20}}, "bigger than 4 MiB"},
		"an index that is a link": {[]tar.Header{{Name: "index.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}},
			"has no file"},
		"a digest that is a path": {[]tar.Header{file("index.json", `{"manifests":[{"digest":"sha256:../../x"}]}`)},
			"can't be read"},
		"a manifest that is missing": {[]tar.Header{index}, "has no file"},
		"a manifest of 5 MiB":        {[]tar.Header{index, {Name: at, Size: 5 << 20}}, "bigger than 4 MiB"},
		"a manifest of another digest": {[]tar.Header{index, file(at, `{"config":{"digest":"`+digest+`"}}`)},
			"digest"},
		"an index in itself": {[]tar.Header{index, file(at,
			`{"manifests":[{"digest":"`+digest+`","platform":{"os":"linux","architecture":"amd64"}}]}`)},
			"no image for linux/"},
	} {
		t.Run(what, func(t *testing.T) {
			d := newStore(t)
			status, text := d.call(t, "POST", "/v1.44/images/load", archive(t, append(c.entries, version)...))
			if status == 500 || !strings.Contains(text, c.want) || strings.Contains(text, "Loaded") {
				t.Errorf("%d %s, want %q", status, text, c.want)
			}
		})
	}
}

// docker history has a line for each entry of the image's own.
func TestHistory(t *testing.T) {
	img, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.History = []v1.History{{CreatedBy: "first"}, {CreatedBy: "env", EmptyLayer: true}, {CreatedBy: "second"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("a:b")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tarball.Write(tag, img, &out); err != nil {
		t.Fatal(err)
	}
	d := newStore(t)
	d.call(t, "POST", "/v1.44/images/load", &out)
	status, text := d.call(t, "GET", "/v1.44/images/a:b/history", nil)
	var got []struct {
		ID, CreatedBy string
		Size          int64
		Tags          []string
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 || len(got) != 3 {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	if got[0].CreatedBy != "second" || got[0].Size == 0 || got[1].Size != 0 || got[2].Size == 0 ||
		!slices.Equal(got[0].Tags, []string{"a:b"}) || got[1].ID != "<missing>" {
		t.Errorf("history is %+v", got)
	}
}
