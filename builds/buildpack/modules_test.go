package buildpack_test

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"
)

// publish writes a module as a file-based proxy has it (go.dev/ref/mod#goproxy-protocol), and returns the lines for
// go.sum.
func publish(t *testing.T, dir, path, version string, src files) string {
	t.Helper()
	at := filepath.Join(dir, path, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(at, version+".zip")
	w, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(w)
	for name, text := range src {
		f, err := z.Create(path + "@" + version + "/" + name)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, text := range map[string]string{"list": version + "\n",
		version + ".info": `{"Version":"` + version + `"}`, version + ".mod": src["go.mod"]} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := dirhash.HashZip(archive, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := dirhash.Hash1([]string{"go.mod"},
		func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(src["go.mod"])), nil })
	if err != nil {
		t.Fatal(err)
	}
	return path + " " + version + " " + whole + "\n" + path + " " + version + "/go.mod " + mod + "\n"
}

// A build fetches its modules through the platform's proxy, and needs the upstream no more after that.
func TestModule(t *testing.T) {
	upstream := t.TempDir()
	sum := publish(t, upstream, "m.test/greet", "v1.2.3",
		files{"go.mod": "module m.test/greet\n\ngo 1.26\n", "greet.go": "package greet\n\nconst Hello = \"from afar\"\n"})
	src := files{"go.mod": module + "\nrequire m.test/greet v1.2.3\n", "go.sum": sum, "main.go": server("greet.Hello",
		`"m.test/greet"`)}
	f := setup(t, "file://"+upstream)
	digest, log := f.mustBuild(src, nil)
	if got := f.answer(digest); got != "from afar" {
		t.Errorf("answers %q", got)
	}
	if !strings.Contains(log, "downloading m.test/greet v1.2.3") ||
		!strings.Contains(log, "checksum database can't be reached") {
		t.Error("the log does not tell of the module, or of the checksum database that is not there")
	}
	if err := os.RemoveAll(upstream); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "build/cache/p1/mod")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(f.dir, "build/cache/p1/mod"), 0o755); err != nil {
		t.Fatal(err)
	}
	if again, _ := f.mustBuild(src, nil); again != digest {
		t.Errorf("without the upstream: %s, before %s", again, digest)
	}
}

// A module that is not what go.sum says is refused.
func TestModuleForged(t *testing.T) {
	upstream := t.TempDir()
	sum := publish(t, upstream, "m.test/greet", "v1.2.3",
		files{"go.mod": "module m.test/greet\n", "greet.go": "package greet\n\nconst Hello = 1\n"})
	publish(t, upstream, "m.test/greet", "v1.2.3",
		files{"go.mod": "module m.test/greet\n", "greet.go": "package greet\n\nconst Hello = 2\n"})
	f := setup(t, "file://"+upstream)
	_, _, err := f.build(files{"go.mod": module +
		"\nrequire m.test/greet v1.2.3\n", "go.sum": sum, "main.go": server("greet.Hello", `"m.test/greet"`)}, nil)
	if err == nil || !strings.Contains(err.Error(), "checksum mismatch") {
		t.Errorf("got %v", err)
	}
}
