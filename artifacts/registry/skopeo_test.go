package registry_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// proxy is a CONNECT proxy that leads every host to the registry, so that skopeo can use the real name.
func (w *world) proxy(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(rw, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		down, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			up.Close()
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n")
		open.Add(2)
		for _, d := range [][2]net.Conn{{up, down}, {down, up}} {
			go func() {
				defer open.Done()
				_, _ = io.Copy(d[0], d[1])
				d[0].Close()
			}()
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done; open.Wait() })
	return "http://" + l.Addr().String()
}

// skopeo, when it is on PATH, copies an image in, inspects it and copies it out again.
func TestSkopeo(t *testing.T) {
	bin, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal("skopeo is not installed: hack/setup test installs it")
	}
	w := newWorld(t)
	dir := t.TempDir()
	img, err := random.Image(20_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	from, back := filepath.Join(dir, "from"), filepath.Join(dir, "back")
	p, err := layout.Write(from, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	proxy := w.proxy(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), bin, append([]string{"--insecure-policy"}, args...)...)
		cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "NO_PROXY=", "no_proxy=",
			"REGISTRY_AUTH_FILE="+filepath.Join(dir, "auth.json"), "HOME="+dir)
		return cmd
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := command(args...).CombinedOutput(); err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args[0], err, out)
		}
	}
	name := "docker://" + host + "/giggle/my-repo/by-skopeo:v1"
	run("copy", "--dest-tls-verify=false", "--dest-creds=oauth2accesstoken:"+w.owner, "oci:"+from, name)
	run("inspect", "--tls-verify=false", "--creds=_dcgcloud_token:"+w.reader, name)
	run("copy", "--src-tls-verify=false", "--src-creds=oauth2accesstoken:"+w.reader, name, "oci:"+back+":v1")
	got, err := layout.FromPath(back)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := got.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 {
		t.Errorf("copied back: %d images", len(m.Manifests))
	}
	// skopeo deletes what a tag names and not the tag, which Google's registries refuse
	// (https://github.com/GoogleCloudPlatform/docker-credential-gcr/issues/73).
	remove := command("delete", "--tls-verify=false", "--creds=oauth2accesstoken:"+w.owner, name)
	if out, err := remove.CombinedOutput(); err == nil || !strings.Contains(string(out), "still referenced by tag: v1") {
		t.Errorf("skopeo delete: %v\n%s", err, out)
	}
}
