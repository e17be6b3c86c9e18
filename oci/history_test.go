package oci_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"giggle/fault"
	"giggle/oci"
)

// An image has a line of history for each layer, and a time: podman and Docker build on no others.
func TestHistory(t *testing.T) {
	when := v1.Time{Time: time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC)}
	for what, c := range map[string]struct {
		layers  int
		known   []v1.History
		created v1.Time
		want    string // who made each; those without a layer in brackets
	}{
		"no layer":                     {0, nil, when, ""},
		"one layer":                    {1, nil, when, "layer0"},
		"two layers":                   {2, nil, when, "layer0 layer1"},
		"no time":                      {1, nil, v1.Time{}, "layer0"},
		"a base":                       {2, []v1.History{{CreatedBy: "base"}}, when, "base layer1"},
		"a base with what has none":    {2, []v1.History{{CreatedBy: "base"}, {CreatedBy: "env", EmptyLayer: true}}, when, "base [env] layer1"},
		"a base that is all":           {1, []v1.History{{CreatedBy: "base"}}, when, "base"},
		"only what has no layer":       {1, []v1.History{{CreatedBy: "env", EmptyLayer: true}}, when, "[env] layer0"},
		"a base that says too much":    {1, []v1.History{{CreatedBy: "base"}, {CreatedBy: "more"}}, when, "layer0"},
		"a base that says too little":  {3, []v1.History{{CreatedBy: "base"}}, when, "base layer1 layer2"},
		"a base whose history is none": {2, []v1.History{}, when, "layer0 layer1"},
	} {
		t.Run(what, func(t *testing.T) {
			f := setup(t, oci.Limits{})
			var layers []oci.Layer
			for i := range c.layers {
				l, err := f.AddLayer(t.Context(), []oci.File{{Path: "/f", Data: []byte{byte(i)}}})
				if err != nil {
					t.Fatal(err)
				}
				l.CreatedBy = "layer" + string(rune('0'+i))
				layers = append(layers, l)
			}
			digest := f.assemble(v1.ConfigFile{OS: "linux", Architecture: "amd64", History: c.known, Created: c.created},
				layers...)
			m, err := f.Inspect(t.Context(), digest)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range m.Config.History {
				by := h.CreatedBy
				if h.EmptyLayer {
					by = "[" + by + "]"
				}
				got = append(got, by)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("history is %q, want %q", got, c.want)
			}
			if m.Config.Created.Year() < 1980 || !c.created.IsZero() && !m.Config.Created.Equal(c.created.Time) {
				t.Errorf("created at %s", m.Config.Created)
			}
		})
	}
}

// An archive has what images share once, and every library reads it.
func TestWriteArchive(t *testing.T) {
	f := setup(t, oci.Limits{})
	var layers []oci.Layer
	for _, text := range []string{"below", "above"} {
		l, err := f.AddLayer(t.Context(), []oci.File{{Path: "/" + text, Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	cfg := v1.ConfigFile{OS: "linux", Architecture: "amd64"}
	small, big := f.assemble(cfg, layers[:1]...), f.assemble(cfg, layers...)
	var out bytes.Buffer
	var images []oci.Archived
	for tag, digest := range map[string]string{"a:small": small, "b:big": big} {
		n, err := name.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, oci.Archived{Digest: digest, Tags: []name.Tag{n}})
	}
	if err := oci.WriteArchive(t.Context(), &out, f.blobs, images...); err != nil {
		t.Fatal(err)
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil }
	for _, i := range images {
		img, err := tarball.Image(opener, &i.Tags[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("%s: %v", i.Tags[0], err)
		}
	}
	if n := bytes.Count(out.Bytes(), []byte("blobs/sha256/"+layers[0].Digest.Hex+"\x00")); n != 1 {
		t.Errorf("the layer that both have is %d times in the archive", n)
	}
	gone := oci.Archived{Digest: "sha256:" + strings.Repeat("0", 64)}
	if err := oci.WriteArchive(t.Context(), io.Discard, f.blobs, gone); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
}
