package registry

import (
	"strings"
	"testing"
	"time"

	"giggle/artifacts"
)

func TestParseRoute(t *testing.T) {
	for path, want := range map[string]route{
		"/v2/p/r/i/blobs/sha256:00":          {blobNoun, "p/r/i", "sha256:00"},
		"/v2/p/r/i/blobs/uploads":            {uploadsNoun, "p/r/i", ""},
		"/v2/p/r/i/blobs/uploads/":           {uploadsNoun, "p/r/i", ""},
		"/v2/p/r/i/blobs/uploads/ABC":        {uploadNoun, "p/r/i", "ABC"},
		"/v2/p/r/a/b/manifests/v1":           {manifestNoun, "p/r/a/b", "v1"},
		"/v2/p/r/manifests/manifests/latest": {manifestNoun, "p/r/manifests", "latest"},
		"/v2/p/r/blobs/uploads/tags/list":    {tagsNoun, "p/r/blobs/uploads", ""},
		"/v2/p/r/i/referrers/sha256:00":      {referrersNoun, "p/r/i", "sha256:00"},
	} {
		if got, ok := parseRoute(path); !ok || got != want {
			t.Errorf("parseRoute(%s) = %+v, %t; want %+v", path, got, ok, want)
		}
	}
	for _, path := range []string{
		"", "/", "/v1/p/r/i/tags/list", "/v2/", "/v2/tags/list", "/v2/manifests/v1", "/v2/p/r/i/manifests/",
		"/v2/p/r/i", "/v2/p/r/i/tags/other",
		"/v2//blobs/uploads/", "/v2/p/uploads/ABC", "/v2/" + strings.Repeat("a/", 600) + "tags/list",
	} {
		if got, ok := parseRoute(path); ok {
			t.Errorf("parseRoute(%.40s) = %+v; want none", path, got)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, s := range []string{"/v2/p/r/i/blobs/uploads/", "/v2/p/r/i/blobs/uploads/X",
		"/v2/giggle/my-repo/a/b/manifests/sha256:0", "/v2/p/r/../tags/list", "/v2/p/r/i/referrers/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, ok := parseRoute(path)
		if !ok {
			return
		}
		if r.name == "" || strings.Contains(r.ref, "/") {
			t.Fatalf("parseRoute(%q) = %+v", path, r)
		}
		image, err := artifacts.ParseImage("europe-north1", r.name)
		if err != nil {
			return
		}
		// A name that is taken is clean, and says the same again.
		if again := image.Repository.Project + "/" + image.Repository.ID + "/" + image.Path; again != r.name ||
			strings.Contains(r.name, "..") || strings.ContainsAny(r.name, "\"\\ \x00%") {
			t.Fatalf("%q became %q", r.name, again)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(`{"private_key":"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n","private_key_id":"k","client_email":"a"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := assertion(b, time.Unix(0, 0))
		if (err == nil) != (strings.Count(raw, ".") == 2) {
			t.Errorf("assertion(%q) = %q, %v", b, raw, err)
		}
	})
}
