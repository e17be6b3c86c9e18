package cloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/projects"
	"giggle/resource"
	"giggle/storage"
)

// storedOf is what a project's rows add up to, looked at one by one.
func storedOf(t *testing.T, c *Cloud, project string) (n int64) {
	t.Helper()
	ctx := t.Context()
	buckets, _, err := c.storage.Buckets(ctx, project, "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		page, err := c.storage.List(ctx, storage.Query{Bucket: b.Name, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Objects {
			if o.Log == "" { // one that grows counts when it is finished
				n += o.Size
			}
		}
	}
	repositories, err := c.artifacts.Repositories(ctx, resource.Location{Project: project, Location: "-"}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range repositories {
		size, err := c.artifacts.Size(ctx, r.Name)
		if err != nil {
			t.Fatal(err)
		}
		n += size
	}
	return n
}

// What is counted of a project is what it stores, whatever is put, replaced, copied, composed, logged, uploaded,
// pushed, mounted and deleted, and no more than the quota.
func TestStoredBytesAreThoseOfTheRows(t *testing.T) {
	const most, logged = 8_000, 50
	c := newCloudWith(t, func(cfg *Config) { cfg.Quotas = map[string]int{"stored-bytes": most} })
	ctx := t.Context()
	owners := []string{"giggle", "other-project"}
	if _, err := c.projects.Create(ctx, projects.Project{ID: owners[1]}, c.identity.Owner().Member); err != nil {
		t.Fatal(err)
	}
	for _, p := range owners {
		if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: "bucket-of-" + p, Project: p}); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	insert := func() storage.Insert {
		return storage.Insert{Bucket: "bucket-of-" + owners[r.IntN(2)], Name: fmt.Sprint("o", r.IntN(6))}
	}
	content := func() []byte {
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		return b
	}
	image := func() artifacts.Image {
		return artifacts.Image{
			Repository: resource.Repository(owners[r.IntN(2)], "europe-north1", fmt.Sprint("r", r.IntN(2))),
			Path:       fmt.Sprint("i", r.IntN(2)),
		}
	}
	add := func(in resource.Child, b []byte) (blob.Digest, error) {
		info, err := c.blobs.Put(ctx, bytes.NewReader(b), "")
		if err != nil {
			return "", err
		}
		return info.Digest, c.artifacts.AddBlob(ctx, in, info)
	}
	var digests []blob.Digest // of blobs that were pushed
	refused := make(map[string]int)
	steps := map[string]func() error{
		"put": func() error { _, err := c.storage.Put(ctx, insert(), bytes.NewReader(content())); return err },
		"copy": func() error {
			from := insert()
			_, err := c.storage.Copy(ctx, storage.Source{Bucket: from.Bucket, Name: from.Name}, insert(), nil)
			return err
		},
		"compose": func() error {
			to := insert()
			_, err := c.storage.Compose(ctx, to, []storage.Source{{Name: "o1"}, {Name: to.Name}})
			return err
		},
		"delete": func() error {
			in := insert()
			return c.storage.Delete(ctx, in.Bucket, in.Name, 0, storage.Conditions{})
		},
		"update": func() error {
			in := insert()
			_, err := c.storage.UpdateObject(ctx, in.Bucket, in.Name, 0, storage.Conditions{},
				func(a *storage.Attrs) error { a.ContentType = "x"; return nil })
			return err
		},
		"log": func() error {
			l, err := c.storage.CreateLog(ctx, insert())
			if err != nil {
				return err
			}
			_, err = l.Write(make([]byte, logged))
			return errors.Join(err, l.Close(ctx))
		},
		"upload": func() error {
			b := content()
			in := insert()
			u, err := c.storage.BeginUpload(ctx, in, int64(len(b)))
			if err != nil {
				return err
			}
			half := len(b) / 2
			if _, _, err = c.storage.Append(ctx, in.Bucket, u.ID, 0, -1, bytes.NewReader(b[:half]), storage.Sender{}); err == nil &&
				r.IntN(2) == 0 {
				_, _, err = c.storage.Append(ctx, in.Bucket, u.ID, int64(half), -1, bytes.NewReader(b[half:]), storage.Sender{})
				return err
			}
			return errors.Join(err, c.storage.AbortUpload(ctx, in.Bucket, u.ID))
		},
		"repository": func() error {
			_, err := c.artifacts.CreateRepository(ctx,
				artifacts.Repository{Name: image().Repository, Format: artifacts.Docker})
			return err
		},
		"push": func() error {
			i := image()
			config, err := add(i.Repository, []byte(`{}`))
			if err != nil {
				return err
			}
			layer := content()
			d, err := add(i.Repository, layer)
			if err != nil {
				return err
			}
			digests = append(digests, d)
			m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
				"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},
				"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, config, d,
				len(layer))
			_, err = c.artifacts.PutManifest(ctx, i, []string{"t"}, "", "", []byte(m))
			return err
		},
		"mount": func() error {
			if len(digests) == 0 {
				return nil
			}
			return c.artifacts.MountBlob(ctx, image().Repository, image().Repository, digests[r.IntN(len(digests))])
		},
		"delete a blob": func() error {
			if len(digests) == 0 {
				return nil
			}
			return c.artifacts.DeleteBlob(ctx, image().Repository, digests[r.IntN(len(digests))])
		},
		"delete an image": func() error { _, err := c.artifacts.DeletePackage(ctx, image()); return err },
		"delete a repository": func() error {
			_, err := c.artifacts.DeleteRepository(ctx,
				image().Repository)
			return err
		},
		"forget what is loose": func() error {
			_, err := c.artifacts.Forget(ctx,
				time.Now().Add(time.Hour))
			return err
		},
	}
	var names []string
	for name := range steps {
		names = append(names, name)
		if name != "delete a repository" && name != "delete an image" && name != "delete" {
			names = append(names, name, name) // so that the quota is reached
		}
	}
	for i := range 600 {
		name := names[r.IntN(len(names))]
		switch err := steps[name](); fault.CodeOf(errOr(err)) {
		case fault.ResourceExhausted:
			refused[name]++
			if !strings.Contains(err.Error(), "--quota stored-bytes=") || !strings.Contains(err.Error(), "project ") {
				t.Errorf("%s: %v names no flag", name, err)
			}
		case fault.NotFound, fault.AlreadyExists, fault.FailedPrecondition, fault.InvalidArgument, fault.OutOfRange:
		default:
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range owners {
			counted, err := c.stored(ctx, p)
			// a log that has ended is kept
			if want := storedOf(t, c, p); err != nil || counted != want || counted > most+6*logged {
				t.Fatalf("after %d steps, the last of them %s: %d bytes of %s are counted, %v; there are %d of at most %d", i+1, name, counted, p, err, want, most)
			}
			if err := c.incoming.Admit(ctx, p, most-counted); err != nil { // negative where logs have used more
				t.Fatalf("after %s, something is still coming in: %v", name, err)
			}
		}
	}
	for _, name := range []string{"put", "push", "copy"} {
		if refused[name] == 0 {
			t.Errorf("%s was never refused: %v", name, refused)
		}
	}
}

// errOr is err, or what stands for none.
func errOr(err error) error {
	if err == nil {
		return fault.New(fault.NotFound, "nothing")
	}
	return err
}

// endless yields bytes and counts them.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n += int64(len(p))
	return len(p), nil
}

// A project that has all it may have is told so in each protocol, as early as it can be, and hinders nobody else.
func TestProjectAtItsQuota(t *testing.T) {
	const most = 8 << 20
	c := newCloudWith(t, func(cfg *Config) { cfg.Quotas = map[string]int{"stored-bytes": most} })
	ctx := t.Context()
	if _, err := c.projects.Create(ctx, projects.Project{ID: "other-project"}, c.identity.Owner().Member); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"giggle", "other-project"} {
		if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: "bucket-of-" + p, Project: p}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.artifacts.CreateRepository(ctx, artifacts.Repository{
			Name:   resource.Repository(p, "europe-north1", "docker"),
			Format: artifacts.Docker,
		}); err != nil {
			t.Fatal(err)
		}
	}
	token, _, err := c.identity.AccessTokenFor(c.identity.Owner(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, url string, body io.Reader, length int64) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(ctx, method, url, body)
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		c.router.ServeHTTP(w, r)
		return w
	}
	const registry = "https://europe-north1-docker.pkg.dev"
	begin := func(project string) string {
		w := call("POST", registry+"/v2/"+project+"/docker/image/blobs/uploads/", http.NoBody, 0)
		if w.Code != http.StatusAccepted {
			t.Fatalf("begin an upload: %d %s", w.Code, w.Body)
		}
		return registry + w.Header().Get("Location")
	}
	put := func(project string) string {
		return "https://storage.googleapis.com/upload/storage/v1/b/bucket-of-" + project + "/o?uploadType=media&name=x"
	}
	if w := call("POST", put("giggle"), bytes.NewReader(make([]byte, most-1000)), most-1000); w.Code != http.StatusOK {
		t.Fatalf("the first: %d %s", w.Code, w.Body)
	}
	fresh := strings.Replace(put("giggle"), "name=x", "name=y", 1)
	for _, tt := range []struct {
		what, method, url string
		announced         bool
		status            int
		code              string
	}{
		{"an object", "POST", fresh, true, http.StatusRequestEntityTooLarge, "quotaExceeded"},
		{"an object of unknown size", "POST", fresh, false, http.StatusRequestEntityTooLarge, "quotaExceeded"},
		{"a chunk", "PATCH", begin("giggle"), true, http.StatusForbidden, "DENIED"},
		{"a chunk of unknown size", "PATCH", begin("giggle"), false, http.StatusForbidden, "DENIED"},
		{"a whole blob", "POST", registry + "/v2/giggle/docker/image/blobs/uploads/?digest=sha256:" +
			strings.Repeat("0", 64), false, http.StatusForbidden, "DENIED"},
	} {
		body, length := &endless{}, int64(-1)
		if tt.announced {
			length = 64 << 20
		}
		w := call(tt.method, tt.url, io.LimitReader(body, 64<<20), length)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.code) ||
			!strings.Contains(w.Body.String(), "--quota stored-bytes=") {
			t.Errorf("%s: %d %s", tt.what, w.Code, w.Body)
		}
		if limit := int64(2 << 20); body.n > limit || tt.announced && body.n > 0 {
			t.Errorf("%s: %d bytes were read of it", tt.what, body.n)
		}
	}
	// Many uploads that nobody finishes count, too, and no more when they are gone.
	if err := c.storage.Delete(ctx, "bucket-of-giggle", "x", 0, storage.Conditions{}); err != nil {
		t.Fatal(err)
	}
	var begun []string
	refused := 0
	for range 6 {
		at := begin("giggle")
		switch w := call("PATCH", at, bytes.NewReader(make([]byte, 2<<20)), 2<<20); w.Code {
		case http.StatusAccepted:
			begun = append(begun, at)
		case http.StatusForbidden:
			refused++
		default:
			t.Errorf("a chunk: %d %s", w.Code, w.Body)
		}
	}
	if len(begun) != 4 || refused != 2 {
		t.Errorf("of 6 uploads of a quarter each %d were taken and %d refused", len(begun), refused)
	}
	if w := call("POST", put("other-project"), bytes.NewReader(make([]byte, most)), most); w.Code != http.StatusOK {
		t.Errorf("another project, all that it may have: %d %s", w.Code, w.Body)
	}
	if w := call("POST", put("giggle"), bytes.NewReader(make([]byte, 1000)),
		1000); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("beside the uploads: %d %s", w.Code, w.Body)
	}
	if _, err := c.blobs.ExpireUploads(context.WithoutCancel(ctx), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w := call("POST", put("giggle"), bytes.NewReader(make([]byte, most)), most)
	if w.Code != http.StatusOK {
		t.Errorf("after the uploads expired: %d %s", w.Code, w.Body)
	}
	var o struct{ Size string }
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || o.Size != fmt.Sprint(most) {
		t.Errorf("%s, %v", w.Body, err)
	}
	// What replaces as much is admitted although all is used.
	if w := call("POST", put("giggle"), io.LimitReader(&endless{}, most), -1); w.Code != http.StatusOK {
		t.Errorf("a replacement of the same size: %d %s", w.Code, w.Body)
	}
}
