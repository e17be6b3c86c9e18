package mirror_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/fault"
)

// A tag is asked for again after a while. What it was before stays by its digest; a digest is never asked for again.
func TestRecheck(t *testing.T) {
	d := newDesk(t, nil)
	first, _ := d.hub.image(t, runtime.GOARCH, "one")
	second, _ := d.hub.image(t, runtime.GOARCH, "two")
	d.hub.tag("library/app:1", first)
	d.want(d.name("library/app:1"), "one")
	d.hub.tag("library/app:1", second)
	d.want(d.name("library/app:1"), "one")
	d.pass(11 * time.Minute)
	d.want(d.name("library/app:1"), "two")
	asked := d.hub.count("GET manifests") + d.hub.count("HEAD manifests")
	d.want(d.name("library/app@"+first), "one")
	d.pass(24 * time.Hour)
	d.want(d.name("library/app@"+first), "one")
	if now := d.hub.count("GET manifests") + d.hub.count("HEAD manifests"); now != asked {
		t.Errorf("%d requests for digests that are cached", now-asked)
	}
	got := d.hub.count("GET manifests")
	d.want(d.name("library/app:1"), "two")
	if d.hub.count("GET manifests") != got || d.hub.count("HEAD manifests") != 2 {
		t.Error("a tag that has not moved was pulled again")
	}
}

// Two that want one image share its pull. One that gives up leaves it to the other; the last ends it.
func TestPullIsShared(t *testing.T) {
	d := newDesk(t, func(c *mirror.PullerConfig) { c.Stalls = 10 * time.Second })
	image, layer := d.hub.image(t, runtime.GOARCH, "the real one")
	d.hub.tag("library/app:1", image)
	d.hub.tag("library/gone:1", image)
	asked, gate, gone := make(chan struct{}, 8), make(chan struct{}), make(chan struct{}, 8)
	size := len(d.hub.blobs[layer])
	d.hub.layer = func(_ http.ResponseWriter, r *http.Request, b []byte) bool {
		if len(b) != size {
			return false
		}
		asked <- struct{}{}
		select {
		case <-gate:
		case <-r.Context().Done():
			gone <- struct{}{}
		}
		return false
	}
	ctx, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	results := make(chan string, 3)
	for i := range 3 {
		wg.Go(func() {
			mine := t.Context()
			if i == 0 {
				mine = ctx
			}
			text, err := d.text(mine, d.name("library/app:1"))
			results <- fmt.Sprint(text, err != nil)
		})
	}
	<-asked
	giveUp()
	if got := <-results; got != "true" {
		t.Errorf("who gave up got %q", got)
	}
	close(gate)
	wg.Wait()
	for range 2 {
		if got := <-results; got != "the real onefalse" {
			t.Errorf("who waited got %q", got)
		}
	}
	if len(asked) != 0 {
		t.Errorf("the layer was asked for %d times", len(asked)+1)
	}

	gate = make(chan struct{})
	if _, err := d.mirror.Collect(t.Context(), 0, 0, d.time().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp = context.WithCancel(t.Context())
	wg.Go(func() { _, _ = d.text(ctx, d.name("library/gone:1")) })
	<-asked
	giveUp()
	wg.Wait()
	<-gone // the registry sees the connection end
}

// The cache stays below its limit: what has not been used for longest goes, with its bytes; never what was used within
// the hour.
func TestCacheIsBounded(t *testing.T) {
	d := newDesk(t, func(c *mirror.PullerConfig) { c.Policy.Limit = 250_000 })
	for i := range 4 {
		image, _ := d.hub.image(t, runtime.GOARCH, randomText(100_000)+fmt.Sprint(i))
		d.hub.tag(fmt.Sprintf("library/app:%d", i), image)
	}
	pull := func(i int) error {
		_, err := d.puller.Find(t.Context(), d.name(fmt.Sprintf("library/app:%d", i)), d.say)
		return err
	}
	cached := func() (out []string) {
		all, err := d.mirror.All()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			out = append(out, e.Name[len(e.Name)-1:])
		}
		return out
	}
	for i := range 2 {
		if err := pull(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := pull(2); !fault.Is(err, fault.ResourceExhausted) || !strings.Contains(err.Error(), "within the last hour") {
		t.Errorf("a cache full of what is used took another: %v", err)
	}
	d.pass(50 * time.Minute)
	if err := pull(0); err != nil { // used
		t.Fatal(err)
	}
	d.pass(50 * time.Minute)
	if err := pull(2); err != nil {
		t.Fatal(err)
	}
	if got := cached(); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("cached: %v; want the two that were used last", got)
	}
	var size int64
	_ = filepath.WalkDir(filepath.Join(d.dir, "cache"), func(path string, e os.DirEntry, _ error) error {
		if st, err := os.Stat(path); err == nil && e.Type().IsRegular() {
			size += st.Size()
		}
		return nil
	})
	if size > 250_000 {
		t.Errorf("the cache has %d bytes on the disk", size)
	}
	d.pass(2 * time.Hour)
	done, err := d.mirror.Collect(t.Context(), 0, 0, d.time())
	if err != nil || len(done.Images) != 2 || done.Size != 0 {
		t.Errorf("collected %+v, %v", done, err)
	}
	if err := pull(3); err != nil {
		t.Fatal(err)
	}
	if err := d.mirror.Forget(t.Context(), d.name("library/app:3"), d.time()); err != nil {
		t.Error(err)
	}
	if err := d.mirror.Forget(t.Context(), d.name("library/app:3"), d.time()); !fault.Is(err, fault.NotFound) {
		t.Errorf("twice: %v", err)
	}
}

// Bytes that somebody removed by hand come again.
func TestCacheHeals(t *testing.T) {
	d := newDesk(t, nil)
	image, _ := d.hub.image(t, runtime.GOARCH, "the real one")
	d.hub.tag("library/app:1", image)
	d.want(d.name("library/app:1"), "the real one")
	for _, dir := range []string{"sha256"} {
		files, err := filepath.Glob(filepath.Join(d.dir, "cache", "blobs", dir, "*", "*"))
		if err != nil || len(files) < 3 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.want(d.name("library/app:1"), "the real one")
	if err := os.WriteFile(filepath.Join(d.dir, "cache.json"), []byte("[{"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.want(d.name("library/app:1"), "the real one")
}

// Credentials are tried before they are kept, and kept for root alone.
func TestLogin(t *testing.T) {
	d := newDesk(t, nil)
	d.hub.user = "me"
	image, _ := d.hub.image(t, runtime.GOARCH, "the private one")
	d.hub.tag("me/app:1", image)
	file := filepath.Join(d.dir, "credentials.json")
	if err := d.puller.Login(t.Context(), d.hub.host, "me", "wrong"); !fault.Is(err, fault.PermissionDenied) ||
		!strings.Contains(err.Error(), "does not take") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a wrong password was kept")
	}
	if _, err := d.text(t.Context(), d.name("me/app:1")); !fault.Is(err, fault.PermissionDenied) {
		t.Errorf("without a login: %v", err)
	}
	if err := d.puller.Login(t.Context(), d.hub.host, "me", "secret"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("the credentials' file: %v, %v", st.Mode(), err)
	}
	d.want(d.name("me/app:1"), "the private one")
	if strings.Contains(d.said(), "secret") || d.hub.leaked != "" {
		t.Errorf("said %q, the storage got %q", d.said(), d.hub.leaked)
	}
	if err := d.mirror.Logout(d.hub.host); err != nil {
		t.Error(err)
	}
	if err := d.mirror.Logout(d.hub.host); !fault.Is(err, fault.NotFound) {
		t.Errorf("twice: %v", err)
	}
}

func TestFromDocker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	const auths = `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6YTpi"},"ghcr.io":{"auth":"eW91OngK"},` +
		`"bad.example":{"auth":"!"},"token.example":{"auth":"PHRva2VuPjo=","identitytoken":"t0k"}},"credHelpers":{"gcr.io":"gcloud"}}`
	for host, c := range map[string]struct {
		content, user, password string
		code                    fault.Code
	}{
		"docker.io":     {auths, "me", "a:b", 0},
		"ghcr.io":       {auths, "you", "x\n", 0},
		"token.example": {auths, "<token>", "t0k", 0},
		"bad.example":   {auths, "", "", fault.DataLoss},
		"gcr.io":        {auths, "", "", fault.FailedPrecondition},
		"quay.io":       {auths, "", "", fault.NotFound},
		"other.example": {`{"credsStore":"desktop"}`, "", "", fault.FailedPrecondition},
		"any.example":   {`no JSON`, "", "", fault.InvalidArgument},
		"no/host":       {auths, "", "", fault.InvalidArgument},
	} {
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		user, password, err := mirror.FromDocker(file, host)
		if user != c.user || password != c.password || (err != nil) != (c.code != 0) || err != nil && !fault.Is(err, c.code) {
			t.Errorf("%s: %q, %q, %v", host, user, password, err)
		}
	}
}

func TestReadRegistries(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		`{"registries":[{"host":"docker.io","mirrors":["lan:5000/hub/","mirror.gcr.io"]}]}`: "[{index.docker.io [lan:5000/hub mirror.gcr.io] false }]",
		`{"registries":[{"host":"lan:5000","insecure":true}]}`:                              "[{lan:5000 [] true }]",
		`{"registries":[{"host":"lan","ca":"lan.pem"}]}`:                                    "[{lan [] false " + dir + "/lan.pem}]",
		`{}`:                                              "[]",
		`{"registries":[{"host":"a/b"}]}`:                 "",
		`{"registries":[{"hosts":"lan"}]}`:                "",
		`{"registries":[{"host":"u@evil"}]}`:              "",
		`{"registries":[{"host":"x","mirrors":["a b"]}]}`: "",
		`[`: "",
	} {
		file := filepath.Join(dir, "registries.json")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := mirror.ReadRegistries(file)
		if (err != nil) != (want == "") || err == nil && fmt.Sprint(got) != want || err != nil && !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v, %v; want %s", content, got, err, want)
		}
	}
}

// What is half downloaded counts, and goes first: a registry that breaks off again and again fills no disk.
func TestAbandonedDownloadsAreBounded(t *testing.T) {
	d := newDesk(t, func(c *mirror.PullerConfig) { c.Policy.Limit = 250_000; c.Stalls = 5 * time.Second })
	sizes := map[int]bool{}
	for i := range 5 {
		image, layer := d.hub.image(t, runtime.GOARCH, randomText(100_000)+fmt.Sprint(i))
		sizes[len(d.hub.blobs[layer])] = true
		d.hub.tag(fmt.Sprintf("library/app:%d", i), image)
	}
	d.hub.layer = func(w http.ResponseWriter, _ *http.Request, b []byte) bool {
		if sizes[len(b)] {
			_, _ = (&brokenWriter{w, 90_000}).Write(b)
		}
		return false
	}
	for i := range 5 {
		if _, err := d.text(t.Context(), d.name(fmt.Sprintf("library/app:%d", i))); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a layer that breaks off: %v", err)
		}
	}
	var size int64
	files, _ := filepath.Glob(filepath.Join(d.dir, "cache", "blobs", "uploads", "*"))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			size += st.Size()
		}
	}
	if size == 0 || size > 250_000 {
		t.Errorf("%d bytes of %d downloads are half there", size, len(files))
	}
}

// Layers of images that never became whole count, too, until they are old enough to be removed.
func TestLayersOfNoImageAreBounded(t *testing.T) {
	d := newDesk(t, func(c *mirror.PullerConfig) { c.Policy.Limit = 250_000 })
	for i := range 3 {
		image, _ := d.hub.image(t, runtime.GOARCH, randomText(100_000)+fmt.Sprint(i))
		d.hub.tag(fmt.Sprintf("library/app:%d", i), image)
	}
	find := func(i int) error {
		_, err := d.puller.Find(t.Context(), d.name(fmt.Sprintf("library/app:%d", i)), nil)
		return err
	}
	for i := range 2 {
		if err := find(i); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(d.dir, "cache.json")); err != nil {
			t.Fatal(err)
		}
	}
	if err := find(2); !fault.Is(err, fault.ResourceExhausted) {
		t.Errorf("over the limit: %v", err)
	}
	d.pass(2 * time.Hour)
	if err := find(2); err != nil {
		t.Errorf("once they are old: %v", err)
	}
}
