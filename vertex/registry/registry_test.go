package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/vertex/library"
	"giggle/vertex/registry"
)

// models is a library of files in a directory.
type models struct {
	dir string
	all []library.Model
}

func (m models) Get(_ context.Context, project, name string) (library.Model, error) {
	for _, x := range m.all {
		if x.Project == project && x.Name == name {
			return x, nil
		}
	}
	return library.Model{}, fault.New(fault.NotFound, "none")
}

func (m models) List(_ context.Context, project string) (out []library.Model, err error) {
	for _, x := range m.all {
		if x.Project == project {
			out = append(out, x)
		}
	}
	return out, nil
}

func (m models) Path(x library.Model) string { return filepath.Join(m.dir, x.Name) }

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

const weights = "0123456789 the weights"

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	m := models{dir: t.TempDir()}
	for project, name := range map[string]string{"giggle": "gemma3:4b", "other": "secret:1b"} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(weights+project), 0o600); err != nil {
			t.Fatal(err)
		}
		m.all = append(m.all, library.Model{
			Project:      project,
			Name:         name,
			Source:       "giggle-tiny-1",
			Title:        "giggle-tiny-1",
			Digest:       digest([]byte(weights + project)),
			Size:         int64(len(weights + project)),
			Added:        time.Unix(1_800_000_000, 0),
			Architecture: "llama",
			Parameters:   918_656,
			Template:     "{% <|im_start|> %}",
		})
	}
	latest := m.all[0]
	latest.Project, latest.Name = "giggle", "plain"
	m.all = append(m.all, latest)
	s := httptest.NewServer(registry.New(registry.Config{
		Library: m,
		Project: "giggle",
		Threads: 3,
		Log:     slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

type descriptor struct {
	MediaType, Digest string
	Size              int64
}

// A pull as Ollama makes it: the manifest, then each blob's size, its address, and its parts.
func TestPull(t *testing.T) {
	s := serve(t)
	res, body := get(t, "GET", s.URL+"/v2/library/gemma3/manifests/4b", "Accept",
		"application/vnd.docker.distribution.manifest.v2+json")
	var m struct {
		SchemaVersion int
		MediaType     string
		Config        descriptor
		Layers        []descriptor
	}
	if err := json.Unmarshal(body, &m); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %s, %v", res.Status, body, err)
	}
	if m.SchemaVersion != 2 || res.Header.Get("Content-Type") != "application/vnd.docker.distribution.manifest.v2+json" || res.Header.Get("Docker-Content-Digest") != digest(body) {
		t.Errorf("%s, %v", body, res.Header)
	}
	if _, again := get(t, "GET", s.URL+"/v2/library/gemma3/manifests/4b"); !bytes.Equal(again, body) {
		t.Error("the same model has another manifest the second time")
	}
	said := map[string]string{}
	for _, l := range append(m.Layers, m.Config) {
		at := s.URL + "/v2/library/gemma3/blobs/" + l.Digest
		if res, _ := get(t, "HEAD", at); res.StatusCode != 200 || res.ContentLength != l.Size {
			t.Errorf("HEAD of %s: %s, %d bytes of %d", l.MediaType, res.Status, res.ContentLength, l.Size)
		}
		res, whole := get(t, "GET", at)
		if to, err := res.Location(); err != nil || to.String() != at { // Ollama fails without
			t.Errorf("the parts of %s are at %v, %v", l.MediaType, to, err)
		}
		if digest(whole) != l.Digest || int64(len(whole)) != l.Size {
			t.Errorf("%s has %d bytes of digest %s", l.MediaType, len(whole), digest(whole))
		}
		res, part := get(t, "GET", at, "Range", "bytes=3-6")
		if res.StatusCode != 206 || !bytes.Equal(part, whole[3:7]) {
			t.Errorf("a part of %s: %s %q", l.MediaType, res.Status, part)
		}
		if res, _ := get(t, "GET", at, "Range", "bytes=100000-"); res.StatusCode != 416 {
			t.Errorf("a part behind the end of %s: %s", l.MediaType, res.Status)
		}
		said[l.MediaType] = string(whole)
	}
	for mediaType, want := range map[string]string{
		"application/vnd.ollama.image.model":             weights,
		"application/vnd.ollama.image.template":          "{{ range .Messages }}<|im_start|>",
		"application/vnd.ollama.image.params":            `{"num_thread":3,"stop":["`,
		"application/vnd.ollama.image.license":           "File: giggle-tiny-1 (sha256:",
		"application/vnd.docker.container.image.v1+json": `"model_type":"919K"`,
	} {
		if !strings.Contains(said[mediaType], want) {
			t.Errorf("%s: %q, want %q in it", mediaType, said[mediaType], want)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	s := serve(t)
	other := digest([]byte(weights + "other"))
	for _, tt := range []struct {
		method, path string
		code         int
		text         string
	}{
		{"GET", "/v2/", 200, "{}"},
		{"GET", "/v2/library/plain/manifests/latest", 200, "schemaVersion"},
		{"GET", "/v2/library/plain/manifests/1b", 400, "plain:1b"},
		{"GET", "/v2/library/gemma3/manifests/12b", 400, "giggle models add FILE.gguf --as gemma3:12b"},
		{"GET", "/v2/library/secret/manifests/1b", 400, "MANIFEST_UNKNOWN"}, // of another project
		{"GET", "/v2/library/secret/blobs/" + other, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/library/gemma3/blobs/" + other, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/somebody/gemma3/blobs/" + digest([]byte(weights+"giggle")), 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/somebody/gemma3/manifests/4b", 400, "without a namespace"},
		{"GET", "/v2/library/..%2f..%2fetc/manifests/passwd", 400, "MANIFEST_UNKNOWN"},
		{"GET", "/v2/library/gemma3/blobs/sha256:" + strings.Repeat("0", 64), 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/library/gemma3/blobs/..%2f..%2fsecret:1b", 404, "BLOB_UNKNOWN"},
		{"GET", "/elsewhere", 404, "NOT_FOUND"},
		{"POST", "/v2/library/gemma3/blobs/uploads/", 405, "giggle models add"},
		{"PUT", "/v2/library/gemma3/manifests/4b", 405, "UNSUPPORTED"},
		{"DELETE", "/v2/library/gemma3/manifests/4b", 405, "UNSUPPORTED"},
	} {
		res, body := get(t, tt.method, s.URL+tt.path)
		if res.StatusCode != tt.code || !strings.Contains(string(body), tt.text) {
			t.Errorf("%s %s: %s %s, want %d and %q", tt.method, tt.path, res.Status, body, tt.code, tt.text)
		}
	}
}
