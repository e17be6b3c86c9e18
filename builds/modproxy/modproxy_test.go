package modproxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"giggle/builds/modproxy"
)

// origin is an upstream that counts what it is asked for.
type origin struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string // by path
	status  map[string]int
	asked   []string
}

func newOrigin(t *testing.T, answers map[string]string) *origin {
	o := &origin{answers: answers, status: map[string]int{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	path := r.URL.Path
	o.asked = append(o.asked, path)
	if s := o.status[path]; s != 0 {
		http.Error(w, "not found: says the origin", s)
		return
	}
	body, ok := o.answers[path]
	if !ok {
		http.Error(w, "not found: says the origin", http.StatusNotFound)
		return
	}
	io.WriteString(w, body)
}

func (o *origin) set(path, body string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers[path] = body
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.asked)
}

// fixture is a proxy whose clock the test moves.
type fixture struct {
	t     *testing.T
	dir   string
	later atomic.Int64 // nanoseconds that the clock is ahead
	proxy *modproxy.Proxy
}

func setup(t *testing.T, upstream string, change func(*modproxy.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	cfg := modproxy.Config{
		Dir: f.dir, Upstream: func() string { return upstream }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(f.later.Load())) },
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.proxy, err = modproxy.New(cfg); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) get(path string) (int, string) {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.proxy.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func (f *fixture) want(path string, status int, body string) {
	f.t.Helper()
	if s, b := f.get(path); s != status || !strings.Contains(b, body) {
		f.t.Errorf("%s: %d %q, want %d %q", path, s, b, status, body)
	}
}

func TestVersionsAreKept(t *testing.T) {
	files := map[string]string{
		"/example.com/m/@v/v1.0.0.info": `{"Version":"v1.0.0"}`, "/example.com/m/@v/v1.0.0.mod": "module example.com/m",
		"/example.com/m/@v/v1.0.0.zip":                   "PK",
		"/example.com/!upper/@v/v0.1.0+incompatible.mod": "module example.com/Upper",
	}
	o := newOrigin(t, files)
	f := setup(t, o.URL+"/", nil)
	for range 2 {
		for path, body := range files {
			f.want(path, 200, body)
		}
		f.later.Add(int64(1000 * time.Hour)) // a version never changes
	}
	if o.count() != len(files) {
		t.Errorf("the upstream was asked %d times: %v", o.count(), o.asked)
	}
	o.Close()
	again := setup(t, o.URL, func(c *modproxy.Config) { c.Dir = f.dir })
	for path, body := range files {
		again.want(path, 200, body)
	}
}

// Lists are asked for again when they are old, and used while the upstream is away.
func TestListsAge(t *testing.T) {
	for _, path := range []string{"/m.test/a/@v/list", "/m.test/a/@latest", "/m.test/a/@v/v1.info",
		"/m.test/a/@v/main.info"} {
		t.Run(path, func(t *testing.T) {
			o := newOrigin(t, map[string]string{path: "one"})
			f := setup(t, o.URL, nil)
			f.want(path, 200, "one")
			o.set(path, "two")
			f.want(path, 200, "one")
			f.later.Add(int64(time.Hour))
			f.want(path, 200, "two")
			f.later.Add(int64(2 * time.Hour))
			o.Close()
			f.want(path, 200, "two")
			f.want("/m.test/b/@v/list", 502, "is there a network?")
		})
	}
}

func TestRefusalsPass(t *testing.T) {
	for upstream, want := range map[int]int{404: 404, 410: 404, 403: 403, 401: 403, 500: 502, 429: 502} {
		t.Run(fmt.Sprint(upstream), func(t *testing.T) {
			o := newOrigin(t, map[string]string{})
			o.status["/m.test/a/@v/v1.0.0.mod"] = upstream
			f := setup(t, o.URL, nil)
			text := "says the origin"
			if want == 502 {
				text = fmt.Sprint(upstream)
			}
			f.want("/m.test/a/@v/v1.0.0.mod", want, text)
			o.mu.Lock()
			delete(o.status, "/m.test/a/@v/v1.0.0.mod")
			o.mu.Unlock()
			o.set("/m.test/a/@v/v1.0.0.mod", "module m.test/a")
			f.want("/m.test/a/@v/v1.0.0.mod", 200, "module m.test/a") // a refusal is not kept
		})
	}
}

// A comma leads on after "not found" only, a bar after anything; direct and off end the list (go.dev/ref/mod).
func TestUpstreamLists(t *testing.T) {
	const path = "/m.test/a/@v/v1.0.0.mod"
	none, broken, has := newOrigin(t, map[string]string{}), newOrigin(t, map[string]string{}), newOrigin(t,
		map[string]string{path: "module m.test/a"})
	broken.status[path] = 500
	dead := newOrigin(t, nil)
	dead.Close()
	for _, tc := range []struct {
		list   string
		status int
	}{
		{none.URL + "," + has.URL, 200}, {none.URL + "|" + has.URL, 200}, {broken.URL + "," + has.URL, 502},
		{broken.URL + "|" + has.URL, 200},
		{dead.URL + "," + has.URL, 502}, {dead.URL + "|" + has.URL, 200}, {none.URL + ",direct", 404},
		{has.URL + "/,direct", 200},
		{"off," + has.URL, 404}, {"direct", 404}, {"", 404}, {"ftp://x," + has.URL, 200}, {" " + has.URL + " ", 200},
	} {
		f := setup(t, tc.list, nil)
		if s, b := f.get(path); s != tc.status {
			t.Errorf("%s: %d %q, want %d", tc.list, s, b, tc.status)
		}
	}
}

func TestFileUpstream(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "m.test/a/@v"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "m.test/a/@v/list"), []byte("v1.0.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := setup(t, "file://"+dir, nil)
	f.want("/m.test/a/@v/list", 200, "v1.0.0")
	f.want("/m.test/b/@v/list", 404, "")
}

// Many who want one file share one fetch, and one who leaves takes nobody along.
func TestOneFetch(t *testing.T) {
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	var asked atomic.Int32
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		arrived <- struct{}{}
		<-release
		io.WriteString(w, "zip")
	}))
	t.Cleanup(o.Close)
	f := setup(t, o.URL, nil)
	const path = "/m.test/a/@v/v1.0.0.zip"

	front := httptest.NewServer(f.proxy)
	t.Cleanup(front.Close)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c := &http.Client{Transport: &http.Transport{}}
		req, _ := http.NewRequest("GET", front.URL+path, nil)
		ctx, cancel := contextUntil(t, arrived)
		defer cancel()
		if res, err := c.Do(req.WithContext(ctx)); err == nil {
			res.Body.Close()
			t.Error("the first one should have been gone before the answer")
		}
	}()
	<-gone
	var others sync.WaitGroup
	for range 20 {
		others.Go(func() { f.want(path, 200, "zip") })
	}
	close(release)
	others.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestBounds(t *testing.T) {
	o := newOrigin(t, map[string]string{"/m.test/a/@v/v1.0.0.zip": strings.Repeat("x", 101),
		"/m.test/a/@v/v1.0.1.zip": strings.Repeat("x", 100)})
	f := setup(t, o.URL, func(c *modproxy.Config) { c.MaxFile = 100 })
	f.want("/m.test/a/@v/v1.0.0.zip", 502, "larger than 100 bytes")
	f.want("/m.test/a/@v/v1.0.1.zip", 200, "xxx")
	if left, _ := filepath.Glob(filepath.Join(f.dir, ".fetch-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A body that breaks off is not kept.
func TestBrokenOff(t *testing.T) {
	var asked atomic.Int32
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			return
		}
		io.WriteString(w, "whole")
	}))
	t.Cleanup(o.Close)
	f := setup(t, o.URL, nil)
	f.want("/m.test/a/@v/v1.0.0.zip", 502, "broke off")
	f.want("/m.test/a/@v/v1.0.0.zip", 200, "whole")
}

func TestLeftoversOfACrash(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, ".fetch-123")
	if err := os.WriteFile(half, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	setup(t, "", func(c *modproxy.Config) { c.Dir = dir })
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("half a fetch is still there: %v", err)
	}
}

func TestChecksumDatabase(t *testing.T) {
	answers := map[string]string{
		"/sumdb/sum.golang.org/supported": "", "/sumdb/sum.golang.org/latest": "tree",
		"/sumdb/sum.golang.org/lookup/m.test/a@v1.0.0": "h1:x",
		"/sumdb/sum.golang.org/tile/8/0/x001/234.p/7":  "tile",
	}
	o := newOrigin(t, answers)
	f := setup(t, o.URL, nil)
	for path, body := range answers {
		f.want(path, 200, body)
	}
	if !f.proxy.SumDB(t.Context()) {
		t.Error("the database is there")
	}
}

// Without a network a build must not wait for the checksum database each time.
func TestChecksumDatabaseAway(t *testing.T) {
	o := newOrigin(t, map[string]string{})
	f := setup(t, o.URL, nil)
	for range 3 {
		if f.proxy.SumDB(t.Context()) {
			t.Error("the upstream has no database")
		}
	}
	if o.count() != 1 {
		t.Errorf("asked %d times within a minute", o.count())
	}
	o.set("/sumdb/sum.golang.org/supported", "")
	f.later.Add(int64(2 * time.Minute))
	if !f.proxy.SumDB(t.Context()) {
		t.Error("the database is back")
	}
}

func TestStrangePaths(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, map[string]string{})
	f := setup(t, o.URL, nil)
	for _, path := range []string{
		"/", "/x", "/m.test/a", "/m.test/a/@v/", "/m.test/a/@v/v1.0.0.exe", "/m.test/a/@v/../../x", "/../etc/passwd",
		"/m.test/../../etc/@v/list",
		"/.hidden/a/@v/list", "/Upper.test/a/@v/list", "/m.test//a/@v/list", "/sumdb/", "/sumdb/x", "/sumdb/x/other",
		"/sumdb/../x/latest", "/.fetch-1",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		f.proxy.ServeHTTP(w, r)
		if w.Code != 404 {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
	if o.count() != 0 {
		t.Errorf("the upstream was asked for %v", o.asked)
	}
	w := httptest.NewRecorder()
	f.proxy.ServeHTTP(w, httptest.NewRequest("POST", "/m.test/a/@v/list", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
	// What would be a query or a fragment in a URL stays part of the path.
	f.want("/m.test/a/@v/a%23b.info", 404, "says the origin")
	if o.asked[0] != "/m.test/a/@v/a#b.info" {
		t.Errorf("asked for %q", o.asked[0])
	}
}
