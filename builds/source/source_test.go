package source_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"giggle/builds/source"
	"giggle/fault"
)

// entry is a file of a test archive; a link when Target is set.
type entry struct {
	name, body, target string
	mode               fs.FileMode
}

func tarball(t testing.TB, compress bool, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(&b)
	if compress {
		w = tar.NewWriter(gz)
	}
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), Size: int64(len(e.body)), Typeflag: tar.TypeReg}
		switch {
		case e.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.target
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.mode&fs.ModeDevice != 0:
			h.Typeflag = tar.TypeBlock
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	if compress {
		_ = gz.Close()
	}
	return b.Bytes()
}

func zipped(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		body := e.body
		if e.target != "" {
			h.SetMode(fs.ModeSymlink | 0o777)
			body = e.target
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	return b.Bytes()
}

func TestExtract(t *testing.T) {
	entries := []entry{
		{name: "main.go", body: "package main", mode: 0o600}, {name: "bin/run.sh", body: "#!/bin/sh", mode: 0o4755},
		{name: "deep/er/x", body: "y", mode: 0o644}, {name: "link", target: "deep/er/x"},
	}
	for name, archive := range map[string][]byte{"tar": tarball(t, false, entries...),
		"tgz": tarball(t, true, entries...), "zip": zipped(t, entries...)} {
		dir := t.TempDir()
		if err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir,
			source.DefaultLimits); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for file, want := range map[string]struct {
			body string
			mode fs.FileMode
		}{"main.go": {"package main", 0o644}, "bin/run.sh": {"#!/bin/sh", 0o755}, "deep/er/x": {"y", 0o644},
			"link": {"y", 0o644}} {
			body, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || string(body) != want.body {
				t.Errorf("%s: %s = %q, %v", name, file, body, err)
			}
			if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode() != want.mode {
				t.Errorf("%s: mode of %s = %v, want %v", name, file, st.Mode(), want.mode)
			}
		}
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	for name, entries := range map[string][]entry{
		"parent":        {{name: "../x", body: "y"}},
		"deep parent":   {{name: "a/../../x", body: "y"}},
		"absolute":      {{name: "/etc/x", body: "y"}},
		"link out":      {{name: "l", target: "../../etc/passwd"}},
		"absolute link": {{name: "l", target: "/etc/passwd"}},
		"through link":  {{name: "l", target: "."}, {name: "l/../../x", body: "y"}},
		"over a link":   {{name: "l", target: "x"}, {name: "l", body: "y"}},
		"twice":         {{name: "a", body: "y"}, {name: "a", body: "z"}},
		"file as dir":   {{name: "a", body: "y"}, {name: "a/b", body: "z"}},
		"too large":     {{name: "a", body: strings.Repeat("x", 2000)}},
		"too many":      {{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}},
	} {
		for kind, archive := range map[string][]byte{"tar": tarball(t, true, entries...),
			"zip": zipped(t, entries...)} {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir,
				source.Limits{Bytes: 1000, Entries: 4})
			if !fault.Is(err, fault.InvalidArgument) {
				t.Errorf("%s in %s = %v, want INVALID_ARGUMENT", name, kind, err)
			}
			if got, _ := os.ReadDir(outer); len(got) != 1 {
				t.Errorf("%s in %s wrote outside: %v", name, kind, got)
			}
			if err != nil && strings.Contains(fault.From(err).Message, outer) {
				t.Errorf("%s in %s: the message has a path of this machine: %v", name, kind, err)
			}
		}
	}
	device := tarball(t, true, entry{name: "sda", mode: fs.ModeDevice})
	for name, archive := range map[string][]byte{"device": device, "empty": {}, "rubbish": []byte("hello, world"),
		"half zip": zipped(t, entry{name: "a", body: "b"})[:20]} {
		err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), t.TempDir(),
			source.DefaultLimits)
		if !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s = %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

// Links to anywhere may be kept. Nothing is written through them.
func TestAnyLinks(t *testing.T) {
	for name, target := range map[string]string{"absolute": "OUTER/out", "outward": "../out",
		"far": "../../../../../../etc/passwd", "inside": "x"} {
		for kind, pack := range map[string]func(...entry) []byte{
			"tar": func(e ...entry) []byte { return tarball(t, true, e...) },
			"zip": func(e ...entry) []byte { return zipped(t, e...) },
		} {
			outer := t.TempDir()
			dir, out, to := filepath.Join(outer, "in"), filepath.Join(outer, "out"), strings.Replace(target, "OUTER",
				outer, 1)
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(out, 0o755)); err != nil {
				t.Fatal(err)
			}
			limits := source.Limits{Bytes: 1000, Entries: 4, AnyLinks: true}
			archive := pack(entry{name: "l", target: to})
			if err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir,
				limits); err != nil {
				t.Errorf("%s in %s: %v", name, kind, err)
			}
			if got, err := os.Readlink(filepath.Join(dir, "l")); err != nil || got != to {
				t.Errorf("%s in %s leads to %q, %v", name, kind, got, err)
			}
			for _, through := range []entry{{
				name: "m/x",
				body: "y",
			}, {name: "m", body: "y"}, {name: "m/l", target: "z"}} {
				archive := pack(entry{name: "m", target: to}, through)
				err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir, limits)
				if !fault.Is(err, fault.InvalidArgument) {
					t.Errorf("%s in %s, then %+v: %v", name, kind, through, err)
				}
				if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
					t.Fatal(err)
				}
			}
			if got, _ := os.ReadDir(out); len(got) != 0 {
				t.Errorf("%s in %s wrote outside: %v", name, kind, got)
			}
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(zipped(f, entry{name: "a/b", body: "c"}))
	f.Add(tarball(f, true, entry{name: "a", target: "b"}))
	f.Add(tarball(f, false, entry{name: "../a", body: "b"}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir,
			source.Limits{Bytes: 1 << 20, Entries: 100})
		if got, _ := os.ReadDir(outer); len(got) != 1 {
			t.Errorf("wrote outside: %v", got)
		}
	})
}

// An archive's directory may name far more files than the archive has bytes to say so, once it is compressed in flight:
// it is counted before it is kept.
func TestZipDirectoryIsCounted(t *testing.T) {
	const entries = 1_000_000
	head := append([]byte("PK\x03\x04"), make([]byte, 26)...)
	head[26] = 1 // the length of the name
	head = append(head, 'a')
	entry := append([]byte("PK\x01\x02"), make([]byte, 42)...)
	entry[28] = 1
	entry = append(entry, 'a')
	directory := bytes.Repeat(entry, entries)
	end := append([]byte("PK\x05\x06"), make([]byte, 18)...)
	count := uint16(entries & 0xffff)
	binary.LittleEndian.PutUint16(end[8:], count)
	binary.LittleEndian.PutUint16(end[10:], count)
	binary.LittleEndian.PutUint32(end[12:], uint32(len(directory)))
	binary.LittleEndian.PutUint32(end[16:], uint32(len(head)))
	archive := slices.Concat(head, directory, end)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), t.TempDir(),
		source.Limits{Bytes: 1 << 30, Entries: 1000})
	runtime.ReadMemStats(&after)
	if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), "too many files") {
		t.Errorf("unpacked: %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 10<<20 {
		t.Errorf("to refuse it took %d bytes", took)
	}
}
