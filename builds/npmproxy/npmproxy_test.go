package npmproxy_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"giggle/builds/npmproxy"
)

// registry is an upstream with one package; it counts what it is asked.
type registry struct {
	asked atomic.Int64
	down  atomic.Bool
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked.Add(1)
	switch {
	case g.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.EscapedPath() == "/left-pad", r.URL.EscapedPath() == "/@me%2fpad":
		_, _ = fmt.Fprintf(w, `{"name":%q,"accept":%q}`, r.URL.Path, r.Header.Get("Accept"))
	case strings.HasSuffix(r.URL.Path, ".tgz"):
		_, _ = fmt.Fprint(w, "tarball of "+r.URL.Path)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestProxy(t *testing.T) {
	g := &registry{}
	up := httptest.NewServer(g)
	defer up.Close()
	now := time.Now()
	p, err := npmproxy.New(npmproxy.Config{
		Dir:      t.TempDir(),
		Upstream: func() string { return up.URL + "/" },
		Now:      func() time.Time { return now },
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path, accept string) (int, string) {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const short = "application/vnd.npm.install-v1+json"
	for _, c := range []struct {
		what, method, path, accept string
		status                     int
		body                       string
		asked                      int64 // of the upstream, in all
	}{
		{"a document", "GET", "/left-pad", "*/*", 200, `"accept":"application/json"`, 1},
		{"again", "GET", "/left-pad", "*/*", 200, `"name":"/left-pad"`, 1},
		{"the short form is another", "GET", "/left-pad", short + "; q=1.0, application/json", 200, `"accept":"` + short + `"`, 2},
		{"a scope", "GET", "/@me%2fpad", "*/*", 200, `"name":"/@me/pad"`, 3},
		{"a tarball", "GET", "/left-pad/-/left-pad-1.0.0.tgz", "*/*", 200, "tarball of /left-pad/-/left-pad-1.0.0.tgz", 4},
		{"a tarball again", "GET", "/left-pad/-/left-pad-1.0.0.tgz", "*/*", 200, "tarball of", 4},
		{"none", "GET", "/no-such", "*/*", 404, "There is no package", 5},
		{"an audit", "POST", "/-/npm/v1/security/advisories/bulk", "*/*", 405, "reading only", 5},
		{"no package", "GET", "/-/whoami/x/y", "*/*", 404, "Not found", 5},
		{"a way up", "GET", "/left-pad/-/..%2f..%2fx.tgz", "*/*", 404, "Not found", 5},
	} {
		status, body := get(c.method, c.path, c.accept)
		if status != c.status || !strings.Contains(body, c.body) || g.asked.Load() != c.asked {
			t.Errorf("%s: %d %q, upstream asked %d times; want %d, %q, %d", c.what, status, body, g.asked.Load(),
				c.status, c.body, c.asked)
		}
	}

	// Without the registry, what was fetched is still there, old or not; what was not says so.
	g.down.Store(true)
	now = now.Add(time.Hour)
	if status, body := get("GET", "/left-pad", "*/*"); status != 200 {
		t.Errorf("an old document without the registry: %d %s", status, body)
	}
	if status, body := get("GET", "/other", "*/*"); status != 502 || !strings.Contains(body, "can't be reached") {
		t.Errorf("a new document without the registry: %d %s", status, body)
	}
}

func TestUpstreamIsChecked(t *testing.T) {
	for upstream, ok := range map[string]bool{"off": true, "https://registry.npmjs.org/": true, "file:///etc": false,
		"": false, "registry": false} {
		err := npmproxy.CheckUpstream(upstream)
		if (err == nil) != ok {
			t.Errorf("upstream %q: %v", upstream, err)
		}
	}
}
