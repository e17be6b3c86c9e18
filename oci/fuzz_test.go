package oci_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/oci"
)

// Whatever the bytes of a layer are, nothing lands outside the layers' directory.
func FuzzLayer(f *testing.F) {
	f.Add([]byte{})
	f.Add(gzipped([]byte("not a tar")))
	t := new(testing.T)
	for _, h := range []tar.Header{
		{
			Name:  "a/b",
			Uname: "x",
		}, {Name: "../x", Uname: "x"}, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: ".wh.a"},
		{Name: "d/.wh..wh..opq"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "../../x"},
	} {
		f.Add(tarOf(t, h))
		f.Add(zstded(tarOf(t, h)))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		t.Setenv("TMPDIR", "/dev/shm") // where syncing takes no time
		fx := setup(t, oci.Limits{Bytes: 1 << 20, Entries: 100})
		_, err := fx.Unpack(t.Context(), fx.assemble(v1.ConfigFile{}, fx.layer(stream, plain)))
		entries, _ := os.ReadDir(fx.dir)
		if len(entries) != 3 {
			t.Errorf("the directory holds %v", entries)
		}
		if left, _ := os.ReadDir(filepath.Join(fx.dir, "tmp")); len(left) != 0 {
			t.Errorf("half a layer stayed behind (%v)", err)
		}
	})
}

// Whatever a manifest says, it is refused or resolved, and never read beyond its own blobs.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:x"},"layers":[]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"../../etc/passwd","platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, manifest []byte) {
		fx := setup(t, oci.Limits{})
		digest := fx.put(manifest).String()
		if m, err := fx.Inspect(t.Context(), digest); err == nil && m.Digest != digest {
			t.Errorf("%s resolved to %s", digest, m.Digest)
		}
	})
}
