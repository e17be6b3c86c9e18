package buildpack_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"giggle/builds/buildpack"
)

// evil is what a hostile source may have the go command run. It says what it could do, where go itself would.
const evil = `package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	if w, err := os.OpenFile("/proc/1/fd/2", os.O_WRONLY, 0); err == nil {
		os.Stdout = w
	}
	for _, a := range []string{"169.254.169.254:80"} {
		if c, err := net.DialTimeout("tcp", a, time.Second); err == nil {
			c.Close()
			fmt.Println("fine: reached the module proxy")
		} else {
			fmt.Println("BAD: no module proxy:", err)
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			fmt.Println("BAD: has the address", ip)
		}
	}
	for _, a := range []string{"127.0.0.1:PORT", "1.1.1.1:53", "8.8.8.8:53", "169.254.169.254:443", "169.254.169.254:22", "127.71.71.1:443"} {
		if c, err := net.DialTimeout("tcp", a, 300*time.Millisecond); err == nil {
			c.Close()
			fmt.Println("BAD: reached", a)
		}
	}
	for _, f := range []string{"/workspace/main.go", "/usr/local/go/bin/go", "/proc/sys/kernel/hostname", "/sys/x"} {
		if w, err := os.OpenFile(f, os.O_WRONLY|os.O_CREATE, 0o644); err == nil && f != "/usr/local/go/bin/go" {
			w.Close()
			fmt.Println("BAD: opened", f, "to write")
		}
	}
	if err := os.Remove("/usr/local/go/bin/gofmt"); err != nil {
		fmt.Println("no:", err)
	}
	if b, err := os.ReadFile("/etc/shadow"); err == nil {
		fmt.Println("BAD: has /etc/shadow", len(b))
	}
	fmt.Println("evil was here")
	os.Exit(1)
}
`

// Source code may run programs of its own while it is compiled. They reach the platform's sockets and nothing else, and
// what they do to the toolchain is gone with their container.
func TestHostileBuild(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "evil.go"), []byte(strings.ReplaceAll(evil, "PORT", hostPort(t))),
		0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-o", "evil", "evil.go")
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "evil"))
	if err != nil {
		t.Fatal(err)
	}
	f := setup(t, "")
	src := files{"go.mod": module, "main.go": server(`"x"`), "evil*": string(program)}
	_, log, err := f.build(src, map[string]string{"GOFLAGS": "-toolexec=/workspace/evil"})
	if err == nil || !strings.Contains(log, "evil was here") ||
		!strings.Contains(log, "fine: reached the module proxy") {
		t.Errorf("the hostile program did not run, so this test shows nothing: %v", err)
	}
	if strings.Contains(log, "BAD") {
		t.Error("the container leaks")
	}
	// The toolchain is whole for the next build.
	if _, err := os.Stat(filepath.Join(goLayer(t), "usr/local/go/bin/gofmt")); err != nil {
		t.Error(err)
	}
	delete(src, "evil*")
	f.mustBuild(src, nil)
}

// When the toolchain changes, the caches that builds have written to are removed, with the links that they left there,
// and nothing is written through them.
func TestLinksLeftInCaches(t *testing.T) {
	f := setup(t, "")
	src := files{"go.mod": module, "main.go": server(`"x"`)}
	f.mustBuild(src, nil)
	mark := seedMark(t, f)
	cache, elsewhere := filepath.Dir(mark), t.TempDir()
	precious := filepath.Join(elsewhere, "precious")
	if err := os.WriteFile(precious, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	leave := func(dir string) { // as a build can: links in place of directories and of a file
		t.Helper()
		entries, err := filepath.Glob(filepath.Join(dir, "go-build", "??"))
		if err != nil || len(entries) == 0 {
			t.Fatalf("%s is no cache: %v", dir, err)
		}
		if err := errors.Join(os.RemoveAll(entries[0]), os.Symlink(elsewhere, entries[0])); err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries[1:] {
			inside, err := os.ReadDir(entry)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range inside {
				if err := errors.Join(os.Remove(filepath.Join(entry, e.Name())),
					os.Symlink(precious, filepath.Join(entry, e.Name()))); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	project := filepath.Dir(cache)
	for name, change := range map[string]func() error{
		"a seeding that was broken off": func() error { return os.Remove(mark) },
		"another version": func() error {
			return os.Rename(cache, filepath.Join(project, "go1.2.3"))
		},
		"the layout without versions": func() error {
			return errors.Join(os.Rename(filepath.Join(cache, "go-build"), filepath.Join(project, "go-build")),
				os.Rename(filepath.Join(cache, "mod"), filepath.Join(project, "mod")), os.RemoveAll(cache))
		},
	} {
		leave(cache)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		f.mustBuild(src, nil)
		if b, err := os.ReadFile(precious); err != nil || string(b) != "mine" {
			t.Errorf("%s: a file elsewhere was written: %.20q, %v", name, b, err)
		}
		if got, err := os.ReadDir(elsewhere); err != nil || len(got) != 1 {
			t.Errorf("%s: files were written elsewhere: %v, %v", name, got, err)
		}
		if got, err := os.ReadDir(project); err != nil || len(got) != 1 {
			t.Errorf("%s: the project's caches are %v, %v", name, got, err)
		}
	}
}

// hostPort is a port of the host's loopback that somebody listens on.
func hostPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// goLayer is the directory with the toolchain.
func goLayer(t *testing.T) string {
	t.Helper()
	img, err := foreignImages(t).Get(buildpack.GoImage)
	if err != nil {
		t.Fatalf("%v: run `make setup` first", err)
	}
	return img.Layers[len(img.Layers)-1]
}
