package mirror_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// desk is a mirror with a Puller whose registry of names without a host is a hub.
type desk struct {
	*testing.T
	dir    string
	mirror *mirror.Mirror
	puller *mirror.Puller
	hub    *hub

	mu    sync.Mutex
	now   time.Time
	lines []string
}

func newDesk(t *testing.T, change func(*mirror.PullerConfig)) *desk {
	t.Helper()
	d := &desk{T: t, dir: t.TempDir(), hub: newHub(t), now: time.Now()}
	d.reopen(change)
	return d
}

// reopen is what a restart does.
func (d *desk) reopen(change func(*mirror.PullerConfig)) {
	d.Helper()
	d.mirror = open(d.T, d.dir)
	cfg := mirror.PullerConfig{
		Mirror: d.mirror,
		Policy: mirror.Policy{
			Allowed:    true,
			Registries: []mirror.Registry{{Host: "index.docker.io", Mirrors: []string{d.hub.host}}, {Host: d.hub.host}},
		},
		Own:    func(name string) bool { return strings.HasPrefix(name, "own/") },
		Now:    d.time,
		Log:    slog.New(slog.DiscardHandler),
		Stalls: 300 * time.Millisecond,
		Pause:  time.Millisecond,
	}
	cfg.Policy.Proxy = onlyLoopback
	if change != nil {
		change(&cfg)
	}
	var err error
	if d.puller, err = mirror.NewPuller(cfg); err != nil {
		d.Fatal(err)
	}
}

// onlyLoopback has nothing leave the machine: what would goes to a proxy that is not there.
func onlyLoopback(u *url.URL) (*url.URL, error) {
	if u.Hostname() == "127.0.0.1" {
		return nil, nil
	}
	return &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, nil
}

func (d *desk) time() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) pass(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(t)
}

func (d *desk) say(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *desk) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

// name is the familiar name of an image of the hub.
func (d *desk) name(of string) string { return d.hub.host + "/" + of }

// text is what the file of an image says, as a platform sees it.
func (d *desk) text(ctx context.Context, name string) (string, error) {
	blobs, err := blob.Open(d.TempDir())
	if err != nil {
		return "", err
	}
	images, err := oci.New(d.TempDir(), blobs, oci.Limits{})
	if err != nil {
		return "", err
	}
	defer func() { _ = images.Close() }()
	img, err := d.puller.Image(ctx, name, blobs, images.Unpack, d.say)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(img.Layers[0], "file"))
	return string(b), err
}

func (d *desk) want(name, text string) {
	d.Helper()
	if got, err := d.text(d.Context(), name); err != nil || got != text {
		d.Errorf("%s holds %q, %v; want %q", name, got, err, text)
	}
}

// An image is pulled once: by its tag, by its digest and by that of its index; an index gives our platform's.
func TestPull(t *testing.T) {
	d := newDesk(t, nil)
	index, manifest := d.hub.index(t, runtime.GOARCH, "the real one")
	d.hub.tag("library/ubuntu:24.04", index)
	d.hub.tag("me/app:latest", manifest)
	for _, name := range []string{d.name("library/ubuntu:24.04"), d.name("library/ubuntu@" + index),
		d.name("library/ubuntu@" + manifest), d.name("me/app:latest"), "ubuntu:24.04"} {
		d.want(name, "the real one")
	}
	asked := d.hub.count("GET manifests")
	for _, name := range []string{d.name("library/ubuntu:24.04"), d.name("library/ubuntu@" + index), "ubuntu:24.04"} {
		d.want(name, "the real one")
	}
	if now := d.hub.count("GET manifests") + d.hub.count("HEAD manifests"); now != asked {
		t.Errorf("%d requests for what is cached", now-asked)
	}
	if d.hub.leaked != "" {
		t.Errorf("the storage got the registry's token: %q", d.hub.leaked)
	}
	all, err := d.mirror.All()
	if err != nil || len(all) != 3 {
		t.Fatalf("all = %+v, %v", all, err)
	}
	for _, e := range all {
		if e.Kind != mirror.Cached || e.Size == 0 || e.Digest != manifest {
			t.Errorf("entry = %+v", e)
		}
	}
	if !strings.Contains(d.said(), "library/ubuntu from "+d.hub.host) {
		t.Errorf("said %q", d.said())
	}
}

// What was added by hand wins over what is pulled, and that over what was made here.
func TestPrecedence(t *testing.T) {
	d := newDesk(t, nil)
	real, _ := d.hub.image(t, runtime.GOARCH, "the real one")
	for _, tag := range []string{"library/node:22", "library/golang:1"} {
		d.hub.tag(tag, real)
	}
	if err := put(t.Context(), d.mirror, "node:22", "stand-in"); err != nil {
		t.Fatal(err)
	}
	d.want("node:22", "the real one")
	if err := d.puller.Fetch(t.Context(), d.name("library/golang:1"), "node:22", d.say); err != nil {
		t.Fatal(err)
	}
	all, err := d.mirror.All()
	if err != nil || len(all) != 2 || all[0].Kind == all[1].Kind {
		t.Fatalf("all = %+v, %v", all, err)
	}
	found, err := d.puller.Find(t.Context(), "node:22", nil)
	if err != nil || found.Kind != mirror.Added {
		t.Errorf("found %+v, %v; want the one that was added", found, err)
	}
	d.want("node:22", "the real one")
}

// Without leave nothing is asked, and the answer is what it always was.
func TestPullNever(t *testing.T) {
	for name, change := range map[string]func(*mirror.PullerConfig){
		"off": func(c *mirror.PullerConfig) { c.Policy.Allowed = false },
		"own": func(c *mirror.PullerConfig) { c.Own = func(string) bool { return true } },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, change)
			image, _ := d.hub.image(t, runtime.GOARCH, "x")
			d.hub.tag("library/ubuntu:24.04", image)
			if _, err := d.text(t.Context(), "ubuntu:24.04"); !fault.Is(err, fault.NotFound) {
				t.Errorf("got %v", err)
			}
			if err := put(t.Context(), d.mirror, "ubuntu:24.04", "stand-in"); err != nil {
				t.Fatal(err)
			}
			d.want("ubuntu:24.04", "stand-in")
			if n := d.hub.count("GET ping"); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A registry with a certificate of its own is trusted when the list of registries names it, and not before.
func TestCertificates(t *testing.T) {
	d := newDesk(t, nil)
	image, _ := d.hub.image(t, runtime.GOARCH, "the real one")
	d.hub.tag("library/app:1", image)
	d.hub.Server.Close()
	d.hub.Server = httptest.NewTLSServer(http.HandlerFunc(d.hub.serve))
	d.hub.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that are refused
	t.Cleanup(d.hub.Server.Close)
	d.hub.host = strings.TrimPrefix(d.hub.URL, "https://")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.hub.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ ca, want string }{{"", "can't be trusted"}, {ca + "x", "no such file"}, {ca, ""}} {
		d.reopen(func(p *mirror.PullerConfig) {
			p.Policy.Registries = []mirror.Registry{{Host: d.hub.host, CA: c.ca}}
		})
		got, err := d.text(t.Context(), d.name("library/app:1"))
		if c.want == "" && (err != nil || got != "the real one") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("with certificates %q: %q, %v; want %q", filepath.Base(c.ca), got, err, c.want)
		}
	}
}
