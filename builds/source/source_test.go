package source_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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
		}{"main.go": {"package main", 0o600}, "bin/run.sh": {"#!/bin/sh", 0o755}, "deep/er/x": {"y", 0o644},
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
		"parent":                {{name: "../x", body: "y"}},
		"deep parent":           {{name: "a/../../x", body: "y"}},
		"absolute parent":       {{name: "/../x", body: "y"}},
		"through link":          {{name: "l", target: "."}, {name: "l/../../x", body: "y"}},
		"file as dir":           {{name: "a", body: "y"}, {name: "a/b", body: "z"}},
		"over a full directory": {{name: "a/b", body: "y"}, {name: "a", body: "z"}},
		"too large":             {{name: "a", body: strings.Repeat("x", 2000)}},
		"too many":              {{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}},
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

// Links to anywhere are kept. Nothing is written, linked to or changed through them.
func TestLinksAreNotFollowed(t *testing.T) {
	for name, target := range map[string]string{"absolute": "OUTER/out", "outward": "../out", "file": "../out/secret",
		"far": "../../../../../../etc/passwd", "inside": "x", "itself": "l", "long": strings.Repeat("a/", 2000) + "x"} {
		for kind, pack := range map[string]func(...entry) []byte{
			"tar": func(e ...entry) []byte { return tarball(t, true, e...) },
			"zip": func(e ...entry) []byte { return zipped(t, e...) },
		} {
			outer := t.TempDir()
			dir, out, to := filepath.Join(outer, "in"), filepath.Join(outer, "out"), strings.Replace(target, "OUTER",
				outer, 1)
			secret := filepath.Join(out, "secret")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(out, 0o700),
				os.WriteFile(secret, []byte("mine"), 0o600)); err != nil {
				t.Fatal(err)
			}
			limits := source.Limits{Bytes: 1000, Entries: 4}
			extract := func(e ...entry) error {
				archive := pack(e...)
				return source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir, limits)
			}
			if err := extract(entry{name: "l", target: to}); err != nil {
				t.Errorf("%s in %s: %v", name, kind, err)
			}
			if got, err := os.Readlink(filepath.Join(dir, "l")); err != nil || got != to {
				t.Errorf("%s in %s leads to %q, %v", name, kind, got, err)
			}
			for _, through := range []entry{{name: "m/x", body: "y", mode: 0o644}, {name: "m/l", target: "z"},
				{name: "m/d/"}, {name: "m/secret", body: "y"}} {
				if err := extract(entry{name: "m", target: to}, through); name != "inside" && name != "long" &&
					!fault.Is(err, fault.InvalidArgument) {
					t.Errorf("%s in %s, then %+v: %v", name, kind, through, err)
				}
				if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
					t.Fatal(err)
				}
			}
			// In the place of a link, the last entry is what is there.
			for _, over := range []entry{{name: "m", body: "y", mode: 0o644}, {name: "m/"}, {name: "m", target: "z"}} {
				if err := extract(entry{name: "m", target: to}, over); err != nil {
					t.Errorf("%s in %s, then %+v: %v", name, kind, over, err)
				}
				info, err := os.Lstat(filepath.Join(dir, "m"))
				if err != nil || info.IsDir() != (over.name == "m/") || info.Mode().IsRegular() != (over.body != "") {
					t.Errorf("%s in %s, then %+v: %v, %v", name, kind, over, info.Mode(), err)
				}
				if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
					t.Fatal(err)
				}
			}
			if kind == "tar" {
				for _, h := range []*tar.Header{{Name: "h", Linkname: "l/secret"}, {Name: "h", Linkname: "../out/secret"},
					{Name: "h", Linkname: "l/../out/secret"}, {Name: "l/h", Linkname: "x"}} {
					h.Typeflag = tar.TypeLink
					archive := members(t, member{h: &tar.Header{Name: "x", Typeflag: tar.TypeReg}}, member{h: h})
					_ = source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir, limits)
					info, err := os.Stat(filepath.Join(dir, "h"))
					if mine, _ := os.Stat(secret); err == nil && os.SameFile(info, mine) {
						t.Errorf("%s: a hard link %+v leads out", name, h)
					}
				}
			}
			if got, _ := os.ReadDir(out); len(got) != 1 {
				t.Errorf("%s in %s wrote outside: %v", name, kind, got)
			}
			st, err := os.Stat(secret)
			if body, _ := os.ReadFile(secret); err != nil || string(body) != "mine" || st.Mode() != 0o600 {
				t.Errorf("%s in %s changed a file outside: %q, %v", name, kind, body, err)
			}
			if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("%s in %s changed a directory outside: %v, %v", name, kind, st.Mode(), err)
			}
		}
	}
}

// member is one of a tar archive, as its header says.
type member struct {
	h    *tar.Header
	body string
}

func members(t testing.TB, list ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range list {
		m.h.Size = int64(len(m.body))
		if m.h.Mode == 0 && m.h.Typeflag != tar.TypeXGlobalHeader {
			m.h.Mode = 0o644
		}
		if err := w.WriteHeader(m.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Members of all kinds, as GNU tar unpacks them: its manual, and tar(5) of libarchive for the formats.
func TestMembers(t *testing.T) {
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	file := func(name, body string) member {
		return member{&tar.Header{Name: name, Typeflag: tar.TypeReg, ModTime: at}, body}
	}
	link := func(name, to string) member {
		return member{h: &tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}}
	}
	long := strings.Repeat("d/", 100) + strings.Repeat("n", 200)
	typed := func(flag byte, name, body string) []byte {
		archive := members(t, file(name, body))
		return retyped(archive, flag)
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string // what lies there, in lines "NAME BODY" of files, "NAME -> TARGET" of links, "NAME/" of directories
		refused string // or part of the message
	}{
		"hard link":           {members(t, file("a", "x"), link("b", "a")), "a x\nb x", ""},
		"hard link, dotted":   {members(t, file("./a", "x"), link("./d/b", "./a")), "a x\nd/\nd/b x", ""},
		"hard link, absolute": {members(t, file("/a", "x"), link("/b", "/a")), "a x\nb x", ""},
		"hard link to itself": {members(t, file("a", "x"), link("a", "./a")), "a x", ""},
		"hard link twice":     {members(t, file("a", "x"), link("b", "a"), link("b", "a")), "a x\nb x", ""},
		"hard link to a link": {members(t, member{h: &tar.Header{Name: "l", Linkname: "/x", Typeflag: tar.TypeSymlink}},
			link("b", "l")), "b -> /x\nl -> /x", ""},
		"hard link to nothing":          {members(t, link("b", "a")), "", "which did not come before it"},
		"hard link to a directory":      {members(t, file("d/a", "x"), link("b", "d")), "", "to a directory"},
		"hard link out":                 {members(t, link("b", "../a")), "", "leads out"},
		"hard link, then its file anew": {members(t, file("a", "x"), link("b", "a"), file("a", "y")), "a y\nb x", ""},
		"hard links over the limit":     {members(t, file("a", strings.Repeat("x", 600)), link("b", "a")), "", "larger than allowed"},
		"backslashes":                   {members(t, file(`a\b.txt`, "x"), file(`..\c`, "y")), "..\\c y\na\\b.txt x", ""},
		"absolute name":                 {members(t, file("/etc/x", "y")), "etc/\netc/x y", ""},
		"long name":                     {members(t, file(long, "x")), dirsOf(long) + long + " x", ""},
		"long name, GNU": {members(t, member{&tar.Header{Name: long, Format: tar.FormatGNU, Typeflag: tar.TypeReg}, "x"}),
			dirsOf(long) + long + " x", ""},
		"long link": {members(t, member{h: &tar.Header{Name: "l", Linkname: long, Typeflag: tar.TypeSymlink}}),
			"l -> " + long, ""},
		"name too long":   {members(t, file(strings.Repeat("n", 300), "x")), "", "name too long"},
		"Latin-1":         {members(t, file("caf\xe9", "x")), "caf\xe9 x", ""},
		"twice":           {members(t, file("a", "x"), file("a", "y")), "a y", ""},
		"file over link":  {members(t, member{h: &tar.Header{Name: "a", Linkname: "b", Typeflag: tar.TypeSymlink}}, file("b", "x"), file("a", "y")), "a y\nb x", ""},
		"link over file":  {members(t, file("a", "x"), member{h: &tar.Header{Name: "a", Linkname: "b", Typeflag: tar.TypeSymlink}}), "a -> b", ""},
		"through a link":  {members(t, file("d/x", "x"), member{h: &tar.Header{Name: "l", Linkname: "d", Typeflag: tar.TypeSymlink}}, file("l/y", "y")), "d/\nd/x x\nd/y y\nl -> d", ""},
		"global header":   {members(t, member{h: &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}}, file("a", "x")), "a x", ""},
		"pipe":            {members(t, file("a", "x"), member{h: &tar.Header{Name: "p", Typeflag: tar.TypeFifo}}), "a x", ""},
		"device":          {members(t, member{h: &tar.Header{Name: "p", Typeflag: tar.TypeChar}}), "", "neither a file"},
		"block device":    {members(t, member{h: &tar.Header{Name: "p", Typeflag: tar.TypeBlock}}), "", "neither a file"},
		"contiguous file": {typed(tar.TypeCont, "a", "x"), "a x", ""},
		"volume label":    {append(typed('V', "label", "")[:512], members(t, file("a", "x"))...), "a x", ""},
		"part of a file":  {typed('M', "a", "x"), "", "neither a file"},
		"sparse":          {sparse(t), "s \x00\x00\x00\x00x", ""},
	} {
		dir := t.TempDir()
		err := source.Extract(t.Context(), bytes.NewReader(c.archive), int64(len(c.archive)), dir,
			source.Limits{Bytes: 1000, Entries: 10})
		if c.refused != "" {
			if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, want %q", name, err, c.refused)
			}
			continue
		}
		if got := listing(t, dir); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

// retyped gives the first member of an archive another type.
func retyped(archive []byte, flag byte) []byte {
	header := archive[:512]
	header[156] = flag
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return archive
}

// sparse is a member of GNU tar's old sparse format: a hole of 4 bytes and a byte of data.
func sparse(t testing.TB) []byte {
	archive := members(t, member{&tar.Header{Name: "s", Format: tar.FormatGNU, Typeflag: tar.TypeReg}, "x"})
	copy(archive[386:], fmt.Sprintf("%011o\x00%011o\x00", 4, 1)) // where the data is in the file, and how long
	copy(archive[483:], fmt.Sprintf("%011o\x00", 5))             // the length of the file
	return retyped(archive, tar.TypeGNUSparse)
}

// dirsOf is the lines of the directories of a name.
func dirsOf(name string) string {
	var lines strings.Builder
	for i, r := range name {
		if r == '/' {
			lines.WriteString(name[:i+1] + "\n")
		}
	}
	return lines.String()
}

// listing is what a directory holds, a line for each.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch to, linkErr := os.Readlink(path); {
		case linkErr == nil:
			lines = append(lines, name+" -> "+to)
		case d.IsDir():
			lines = append(lines, name+"/")
		default:
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			lines = append(lines, name+" "+string(body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// Permissions and times are those of the archive: make goes by the times, and COPY keeps the permissions. The setuid
// bits are not kept, and attributes of MS-DOS say nothing of permissions.
func TestModesAndTimes(t *testing.T) {
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	fromTar := members(t,
		member{h: &tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o550, ModTime: at}},
		member{&tar.Header{Name: "d/private", Typeflag: tar.TypeReg, Mode: 0o600, ModTime: at}, "x"},
		member{&tar.Header{Name: "d/run", Typeflag: tar.TypeReg, Mode: 0o6711, ModTime: at}, "x"},
		member{&tar.Header{Name: "d/wide", Typeflag: tar.TypeReg, Mode: 0o666, ModTime: at}, "x"})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, mode := range map[string]fs.FileMode{"d/": fs.ModeDir | 0o550, "d/private": 0o600,
		"d/run": fs.ModeSetuid | 0o711, "d/wide": 0o666} {
		h := &zip.FileHeader{Name: name, Modified: at}
		h.SetMode(mode)
		if _, err := z.CreateHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := z.CreateHeader(&zip.FileHeader{Name: "dos", Modified: at}); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for kind, archive := range map[string][]byte{"tar": fromTar, "zip": b.Bytes()} {
		dir := t.TempDir()
		if err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), dir,
			source.DefaultLimits); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{"d": fs.ModeDir | 0o550, "d/private": 0o600, "d/run": 0o711,
			"d/wide": 0o666, "dos": 0o644} {
			if kind == "tar" && name == "dos" {
				continue
			}
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode() != want || !st.ModTime().Equal(at) {
				t.Errorf("%s in %s: %v of %v, %v; want %v of %v", name, kind, st.Mode(), st.ModTime(), err, want, at)
			}
		}
	}
}

// What GNU tar itself writes is unpacked as GNU tar itself unpacks it.
func TestAgainstTar(t *testing.T) {
	from := t.TempDir()
	at := func(name string) string { return filepath.Join(from, name) }
	hole, err := os.Create(at("hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(hole.Truncate(1<<20), hole.Close(), os.WriteFile(at("a"), []byte("x"), 0o640),
		os.Link(at("a"), at("z")), os.Symlink("/usr/bin/python3", at("python3")), os.Symlink("..", at("up")),
		os.Mkdir(at("dir"), 0o750), os.WriteFile(at(`dir/b\c`), []byte("y"), 0o600),
		os.WriteFile(at("dir/"+strings.Repeat("n", 200)), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "oldgnu", "pax", "posix"} {
		archive, err := exec.Command("tar", "-C", from, "--format="+format, "--sparse", "-c", ".").Output()
		if err != nil {
			t.Fatalf("tar --format=%s: %v", format, err)
		}
		mine, theirs := t.TempDir(), t.TempDir()
		if err := source.Extract(t.Context(), bytes.NewReader(archive), int64(len(archive)), mine,
			source.DefaultLimits); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		c := exec.Command("tar", "-C", theirs, "-x")
		c.Stdin = bytes.NewReader(archive)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("tar -x: %v: %s", err, out)
		}
		if got, want := listing(t, mine), listing(t, theirs); got != want {
			t.Errorf("%s: %.300q, want %.300q", format, got, want)
		}
		for _, name := range []string{"a", "dir", `dir/b\c`} {
			got, err := os.Stat(filepath.Join(mine, name))
			want, err2 := os.Stat(filepath.Join(theirs, name))
			if err := errors.Join(err, err2); err != nil || got.Mode() != want.Mode() ||
				got.ModTime().Unix() != want.ModTime().Unix() {
				t.Errorf("%s: %s is %v of %v, want %v of %v (%v)", format, name, got.Mode(), got.ModTime(), want.Mode(),
					want.ModTime(), err)
			}
		}
	}
}

// A zip's own: names as they are, links, passwords.
func TestZipMembers(t *testing.T) {
	locked := zipped(t, entry{name: "a", body: "x"})
	locked[6] |= 1 // in the file's header
	directory := bytes.Index(locked, []byte("PK\x01\x02"))
	locked[directory+8] |= 1
	for name, c := range map[string]struct {
		archive []byte
		want    string
		refused string
	}{
		"backslash":  {zipped(t, entry{name: `a\b`, body: "x", mode: 0o644}), "a\\b x", ""},
		"twice":      {zipped(t, entry{name: "a", body: "x"}, entry{name: "a", body: "y"}), "a y", ""},
		"absolute":   {zipped(t, entry{name: "/a", body: "x"}), "a x", ""},
		"link":       {zipped(t, entry{name: "l", target: "/usr/bin/python3"}), "l -> /usr/bin/python3", ""},
		"pipe":       {zipped(t, entry{name: "a", body: "x"}, entry{name: "p", mode: fs.ModeNamedPipe}), "a x", ""},
		"device":     {zipped(t, entry{name: "p", mode: fs.ModeDevice}), "", "neither a file"},
		"directory":  {zipped(t, entry{name: "d/", mode: fs.ModeDir | 0o755}), "d/", ""},
		"parent":     {zipped(t, entry{name: "d/../../x"}), "", "leads out"},
		"encrypted":  {locked, "", "needs a password"},
		"dot":        {zipped(t, entry{name: "./a", body: "x"}), "a x", ""},
		"dir, again": {zipped(t, entry{name: "d/a", body: "x"}, entry{name: "d/", mode: fs.ModeDir | 0o700}), "d/\nd/a x", ""},
	} {
		dir := t.TempDir()
		err := source.Extract(t.Context(), bytes.NewReader(c.archive), int64(len(c.archive)), dir, source.DefaultLimits)
		if c.refused != "" {
			if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, want %q", name, err, c.refused)
			}
			continue
		}
		if got := listing(t, dir); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
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
