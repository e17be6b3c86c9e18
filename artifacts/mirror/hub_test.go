package mirror_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hub is a registry that behaves like Docker Hub: a token for each repository, limits of requests, indexes, and layers
// that lie at another host.
type hub struct {
	*httptest.Server
	storage *httptest.Server // where layers are
	host    string

	mu       sync.Mutex
	blobs    map[string][]byte
	tags     map[string]string // "library/ubuntu:24.04" to a digest
	user     string            // who may pull, with the password "secret"; "" for all
	asked    map[string]int    // requests by "METHOD kind", kind being token, manifests or blobs
	sent     int64             // bytes of layers
	leaked   string            // an Authorization header that the storage got
	manifest func(w http.ResponseWriter, r *http.Request) bool
	layer    func(w http.ResponseWriter, r *http.Request, content []byte) bool
}

func newHub(t testing.TB) *hub {
	h := &hub{blobs: map[string][]byte{}, tags: map[string]string{}, asked: map[string]int{}}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	h.storage = httptest.NewServer(http.HandlerFunc(h.store))
	t.Cleanup(func() { h.storage.Close(); h.Server.Close() })
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (h *hub) put(b []byte) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blobs[digestOf(b)] = b
	return digestOf(b)
}

func (h *hub) count(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[what]
}

// image puts an image with one file into the registry, and returns the digests of its manifest and its layer.
func (h *hub) image(t *testing.T, arch, text string) (manifest, layer string) {
	t.Helper()
	var raw, packed bytes.Buffer
	w := tar.NewWriter(&raw)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(raw.Bytes())
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{"Cmd":["/file"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		arch, digestOf(raw.Bytes()))
	layer = h.put(packed.Bytes())
	m := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
			"digest": h.put([]byte(config))},
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
			"size": packed.Len(), "digest": layer}},
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return h.put(b), layer
}

// index puts an index over images of two platforms, and returns its digest and that of our image.
func (h *hub) index(t *testing.T, arch, text string) (index, manifest string) {
	t.Helper()
	manifest, _ = h.image(t, arch, text)
	other, _ := h.image(t, "s390x", text)
	entry := func(digest, arch string) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
			"size": len(h.blobs[digest]), "platform": map[string]string{"os": "linux", "architecture": arch}}
	}
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": []any{entry(other, "s390x"), entry(manifest, arch)}})
	if err != nil {
		t.Fatal(err)
	}
	return h.put(b), manifest
}

func (h *hub) tag(name, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tags[name] = digest
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	kind := "ping"
	for _, k := range []string{"token", "manifests", "blobs"} {
		if strings.Contains(r.URL.Path, "/"+k) {
			kind = k
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[r.Method+" "+kind]++
	user, password, _ := r.BasicAuth()
	known := user == h.user && password == "secret"
	if kind == "token" {
		if user != "" && !known {
			http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"token":"of %s for %s"}`, user, r.URL.Query().Get("scope"))
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repo, reference := "", ""
	if at := strings.LastIndex(path, "/"+kind+"/"); at > 0 {
		repo, reference = path[:at], path[at+len(kind)+2:]
	}
	want := fmt.Sprintf("Bearer of %s for ", h.user)
	if auth := r.Header.Get("Authorization"); !strings.HasPrefix(auth, want) || repo != "" && !strings.Contains(auth, repo) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="hub"`, h.URL))
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
		return
	}
	switch kind {
	case "manifests":
		if h.manifest != nil && h.manifest(w, r) {
			return
		}
		digest := reference
		if !strings.Contains(reference, ":") {
			digest = h.tags[repo+":"+reference]
		}
		b, ok := h.blobs[digest]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
			return
		}
		var probe struct {
			MediaType string `json:"mediaType"`
		}
		_ = json.Unmarshal(b, &probe) // what is no manifest has none
		w.Header().Set("Content-Type", probe.MediaType)
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		_, _ = w.Write(b)
	case "blobs":
		if _, ok := h.blobs[reference]; !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		http.Redirect(w, r, h.storage.URL+"/"+reference, http.StatusTemporaryRedirect)
	}
}

// store is the host where layers are.
func (h *hub) store(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	if a := r.Header.Get("Authorization"); a != "" {
		h.leaked = a
	}
	b, layer := h.blobs[strings.TrimPrefix(r.URL.Path, "/")], h.layer
	h.mu.Unlock()
	if layer != nil && layer(w, r, b) {
		return
	}
	counted := &countingWriter{ResponseWriter: w}
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(b))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent += counted.n
}

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}
