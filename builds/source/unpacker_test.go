package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/builds/source"
	"giggle/fault"
)

// This program is the one that unpacks, too, and one that fails otherwise.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == source.Command {
		if len(os.Environ()) > 0 {
			panic("it has an environment")
		}
		os.Exit(source.Serve(os.Args[2:], os.Stdout))
	}
	os.Exit(m.Run())
}

func unpacker(t testing.TB) source.Unpacker {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return source.Unpacker{Binary: binary}
}

// both calls fn with what unpacks in this process and with what has one of its own for it, with the archive in a file
// and without one.
func both(
	t *testing.T,
	archive []byte,
	fn func(way string, extract func(ctx context.Context, dir string, limits source.Limits) error),
) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for way, c := range map[string]struct {
		unpacker source.Unpacker
		archive  io.ReadSeeker
	}{
		"in this process":            {source.Unpacker{}, bytes.NewReader(archive)},
		"in another":                 {unpacker(t), f},
		"in another, without a file": {unpacker(t), bytes.NewReader(archive)},
	} {
		fn(way, func(ctx context.Context, dir string, limits source.Limits) error {
			return c.unpacker.Extract(ctx, c.archive, int64(len(archive)), dir, limits)
		})
	}
}

// Whoever unpacks, the result and what is said of a bad archive are the same.
func TestUnpackerIsExtract(t *testing.T) {
	for name, c := range map[string]struct {
		archive []byte
		limits  source.Limits
	}{
		"good tar": {tarball(t, true, entry{name: "a/b", body: "c"},
			entry{name: "l", target: "a"}), source.DefaultLimits},
		"good zip": {zipped(t, entry{name: "a/b", body: "c"}, entry{name: "l", target: "a"}), source.DefaultLimits},
		"outward":  {tarball(t, true, entry{name: "l", target: "/etc/passwd"}), source.DefaultLimits},
		"absolute": {tarball(t, true, entry{name: "/x", body: "y"}), source.DefaultLimits},
		"parent":   {zipped(t, entry{name: "../x", body: "y"}), source.DefaultLimits},
		"too large": {tarball(t, true,
			entry{name: "a", body: strings.Repeat("x", 2000)}), source.Limits{Bytes: 1000, Entries: 4}},
		"just enough": {tarball(t, true,
			entry{name: "a", body: strings.Repeat("x", 2000)}), source.Limits{Bytes: 2000, Entries: 4}},
		"too many": {zipped(t, entry{name: "a"}, entry{name: "b"}), source.Limits{Bytes: 1000, Entries: 1}},
		"rubbish":  {[]byte("hello, world"), source.DefaultLimits},
		"empty":    {nil, source.DefaultLimits},
	} {
		var first string
		both(t, c.archive, func(way string, extract func(context.Context, string, source.Limits) error) {
			dir := filepath.Join(t.TempDir(), "in")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			if err := extract(t.Context(), dir, c.limits); err != nil {
				f := fault.From(err)
				got.WriteString(f.Code.String() + " " + f.Message)
			}
			_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				rel, _ := filepath.Rel(dir, path)
				info, _ := d.Info()
				body, _ := os.ReadFile(path)
				to, _ := os.Readlink(path)
				got.WriteString("\n" + rel + " " + info.Mode().String() + " " + to)
				if d.Type().IsRegular() {
					got.WriteString(" " + string(body))
				}
				return err
			})
			if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 1 {
				t.Errorf("%s %s: it left %v", name, way, left)
			}
			if first == "" {
				first = got.String()
			}
			if got.String() != first {
				t.Errorf("%s %s: %s\nand else %s", name, way, &got, first)
			}
		})
	}
}

// endless is a small archive of a file of 4 GiB.
func endless(t *testing.T) []byte {
	t.Helper()
	var head, part bytes.Buffer
	err := tar.NewWriter(&head).WriteHeader(&tar.Header{
		Name:     "zeros",
		Mode:     0o644,
		Size:     source.DefaultLimits.Bytes,
		Typeflag: tar.TypeReg,
	})
	gz := gzip.NewWriter(&part)
	_, err2 := gz.Write(head.Bytes())
	err = errors.Join(err, err2, gz.Close())
	first := bytes.Clone(part.Bytes())
	part.Reset()
	gz.Reset(&part)
	_, err2 = gz.Write(make([]byte, 1<<20))
	if err := errors.Join(err, err2, gz.Close()); err != nil {
		t.Fatal(err)
	}
	// a gzip file may have many members
	return append(first, bytes.Repeat(part.Bytes(), int(source.DefaultLimits.Bytes>>20))...)
}

// An archive that takes too much of anything ends the process that unpacks it, and nothing else.
func TestUnpackerHasLimits(t *testing.T) {
	many := make([]entry, 120_000)
	for i := range many {
		many[i].name = strings.Repeat("d/", 150) + string(rune('a'+i%26))
	}
	directory := zipped(t, many...)
	zeros := endless(t)
	for name, c := range map[string]struct {
		archive []byte
		change  func(*source.Unpacker)
	}{
		"memory": {directory, func(u *source.Unpacker) { u.Memory = 80 << 20 }},
		"time":   {zeros, func(u *source.Unpacker) { u.CPU = time.Second }},
	} {
		u := unpacker(t)
		c.change(&u)
		err := u.Extract(t.Context(), bytes.NewReader(c.archive), int64(len(c.archive)), t.TempDir(),
			source.DefaultLimits)
		if !fault.Is(err, fault.InvalidArgument) ||
			!strings.Contains(fault.From(err).Message, "more memory or time than allowed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// With the same limits something smaller is no trouble.
	u := unpacker(t)
	u.Memory, u.CPU = 80<<20, 10*time.Second
	small := tarball(t, true, entry{name: "a", body: strings.Repeat("x", 1<<20)})
	if err := u.Extract(t.Context(), bytes.NewReader(small), int64(len(small)), t.TempDir(),
		source.DefaultLimits); err != nil {
		t.Errorf("something small: %v", err)
	}
}

func TestUnpackerEnds(t *testing.T) {
	zeros := endless(t)
	ctx, stop := context.WithCancelCause(t.Context())
	dir := t.TempDir()
	go func() {
		for _, err := os.Stat(filepath.Join(dir, "zeros")); err != nil &&
			ctx.Err() == nil; _, err = os.Stat(filepath.Join(dir, "zeros")) {
			time.Sleep(time.Millisecond) // between two looks at the condition
		}
		stop(errors.New("enough"))
	}()
	if err := unpacker(t).Extract(ctx, bytes.NewReader(zeros), int64(len(zeros)), dir,
		source.DefaultLimits); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	// What is no unpacker is the platform's mistake, not the archive's.
	small := tarball(t, true, entry{name: "a", body: "b"})
	for _, binary := range []string{"/bin/false", "/bin/true", "/nonexistent"} {
		err := source.Unpacker{Binary: binary}.Extract(t.Context(), bytes.NewReader(small), int64(len(small)),
			t.TempDir(), source.DefaultLimits)
		if !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", binary, err)
		}
	}
}

func BenchmarkUnpacker(b *testing.B) {
	archive := tarball(b, true, entry{name: "main.go", body: "package main"})
	u := unpacker(b)
	for b.Loop() {
		if err := u.Extract(b.Context(), bytes.NewReader(archive), int64(len(archive)), b.TempDir(),
			source.DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}
