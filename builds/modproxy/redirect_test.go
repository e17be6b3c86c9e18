package modproxy

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A proxy that answers with a redirect has nobody read this machine's files.
func TestRedirectsStayOnHTTP(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the machine's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"file://" + secret, "FILE://" + secret, "ftp://127.0.0.1/x", "gopher:x"} {
		upstream := httptest.NewServer(http.RedirectHandler(to, http.StatusFound))
		p, err := New(Config{Dir: t.TempDir(), Upstream: func() string { return upstream.URL }})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "http://modproxy/example.test/m/@v/v1.0.0.mod", nil))
		if w.Code == http.StatusOK || strings.Contains(w.Body.String(), "the machine's") {
			t.Errorf("a redirect to %s is followed: %d %s", to, w.Code, w.Body)
		}
		upstream.Close()
	}
}
