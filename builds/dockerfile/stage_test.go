package dockerfile

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/fault"
)

// noMirror has one blob and no images.
type noMirror struct{ blobs *blob.Dir }

func (m noMirror) Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error) {
	return m.blobs.Open(ctx, d)
}
func (m noMirror) Resolve(_ context.Context, name string, _ func(string)) (string, error) {
	return "", fault.New(fault.NotFound, "%s", name)
}

// A build's registry gives out what the project's builds have brought and what is the mirror's; a digest alone buys
// nothing.
func TestStageServesOnlyItsOwn(t *testing.T) {
	open := func() *blob.Dir {
		d, err := blob.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	platform, foreign := open(), open()
	put := func(d *blob.Dir, text string) string {
		info, err := d.Put(t.Context(), strings.NewReader(text), "")
		if err != nil {
			t.Fatal(err)
		}
		return string(info.Digest)
	}
	private, public := put(platform, "an object of another project"), put(foreign, "a layer of the mirror")
	s := newStage(Config{Blobs: platform, Foreign: noMirror{foreign}, Familiar: mirror.Familiar, Log: slog.Default()}, func(string) {})
	repo, done := s.open()
	call := func(method, path, body string) (int, string) {
		r := httptest.NewRequest(method, "/v2/"+path, strings.NewReader(body))
		r.SetBasicAuth(stageUser, repo.secret)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		b, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(b)
	}
	manifest := func(layer string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":%q},"layers":[{"digest":%q}]}`, public, layer)
	}
	index := func(digest string) string { return fmt.Sprintf(`{"manifests":[{"digest":%q}]}`, digest) }
	for _, c := range []struct{ method, path, body string }{
		{"GET", repo.name + "/blobs/" + private, ""},
		{"HEAD", repo.name + "/blobs/" + private, ""},
		{"GET", repo.name + "/manifests/" + private, ""},
		{"GET", "mirror/x/blobs/" + private, ""},
		{"GET", "mirror/x/manifests/" + private, ""},
		{"PUT", repo.name + "/manifests/latest", manifest(private)},
		{"PUT", repo.name + "/manifests/latest", index(private)},
		{"PUT", repo.name + "/manifests/latest", fmt.Sprintf(`{"subject":{"digest":%q}}`, private)},
		{"PUT", repo.name + "/manifests/latest", "no manifest"},
	} {
		if code, body := call(c.method, c.path, c.body); code < 400 || strings.Contains(body, "an object") {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, body)
		}
	}
	// upload it, then
	if code, _ := call("POST", repo.name+"/blobs/uploads/?mount="+private, ""); code != http.StatusAccepted {
		t.Errorf("mount of a foreign blob: %d", code)
	}
	if s.pushed(private) {
		t.Error("a digest alone made a blob the project's")
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", repo.name + "/blobs/" + public, "", http.StatusOK},
		{"GET", "mirror/x/blobs/" + public, "", http.StatusOK},
		{"PUT", repo.name + "/blobs/uploads/x?digest=" + private, "something else", http.StatusBadRequest},
		// who has it may
		{"PUT", repo.name + "/blobs/uploads/x?digest=" + private, "an object of another project", http.StatusCreated},
		{"GET", repo.name + "/blobs/" + private, "", http.StatusOK},
		{"PUT", repo.name + "/manifests/latest", manifest(private), http.StatusCreated},
	} {
		if code, body := call(c.method, c.path, c.body); code != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, code, body, c.want)
		}
	}
	done()
	if code, _ := call("GET", repo.name+"/blobs/"+public, ""); code != http.StatusUnauthorized {
		t.Errorf("after the build: %d", code)
	}
}

// refusing has no image, for a reason.
type refusing struct{ noMirror }

func (refusing) Resolve(_ context.Context, name string, say func(string)) (string, error) {
	say("asking for " + name)
	return "", fault.New(fault.Unavailable, "The image %s can't be pulled: nobody answers.", name)
}

// BuildKit sees the status of what can't be pulled, the user the reason, once.
func TestStageSaysWhy(t *testing.T) {
	var said []string
	cfg := Config{Foreign: refusing{}, Familiar: mirror.Familiar, Log: slog.Default()}
	p := &project{stage: newStage(cfg, func(line string) { said = append(said, line) })}
	w := httptest.NewRecorder()
	p.stage.ServeHTTP(w, httptest.NewRequest("HEAD", "/v2/mirror/me/app/manifests/1?ns=ghcr.io", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
	if len(said) != 1 || said[0] != "asking for ghcr.io/me/app:1" {
		t.Errorf("said %q", said)
	}
	last := &failure{last: "failed to resolve source metadata for ghcr.io/me/app:1: unexpected status: 503"}
	if err := p.explain(last, nil); err == nil || !strings.Contains(err.Error(), "can't be pulled: nobody answers") {
		t.Errorf("explained as %v", err)
	}
	if err := p.explain(last, nil); err == nil || !strings.Contains(err.Error(), "giggle images add ghcr.io/me/app:1") {
		t.Errorf("the second time as %v", err)
	}
}

// What BuildKit can't fetch for want of a way to the outside says so; any other failure is left as it is.
func TestUnreachedWithoutEgress(t *testing.T) {
	online := false
	p := &project{b: &Builder{cfg: Config{Online: func() bool { return online }}}}
	for _, last := range []string{
		`failed to solve: Get "https://a.test/f": dial tcp: lookup a.test on 169.254.169.254:53: no such host`,
		`failed to solve: Get "http://203.0.113.10/": dial tcp 203.0.113.10:80: connect: network is unreachable`,
		"failed to solve: fatal: unable to access 'https://a.test/r.git/': Could not resolve host: a.test",
	} {
		for _, online = range []bool{false, true} {
			err := p.explain(&failure{last: last}, nil)
			if err == nil || !strings.Contains(err.Error(), last) ||
				strings.Contains(err.Error(), "giggle up --egress=public") == online {
				t.Errorf("online %v: %v", online, err)
			}
		}
	}
	online = false
	if err := p.explain(&failure{last: "failed to solve: no such file"}, nil); strings.Contains(err.Error(), "egress") {
		t.Errorf("another failure: %v", err)
	}
}
