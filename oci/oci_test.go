package oci_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

type fixture struct {
	t     *testing.T
	blobs *blob.Dir
	dir   string
	*oci.Images
}

func setup(t *testing.T, limits oci.Limits) fixture {
	t.Helper()
	blobs, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	im, err := oci.New(dir, blobs, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return fixture{t, blobs, dir, im}
}

func (f fixture) put(b []byte) v1.Hash {
	f.t.Helper()
	info, err := f.blobs.Put(f.t.Context(), bytes.NewReader(b), "")
	if err != nil {
		f.t.Fatal(err)
	}
	h, err := v1.NewHash(string(info.Digest))
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

// layer stores a tar stream through the given compressor.
func (f fixture) layer(stream []byte, compress func([]byte) []byte) oci.Layer {
	packed := compress(stream)
	return oci.Layer{
		Digest: f.put(packed), Size: int64(len(packed)), MediaType: types.OCILayer,
		DiffID: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(stream))},
	}
}

func (f fixture) assemble(cfg v1.ConfigFile, layers ...oci.Layer) string {
	f.t.Helper()
	digest, _, err := f.Assemble(f.t.Context(), layers, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return digest
}

func plain(b []byte) []byte { return b }

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(b)
	z.Close()
	return buf.Bytes()
}

func zstded(b []byte) []byte {
	z, _ := zstd.NewWriter(nil)
	return z.EncodeAll(b, nil)
}

func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := h.Uname // the tests' place for content
		h.Uname, h.Size = "", int64(len(content))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	w.Close()
	return buf.Bytes()
}

func TestUnpackCompressions(t *testing.T) {
	f := setup(t, oci.Limits{})
	stream := tarOf(t, tar.Header{Name: "bin/", Typeflag: tar.TypeDir}, tar.Header{
		Name:  "bin/app",
		Uname: "app",
		Uid:   1000,
		Gid:   1001,
		Mode:  0o4755,
	})
	for name, compress := range map[string]func([]byte) []byte{"tar": plain, "gzip": gzipped, "zstd": zstded} {
		t.Run(name, func(t *testing.T) {
			cfg := v1.ConfigFile{Config: v1.Config{Cmd: []string{"/bin/app"}, User: "1000"}}
			img, err := f.Unpack(t.Context(), f.assemble(cfg, f.layer(stream, compress)))
			if err != nil {
				t.Fatal(err)
			}
			if img.Config.User != "1000" || len(img.Layers) != 1 || img.Size == 0 {
				t.Errorf("image = %+v", img)
			}
			st, err := os.Stat(filepath.Join(img.Layers[0], "bin/app"))
			if err != nil {
				t.Fatal(err)
			}
			if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 1000 || sys.Gid != 1001 || st.Mode()&os.ModeSetuid == 0 {
				t.Errorf("owner %d:%d mode %v, want 1000:1001 and setuid", sys.Uid, sys.Gid, st.Mode())
			}
		})
	}
}

func TestWhiteoutsAndImpliedParents(t *testing.T) {
	f := setup(t, oci.Limits{})
	base := f.layer(tarOf(t,
		tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		tar.Header{Name: "etc/gone", Uname: "x"},
		tar.Header{Name: "opt/old", Uname: "x"}), gzipped)
	top := f.layer(tarOf(t,
		tar.Header{Name: "etc/.wh.gone"},
		tar.Header{Name: "opt/", Typeflag: tar.TypeDir},
		tar.Header{Name: "opt/.wh..wh..opq"},
		tar.Header{Name: "tmp/file", Uname: "x"}), gzipped)
	img, err := f.Unpack(t.Context(), f.assemble(v1.ConfigFile{}, base, top))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(filepath.Join(img.Layers[1], "etc/gone"))
	if err != nil || st.Mode()&os.ModeCharDevice == 0 || st.Sys().(*syscall.Stat_t).Rdev != 0 {
		t.Errorf("whiteout is %v, %v: want a 0/0 device", st, err)
	}
	opaque := make([]byte, 8)
	if n, err := syscall.Getxattr(filepath.Join(img.Layers[1], "opt"), "trusted.overlay.opaque", opaque); err != nil ||
		string(opaque[:n]) != "y" {
		t.Errorf("opaque mark = %q, %v", opaque[:n], err)
	}
	if st, err := os.Stat(filepath.Join(img.Layers[1], "tmp")); err != nil || st.Mode()&os.ModeSticky == 0 ||
		st.Mode().Perm() != 0o777 {
		t.Errorf("implied /tmp is %v, %v: want the mode of the layer below", st.Mode(), err)
	}
}

func TestHostileLayers(t *testing.T) {
	outside := t.TempDir()
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	for name, entries := range map[string][]tar.Header{
		"dots":          {{Name: "../../../../../../../../" + outside + "/pwned", Uname: "x"}},
		"absolute":      {{Name: outside + "/pwned", Uname: "x"}},
		"symlink":       {link("out", outside), {Name: "out/pwned", Uname: "x"}},
		"whiteout":      {link("out", outside), {Name: "out/.wh.kept"}},
		"whiteout dots": {{Name: "a/.wh..."}},
		"hard link":     {{Name: "pwned", Typeflag: tar.TypeLink, Linkname: "../../../../../../../../etc/passwd"}},
		"device":        {{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"overlay attr": {{
			Name:       "d/",
			Typeflag:   tar.TypeDir,
			PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"},
		}},
		"empty name":     {{Name: "", Uname: "x"}},
		"the root again": {{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 77}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := filepath.Join(outside, "kept")
			if err := os.WriteFile(kept, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			f := setup(t, oci.Limits{})
			img, err := f.Unpack(t.Context(), f.assemble(v1.ConfigFile{}, f.layer(tarOf(t, entries...), plain)))
			if _, err := os.Lstat(filepath.Join(outside, "pwned")); err == nil {
				t.Error("the layer wrote outside its directory")
			}
			if _, err := os.Stat(kept); err != nil {
				t.Error("the layer removed a file outside its directory")
			}
			if err != nil {
				return // refused: fine
			}
			if _, err := os.Lstat(filepath.Join(img.Layers[0], "sda")); err == nil {
				t.Error("the layer made a device node")
			}
			if _, err := syscall.Getxattr(filepath.Join(img.Layers[0], "d"), "trusted.overlay.redirect",
				nil); err == nil {
				t.Error("the layer set overlay's own attribute")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	stream := tarOf(t, tar.Header{Name: "a", Uname: strings.Repeat("x", 5000)}, tar.Header{Name: "b"},
		tar.Header{Name: "c"})
	for name, tc := range map[string]struct {
		limits oci.Limits
		layer  func(f fixture) oci.Layer
		want   fault.Code
	}{
		"wrong diff id": {oci.Limits{}, func(f fixture) oci.Layer {
			l := f.layer(stream, gzipped)
			l.DiffID.Hex = strings.Repeat("0", 64)
			return l
		}, fault.InvalidArgument},
		"no such blob": {oci.Limits{}, func(f fixture) oci.Layer {
			return oci.Layer{
				Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)},
				DiffID: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)},
			}
		}, fault.NotFound},
		"not a tar": {oci.Limits{}, func(f fixture) oci.Layer {
			return f.layer([]byte(strings.Repeat("no ",
				999)), plain)
		}, fault.InvalidArgument},
		"torn gzip": {oci.Limits{}, func(f fixture) oci.Layer {
			return f.layer(stream,
				func(b []byte) []byte { return gzipped(b)[:60] })
		}, fault.InvalidArgument},
		"too many bytes": {oci.Limits{Bytes: 4999, Entries: 100}, func(f fixture) oci.Layer {
			return f.layer(stream,
				gzipped)
		}, fault.ResourceExhausted},
		"too many entries": {oci.Limits{Bytes: 1 << 20, Entries: 2}, func(f fixture) oci.Layer {
			return f.layer(stream,
				gzipped)
		}, fault.ResourceExhausted},
		"zeros behind the end": {oci.Limits{Bytes: 5000, Entries: 3}, func(f fixture) oci.Layer {
			return f.layer(append(bytes.Clone(stream), make([]byte, 1<<20)...), gzipped)
		}, fault.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, tc.limits)
			_, err := f.Unpack(t.Context(), f.assemble(v1.ConfigFile{}, tc.layer(f)))
			if !fault.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			for _, sub := range []string{"layers", "tmp"} {
				if left, _ := os.ReadDir(filepath.Join(f.dir, sub)); len(left) != 0 {
					t.Errorf("%s holds %v after a refused layer", sub, left)
				}
			}
		})
	}
}

func TestIndex(t *testing.T) {
	f := setup(t, oci.Limits{})
	want := f.assemble(v1.ConfigFile{Config: v1.Config{Env: []string{"HERE=1"}}})
	other := f.assemble(v1.ConfigFile{Config: v1.Config{Env: []string{"ELSEWHERE=1"}}})
	entry := func(digest, os, arch string) v1.Descriptor {
		h, _ := v1.NewHash(digest)
		return v1.Descriptor{
			MediaType: types.OCIManifestSchema1,
			Digest:    h,
			Platform:  &v1.Platform{OS: os, Architecture: arch},
		}
	}
	index := func(mt types.MediaType, ds ...v1.Descriptor) string {
		b, _ := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: mt, Manifests: ds})
		return f.put(b).String()
	}
	ours := []v1.Descriptor{entry(other, "unknown", "unknown"), entry(other, "linux", "s390x"),
		entry(want, "linux", runtime.GOARCH)}
	inner := index(types.OCIImageIndex, ours...)
	innerEntry := entry(inner, "linux", runtime.GOARCH)
	for name, digest := range map[string]string{
		"OCI": index(types.OCIImageIndex, ours...), "Docker": index(types.DockerManifestList, ours...),
		"no media type": index("", ours...),
		"nested":        index(types.OCIImageIndex, innerEntry),
	} {
		if img, err := f.Unpack(t.Context(), digest); err != nil || img.Digest != want {
			t.Errorf("%s: got %q, %v, want %s", name, img.Digest, err, want)
		}
	}
	if _, err := f.Unpack(t.Context(), index(types.OCIImageIndex, ours[:2]...)); !fault.Is(err,
		fault.FailedPrecondition) {
		t.Errorf("index without our platform: %v", err)
	}
	deep := index(types.OCIImageIndex, entry(index(types.OCIImageIndex, innerEntry), "linux", runtime.GOARCH))
	if _, err := f.Unpack(t.Context(), deep); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("indexes all the way down: %v", err)
	}
}

// A hundred callers of one image: one unpacking, all see the whole layer.
func TestUnpackAtOnce(t *testing.T) {
	f := setup(t, oci.Limits{})
	digest := f.assemble(v1.ConfigFile{},
		f.layer(tarOf(t, tar.Header{Name: "file", Uname: strings.Repeat("x", 1<<20)}), gzipped))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			img, err := f.Unpack(t.Context(), digest)
			if err != nil {
				t.Error(err)
				return
			}
			if st, err := os.Stat(filepath.Join(img.Layers[0], "file")); err != nil || st.Size() != 1<<20 {
				t.Errorf("file = %v, %v", st, err)
			}
		})
	}
	wg.Wait()
	if left, _ := os.ReadDir(filepath.Join(f.dir, "layers")); len(left) != 1 {
		t.Errorf("%d layer directories, want 1", len(left))
	}
}

// A new process keeps what is known to be on disk, and nothing else.
// What others have unpacked is not unpacked again, once it is on disk there.
func TestBorrow(t *testing.T) {
	f := setup(t, oci.Limits{})
	one := f.layer(tarOf(t, tar.Header{Name: "one"}), gzipped)
	digest := f.assemble(v1.ConfigFile{}, one, f.layer(tarOf(t, tar.Header{Name: "two"}), gzipped))
	lent := f.assemble(v1.ConfigFile{}, one)
	dir := t.TempDir()
	borrower, err := oci.New(dir, f.blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { borrower.Close() })
	borrower.Borrow(f.dir)
	if _, err := f.Unpack(t.Context(), lent); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // waits until the layer is settled
		t.Fatal(err)
	}
	img, err := borrower.Unpack(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(img.Layers[0], f.dir) || !strings.HasPrefix(img.Layers[1], dir) {
		t.Errorf("layers are %v, want the first lent from %s and the second in %s", img.Layers, f.dir, dir)
	}
	for i, name := range []string{"one", "two"} {
		if _, err := os.Stat(filepath.Join(img.Layers[i], name)); err != nil {
			t.Error(err)
		}
	}
}

func TestNewSweeps(t *testing.T) {
	f := setup(t, oci.Limits{})
	digest := f.assemble(v1.ConfigFile{}, f.layer(tarOf(t, tar.Header{Name: "file", Uname: "x"}), gzipped))
	img, err := f.Unpack(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(f.dir, "tmp", "layer-torn", "bin")
	unsettled := filepath.Join(f.dir, "layers", "unsettled", "bin")
	mark := filepath.Join(f.dir, "settled", "no-such-layer")
	for _, d := range []string{torn, unsettled, mark} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	im, err := oci.New(f.dir, f.blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	for _, d := range []string{torn, unsettled, mark} {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("%s is still there", d)
		}
	}
	before, err := os.Stat(img.Layers[0])
	if err != nil {
		t.Fatalf("a settled layer is gone: %v", err)
	}
	again, err := im.Unpack(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(again.Layers[0]); err != nil || !os.SameFile(before, after) {
		t.Errorf("a settled layer was unpacked again: %v", err)
	}
}

// Pruning takes what nobody keeps or has lately asked for, and what it took can come back.
func TestPrune(t *testing.T) {
	f := setup(t, oci.Limits{})
	dir := t.TempDir()
	im, err := oci.New(dir, f.blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	unpack := func(digest string) string {
		t.Helper()
		img, err := im.Unpack(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		return img.Layers[0]
	}
	var digests, dirs []string
	for _, name := range []string{"kept", "old", "lately used"} {
		digest := f.assemble(v1.ConfigFile{}, f.layer(tarOf(t, tar.Header{Name: name, Uname: "x"}), gzipped))
		digests, dirs = append(digests, digest), append(dirs, unpack(digest))
	}
	im.Close() // all is on disk and marked
	marks, err := filepath.Glob(filepath.Join(dir, "settled", "*"))
	if err != nil || len(marks) != 3 {
		t.Fatal(marks, err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	for _, m := range marks {
		if err := os.Chtimes(m, hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
	unpack(digests[2])
	keep, err := im.Layers(t.Context(), digests[0])
	if err != nil || !slices.Equal(keep, dirs[:1]) {
		t.Errorf("Layers = %v, %v, want %v", keep, err, dirs[:1])
	}
	n, young, err := im.Prune(t.Context(), keep, hourAgo.Add(time.Minute))
	if err != nil || n != 1 || young != 1 {
		t.Errorf("pruned %d, %d too young, %v, want 1 and 1", n, young, err)
	}
	for i, want := range []bool{true, false, true} {
		if _, err := os.Stat(dirs[i]); (err == nil) != want {
			t.Errorf("layer %d: there = %v, want %v", i, err == nil, want)
		}
	}
	if _, err := os.Stat(filepath.Join(unpack(digests[1]), "old")); err != nil {
		t.Errorf("the pruned layer did not come back: %v", err)
	}
	im.Close()
}

func TestAssembleIsReproducible(t *testing.T) {
	files := []oci.File{
		{
			Path: "/app",
			Mode: 0o755,
			Size: 3,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("app")), nil },
		},
		{Path: "/etc/motd", Mode: 0o644, Data: []byte("knock knock")},
		{Path: "/data", Mode: os.ModeDir | os.ModeSticky | 0o777},
		{Path: "/bin", Link: "usr/bin"},
	}
	swapped := []oci.File{files[2], files[1], files[3], files[0]}
	var digests []string
	for _, fs := range [][]oci.File{files, swapped} {
		f := setup(t, oci.Limits{})
		l, err := f.AddLayer(t.Context(), fs)
		if err != nil {
			t.Fatal(err)
		}
		digest, manifest, err := f.Assemble(t.Context(), []oci.Layer{l},
			v1.ConfigFile{OS: "linux", Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if blob.FromBytes(manifest) != blob.Digest(digest) {
			t.Error("the manifest's bytes do not have its digest")
		}
		digests = append(digests, digest)

		img, err := f.Unpack(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(img.Layers[0], "app")); string(b) != "app" {
			t.Errorf("app = %q", b)
		}
		if to, _ := os.Readlink(filepath.Join(img.Layers[0], "bin")); to != "usr/bin" {
			t.Errorf("bin -> %q", to)
		}
		st, err := os.Stat(filepath.Join(img.Layers[0], "data"))
		if err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o777 || st.ModTime().Unix() != 0 {
			t.Errorf("data = %v, %v", st, err)
		}
		m, err := f.Inspect(t.Context(), digest)
		if err != nil || len(m.Layers) != 1 || m.Layers[0] != l {
			t.Errorf("Inspect = %+v, %v, want layer %+v", m, err, l)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("the order of the files changed the digest: %v", digests)
	}
}

func TestWriteLayerRefuses(t *testing.T) {
	for name, files := range map[string][]oci.File{
		"relative": {{Path: "app"}},
		"dots":     {{Path: "/a/../../b"}},
		"root":     {{Path: "/"}},
		"twice":    {{Path: "/a"}, {Path: "/a"}},
		"wrong size": {{
			Path: "/a",
			Size: 5,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil },
		}},
	} {
		if err := oci.WriteLayer(io.Discard, files); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"sub", "out/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"sub/file", "out/deep/file", "sub/left"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := oci.Tree(dir, "/app",
		func(rel string, dir bool) bool { return dir && rel == "out" || rel == "sub/left" })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, fmt.Sprintf("%s %s %d %s", f.Mode, f.Path, f.Size, f.Link))
	}
	want := "drwxr-xr-x /app 0 |-rwxrwxrwx /app/link 0 /etc/shadow|drwxr-xr-x /app/sub 0 |-rw------- /app/sub/file 4 "
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}

// A layer that grows into what is kept back of the disk is refused while it is unpacked, and leaves nothing.
func TestUnpackOnAFullDisk(t *testing.T) {
	f := setup(t, oci.Limits{})
	dir := t.TempDir()
	im, err := oci.New(dir, f.blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	var room int64 = 4 << 20
	im.Guard(func(n int64) error {
		if n > room {
			return fault.DiskFull(nil)
		}
		return nil
	})
	small := f.assemble(v1.ConfigFile{}, f.layer(tarOf(t, tar.Header{Name: "small", Uname: "x"}), gzipped))
	big := f.assemble(v1.ConfigFile{},
		f.layer(tarOf(t, tar.Header{Name: "first", Uname: "x"},
			tar.Header{Name: "big", Uname: strings.Repeat("0", 5<<20)}), gzipped))
	if _, err := im.Unpack(t.Context(), big); fault.From(err).Reason != fault.ReasonDiskFull {
		t.Errorf("a layer that there is no room for: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if _, err := im.Unpack(t.Context(), small); err != nil {
		t.Error(err)
	}
	room = 0 // what is there needs none
	if _, err := im.Unpack(t.Context(), small); err != nil {
		t.Errorf("an image that is unpacked already: %v", err)
	}
}
