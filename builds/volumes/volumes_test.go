package volumes_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"giggle/builds/volumes"
)

// layer makes a layer: "d/" is a directory, "d/f=text" a file, "l->target" a link, "!f" a whiteout, "d*" an opaque
// directory.
func layer(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		in := func(name string) string {
			p := filepath.Join(dir, name)
			must(os.MkdirAll(filepath.Dir(p), 0o755))
			return p
		}
		if name, text, ok := strings.Cut(e, "="); ok {
			must(os.WriteFile(in(name), []byte(text), 0o644))
		} else if name, target, ok := strings.Cut(e, "->"); ok {
			must(os.Symlink(target, in(name)))
		} else if name, ok := strings.CutPrefix(e, "!"); ok {
			must(unix.Mknod(in(name), unix.S_IFCHR, 0))
		} else if name, ok := strings.CutSuffix(e, "*"); ok {
			must(os.MkdirAll(in(name), 0o755))
			must(unix.Setxattr(in(name), "trusted.overlay.opaque", []byte("y"), 0))
		} else {
			must(os.MkdirAll(in(e), 0o755))
		}
	}
	return dir
}

// tree is what is in a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			rel += "/"
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			rel += "->" + target
		default:
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel += "=" + string(text)
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// An empty volume has what the image has at its path, as the container would see it.
func TestFill(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]string // bottom first
		at     string
		want   string
	}{
		"nothing there":             {[][]string{{"a=1"}}, "/opt/data", ""},
		"files":                     {[][]string{{"opt/data/seed=s", "opt/data/d/f=2"}}, "/opt/data", "d/ d/f=2 seed=s"},
		"of two layers":             {[][]string{{"v/a=1", "v/b=1"}, {"v/b=2", "v/c=2"}}, "/v", "a=1 b=2 c=2"},
		"below":                     {[][]string{{"v/d/a=1"}, {"v/d/b=2"}}, "/v/", "d/ d/a=1 d/b=2"},
		"a whiteout":                {[][]string{{"v/a=1", "v/b=1"}, {"!v/a"}}, "/v", "b=1"},
		"a whiteout of it":          {[][]string{{"v/a=1"}, {"!v"}}, "/v", ""},
		"a whiteout above it":       {[][]string{{"o/v/a=1"}, {"!o"}}, "/o/v", ""},
		"an opaque directory":       {[][]string{{"v/a=1"}, {"v*", "v/b=2"}}, "/v", "b=2"},
		"one above it":              {[][]string{{"o/v/a=1"}, {"o*", "o/v/b=2"}}, "/o/v", "b=2"},
		"one below it":              {[][]string{{"v/d/a=1"}, {"v/d*", "v/d/b=2"}}, "/v", "d/ d/b=2"},
		"a file in place of one":    {[][]string{{"v/a/b=1"}, {"v/a=2"}}, "/v", "a=2"},
		"a directory for a file":    {[][]string{{"v/a=1"}, {"v/a/b=2"}}, "/v", "a/ a/b=2"},
		"a file":                    {[][]string{{"v=1"}}, "/v", ""},
		"links stay links":          {[][]string{{"v/l->/etc/passwd", "v/up->../../x"}}, "/v", "l->/etc/passwd up->../../x"},
		"a link is not followed":    {[][]string{{"v->/etc"}}, "/v", ""},
		"nor one on the way":        {[][]string{{"o->/etc", "x=1"}}, "/o/ssl", ""},
		"an empty directory":        {[][]string{{"v/d"}}, "/v", "d/"},
		"what comes back is anew":   {[][]string{{"v/a=1"}, {"!v"}, {"v/b=3"}}, "/v", "b=3"},
		"a device is not copied":    {[][]string{{"v/a=1", "!v/null"}}, "/v", "a=1"},
		"the path may be unclean":   {[][]string{{"o/v/a=1"}}, "/o/../o//v", "a=1"},
		"an image without any file": {nil, "/v", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []string
			for _, l := range c.layers {
				layers = append(layers, layer(t, l...))
			}
			dir := filepath.Join(t.TempDir(), "volumes")
			source, err := volumes.Open(t.Context(), dir, "data", layers, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, source); got != c.want {
				t.Errorf("it has %q, want %q", got, c.want)
			}
		})
	}
}

// A volume is filled while it is empty and never again; owners and permissions are the image's.
func TestFillOnce(t *testing.T) {
	l := layer(t, "v/f=1")
	if err := os.Chown(filepath.Join(l, "v", "f"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(l, "v"), 0o750); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "volumes")
	open := func(layers ...string) string {
		t.Helper()
		source, err := volumes.Open(t.Context(), dir, "data", layers, "/v")
		if err != nil {
			t.Fatal(err)
		}
		return source
	}
	source := open() // an image that has nothing there
	if st, err := os.Stat(source); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("an empty one is %v, %v", st, err)
	}
	open(l)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(source, "f"), &st); err != nil || st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("the file is %d's, %v", st.Uid, err)
	}
	if st, err := os.Stat(source); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("a filled one is %v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(source, "f"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	open(l, layer(t, "v/g=3"))
	if got := tree(t, source); got != "f=2" {
		t.Errorf("it has %q", got)
	}
	if names, err := volumes.List(dir); err != nil || len(names) != 1 || names[0] != "data" {
		t.Errorf("the volumes are %q, %v", names, err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/etc", "a\x00b", ".hidden"} {
		if _, err := volumes.Open(t.Context(), dir, bad, nil, "/v"); err == nil {
			t.Errorf("%q is a volume", bad)
		}
	}
}
