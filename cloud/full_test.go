package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/cloud/garbage"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
	"giggle/rest"
	"giggle/storage"
)

// smallDisk is a file system of its own, as a small machine has.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no loop device here: %v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// full is a platform on a small disk that somebody else fills.
type full struct {
	*testing.T
	*Cloud
	dir   string
	later atomic.Int64 // the clock goes before by so much
	muxes map[string]*rest.Mux
	token string
}

func (f *full) start() {
	f.Helper()
	var err error
	f.Cloud, err = New(f.Context(), Config{
		Data:    filepath.Join(f.dir, "data"),
		Mirror:  filepath.Join(f.TempDir(), "mirror"),
		Project: "giggle",
		Owner:   "you@giggle.test",
		Address: "127.71.90.1",
		Console: "127.0.0.1:0",
		Edge:    "127.0.0.1:0",
		Idle:    time.Minute,
		Version: "test",
		Log:     slog.New(slog.DiscardHandler),
		Now:     func() time.Time { return time.Now().Add(time.Duration(f.later.Load())) },
	})
	if err != nil {
		f.Fatalf("start: %v", err)
	}
	f.muxes = muxes(f.T, f.Cloud)
	if f.token, _, err = f.identity.AccessToken(f.identity.Owner(), nil); err != nil {
		f.Fatal(err)
	}
}

func (f *full) stop() {
	f.Helper()
	if err := errors.Join(f.scaler.Close(context.Background()), f.Close()); err != nil {
		f.Errorf("stop: %v", err)
	}
}

func (f *full) free() int64 {
	f.Helper()
	s, err := f.disk.Space()
	if err != nil {
		f.Fatal(err)
	}
	return s.Free
}

func (f *full) filler() string { return filepath.Join(f.dir, "filler") }

// fill leaves so many bytes free.
func (f *full) fill(leave int64) {
	f.Helper()
	unix.Sync() // what is still to get its blocks
	w, err := os.OpenFile(f.filler(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer w.Close()
	for {
		n := min(f.free()-leave, 1<<20)
		if n < 1 {
			break
		}
		if _, err := w.Write(make([]byte, n)); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		f.Fatal(err)
	}
}

// call is a call of an API, or of the registry, by the owner.
func (f *full) call(method, url, body string) (int, string) {
	f.Helper()
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+f.token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	var h http.Handler = f.router
	if m, ok := f.muxes[r.Host]; ok {
		h = m
	}
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// put makes an object of some bytes that no other has.
func (f *full) put(name string, size int) error {
	content := bytes.Repeat([]byte(name+" "), size/(len(name)+1)+1)[:size]
	_, err := f.storage.Put(f.Context(), storage.Insert{Bucket: "full", Name: name}, bytes.NewReader(content))
	return err
}

func TestFullDisk(t *testing.T) { testFullDisk(t, 0, 4<<10, 1<<20, 12<<20, 31<<20) }

// testFullDisk holds, with whatever is left of the disk: what adds to it is refused, and says why; what was there is
// served; a delete works and gives its bytes back at once; and the platform starts again.
func testFullDisk(t *testing.T, left ...int64) {
	f := &full{T: t, dir: smallDisk(t, 300<<20)}
	f.start()
	if _, err := f.storage.CreateBucket(t.Context(), storage.Bucket{Name: "full", Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	if err := f.put("kept", 100<<10); err != nil {
		t.Fatal(err)
	}
	if status, text := f.call("POST",
		"https://artifactregistry.googleapis.com/v1/projects/giggle/locations/europe-north1/repositories?repositoryId=docker", `{"format": "DOCKER"}`); status >= 300 {
		t.Fatal(text)
	}
	const big = 8 << 20
	for i, leave := range left {
		at := fmt.Sprintf("with %d KiB left", leave>>10)
		name := fmt.Sprintf("big-%d", i)
		if err := f.put(name, big); err != nil {
			t.Fatalf("%s: an object while there is room: %v", at, err)
		}
		f.fill(leave)

		for _, c := range []struct {
			method, url, body string
			rows              bool // it adds rows only, which have half of what is kept back
		}{
			{"POST", "https://storage.googleapis.com/upload/storage/v1/b/full/o?uploadType=media&name=more", strings.Repeat("more", 1000), false},
			{"POST", "https://storage.googleapis.com/upload/storage/v1/b/full/o?uploadType=resumable&name=more", "{}", false},
			{"POST", "https://storage.googleapis.com/storage/v1/b/full/o/composed/compose", `{"sourceObjects": [{"name": "kept"}, {"name": "kept"}]}`, false},
			{"POST", "https://europe-north1-docker.pkg.dev/v2/giggle/docker/image/blobs/uploads/?digest=" +
				string(blob.FromBytes([]byte("layer"))), "layer", false},
			{"POST", "https://storage.googleapis.com/storage/v1/b?project=giggle", fmt.Sprintf(`{"name": "bucket-%d"}`,
				i), true},
			{"POST", fmt.Sprintf("https://artifactregistry.googleapis.com/v1/projects/giggle/locations/europe-north1/repositories?repositoryId=r%d", i), `{"format": "DOCKER"}`, true},
			{"POST", "https://iam.googleapis.com/v1/projects/giggle/serviceAccounts", fmt.Sprintf(`{"accountId": "account-%d"}`, i), true},
			{"POST", "https://run.googleapis.com/v2/projects/giggle/locations/europe-north1/services?serviceId=" +
				fmt.Sprintf("s%d", i), `{"template": {"containers": [{"image": "x"}]}}`, true},
		} {
			status, text := f.call(c.method, c.url, c.body)
			refused := (status == http.StatusTooManyRequests || status == http.StatusInsufficientStorage ||
				status == http.StatusRequestEntityTooLarge) && strings.Contains(text, "The platform's disk is full")
			if status < 300 && c.rows && leave >= 15<<20 {
				continue
			}
			if storageHost := strings.Contains(c.url, "//storage."); !refused ||
				storageHost != (status == http.StatusRequestEntityTooLarge) {
				t.Errorf("%s: %s %s = %d %.300s", at, c.method, c.url, status, text)
			}
		}

		if status, text := f.call("GET", "https://storage.googleapis.com/storage/v1/b/full/o/kept?alt=media",
			""); status != http.StatusOK || len(text) != 100<<10 {
			t.Errorf("%s: an object that is there = %d, %d bytes", at, status, len(text))
		}
		before := f.free()
		if status, text := f.call("DELETE", "https://storage.googleapis.com/storage/v1/b/full/o/"+name,
			""); status >= 300 {
			t.Fatalf("%s: delete = %d %.300s", at, status, text)
		}
		f.later.Add(int64(2 * garbage.Grace)) // the object has been there for a while
		if err := f.garbage.CollectReleased(t.Context(), true); err != nil {
			t.Errorf("%s: collect: %v", at, err)
		}
		if back := f.free() - before; back < big*9/10 {
			t.Errorf("%s: the delete of %d bytes gave %d back", at, big, back)
		}

		// as it is tried from time to time
		if err := errors.Join(f.ballast.Restore(), f.auditBallast.Restore()); err != nil {
			t.Error(err)
		}

		// A stop, and a start on a disk that is as full as before.
		f.fill(leave)
		f.stop()
		f.fill(leave)
		f.start()
		if _, r, err := f.storage.Open(t.Context(), "full", "kept", 0, storage.Conditions{}); err != nil {
			t.Errorf("%s: after a start: %v", at, err)
		} else if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		if err := os.Remove(f.filler()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.ballast.Restore(), f.auditBallast.Restore()); err != nil {
			t.Error(err)
		}
	}
	f.stop()
}

// What is deleted is collected where nothing else refers to it, and nowhere else.
func TestDeletesGiveBack(t *testing.T) {
	var later time.Duration
	c := newCloudWith(t, func(cfg *Config) { cfg.Now = func() time.Time { return time.Now().Add(later) } })
	ctx := t.Context()
	if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: "some", Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	put := func(name, content string) blob.Digest {
		t.Helper()
		o, err := c.storage.Put(ctx, storage.Insert{Bucket: "some", Name: name}, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return o.Digest
	}
	remove := func(name string) {
		t.Helper()
		if err := c.storage.Delete(ctx, "some", name, 0, storage.Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	there := func(d blob.Digest) bool {
		t.Helper()
		_, err := c.blobs.Stat(ctx, d)
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	collect := func() {
		t.Helper()
		if err := c.garbage.CollectReleased(ctx, true); err != nil {
			t.Fatal(err)
		}
	}

	one := put("one", "the same")
	put("two", "the same")
	three := put("three", "another")
	replaced := put("four", "old")
	put("four", "new")
	held := put("five", "held")
	for _, name := range []string{"one", "three", "five"} {
		remove(name)
	}
	collect()
	if !there(three) || !there(replaced) {
		t.Error("what is younger than a moment went: somebody may be about to name it")
	}
	release, err := c.blobs.Hold(ctx, held)
	if err != nil {
		t.Fatal(err)
	}
	later = 2 * garbage.Grace
	collect()
	for name, want := range map[blob.Digest]bool{one: true, three: false, replaced: false, held: true} {
		if there(name) != want {
			t.Errorf("%s is there = %t, want %t", name, !want, want)
		}
	}
	remove("two")
	release()
	later += 2 * garbage.Grace
	collect()
	if there(one) || there(held) {
		t.Error("what nothing refers to any more is still there")
	}
}

// What is unpacked of an image goes with the image and what runs it, and so do its blobs; what another image has stays.
func TestUnpackedImagesGiveBack(t *testing.T) {
	var later time.Duration
	c := newCloudWith(t, func(cfg *Config) { cfg.Now = func() time.Time { return time.Now().Add(later) } })
	ctx := t.Context()
	if _, err := c.artifacts.CreateRepository(ctx, artifacts.Repository{
		Name:   resource.Repository("giggle", "europe-north1", "docker"),
		Format: artifacts.Docker,
	}); err != nil {
		t.Fatal(err)
	}
	layer := func(name string) oci.Layer {
		t.Helper()
		l, err := c.images.AddLayer(ctx, []oci.File{{Path: "/" + name, Mode: 0o644, Data: []byte(name)}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	base := layer("base")
	const host = "europe-north1-docker.pkg.dev/giggle/docker/"
	unpacked := make(map[string]oci.Image)
	for _, name := range []string{"gone", "stays"} {
		digest, _, err := c.images.Assemble(ctx, []oci.Layer{base, layer(name)}, v1.ConfigFile{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.artifacts.Push(ctx, host+name+":1", digest); err != nil {
			t.Fatal(err)
		}
		if unpacked[name], err = c.images.Unpack(ctx, digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.images.Close(); err != nil { // all is on disk, and marked
		t.Fatal(err)
	}
	image := func(name string) artifacts.Image {
		return artifacts.Image{Repository: resource.Repository("giggle", "europe-north1", "docker"), Path: name}
	}
	if _, err := c.artifacts.DeletePackage(ctx, image("gone")); err != nil {
		t.Fatal(err)
	}
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	top := unpacked["gone"].Layers[1]
	if err := c.garbage.CollectReleased(ctx, true); err != nil || !there(top) {
		t.Errorf("what a push may count on went at once: %v", err)
	}
	later = 2 * garbage.PushGrace
	if err := c.garbage.CollectReleased(ctx, true); err != nil {
		t.Error(err)
	}
	if there(top) {
		t.Error("what was unpacked of a deleted image is still there")
	}
	if _, err := c.blobs.Stat(ctx, blob.Digest(unpacked["gone"].Digest)); !fault.Is(err, fault.NotFound) {
		t.Errorf("the manifest of a deleted image: %v", err)
	}
	for _, dir := range unpacked["stays"].Layers {
		if !there(dir) {
			t.Errorf("%s went: another image has it", dir)
		}
	}
	if _, _, err := c.artifacts.ReadManifest(ctx, artifacts.Reference{Image: image("stays"), Tag: "1"}); err != nil {
		t.Error(err)
	}
	if _, err := c.images.Unpack(ctx, unpacked["stays"].Digest); err != nil {
		t.Error(err)
	}
}
