package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/gateway"
	"giggle/gateway/upstream"
	"giggle/iam"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

const (
	host   = "jokes-abcdefghij-lz.a.run.app"
	number = "jokes-123456789012.europe-north1.run.app"
)

// app is a container as the gateway sees it: every lease leads to one test server.
type app struct {
	transport scale.Transport
	records   recorder
	mu        sync.Mutex
	err       error
	cold      bool
	leased    int
	open      int
	last      string // the revision that was asked for
}

func (a *app) Acquire(_ context.Context, rev run.Revision) (*scale.Lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	a.last = rev.Name.ID
	a.leased++
	a.open++
	return scale.NewLease("i1", a.transport, a.cold, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open--
	}), nil
}

// invoker knows two tokens: one of a caller who may, one of a caller who may not.
type invoker struct{ public bool }

func (v invoker) CheckServiceToken(raw string, hosts, audiences []string) (iam.Claims, error) {
	who, ok := map[string]string{"h.good.sig": "good@giggle.test", "h.other.sig": "other@giggle.test"}[raw]
	if !ok {
		return iam.Claims{}, iam.Unauthenticated("")
	}
	if len(audiences) < 3 || len(hosts) < 2 {
		return iam.Claims{}, fmt.Errorf("audiences = %v, hosts = %v", audiences, hosts)
	}
	return iam.Claims{Claims: jwt.Claims{}, Email: who}, nil
}

func (v invoker) Allowed(p iam.Principal, permission, _ string) bool {
	return permission == "run.routes.invoke" && (v.public || p == iam.User("good@giggle.test"))
}

// refusing has no instance for anybody.
type refusing struct{}

func (refusing) Acquire(context.Context, run.Revision) (*scale.Lease, error) {
	return nil, fault.New(fault.Unavailable, "none")
}

func rev(id string) run.Revision {
	t := run.Template{Timeout: 1, Containers: []run.Container{{Image: "x"}}}
	return run.Revision{
		Name:     resource.Revision{Service: resource.Service("giggle", "europe-north1", "jokes"), ID: id},
		Template: t.WithDefaults(""),
	}
}

func route() run.Route {
	return run.Route{
		Service: resource.Service("giggle", "europe-north1", "jokes"),
		Hosts:   []string{host, number},
		Targets: []run.RouteTarget{{Revision: rev("jokes-1"), Percent: 100}},
		Tags:    map[string]run.Revision{"next": rev("jokes-2")},
	}
}

// start serves a gateway in front of a handler and returns its address.
func start(t *testing.T, public bool, h http.HandlerFunc) (*app, *gateway.Gateway, *httptest.Server) {
	t.Helper()
	backend := httptest.NewServer(h)
	t.Cleanup(backend.Close)
	a := &app{records: make(recorder, 5000), transport: upstream.New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
	}, false, 80)}
	g := gateway.New(gateway.Config{
		Instances: a,
		Invoker:   invoker{public},
		Recorder:  a.records,
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	g.Publish(route())
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	return a, g, front
}

func get(t *testing.T, front *httptest.Server, host string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", front.URL+"/a%2Fb?c=d", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// The services of a project that is marked for deletion are not there, until it is brought back.
func TestServicesOfADeletedProject(t *testing.T) {
	a := &app{transport: upstream.New(func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }, false, 1)}
	var deleted atomic.Bool
	g := gateway.New(gateway.Config{
		Instances: a,
		Invoker:   invoker{true},
		Active:    func(project string) bool { return project != route().Service.Project || !deleted.Load() },
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	g.Publish(route())
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	for _, tt := range []struct {
		deleted bool
		want    int
	}{{false, 503}, {true, 404}, {false, 503}} {
		deleted.Store(tt.deleted)
		if res, _ := get(t, front, route().Hosts[0]); res.StatusCode != tt.want {
			t.Errorf("deleted %v: %d, want %d", tt.deleted, res.StatusCode, tt.want)
		}
	}
}

// The local hosts of a service's tags are not another service's, whatever that one is called.
func TestTagsKeepTheirHosts(t *testing.T) {
	a, g, front := start(t, true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	other := route()
	other.Service, other.Hosts, other.Tags = resource.Service("evil-project", "europe-north1",
		"next---jokes"), []string{"evil.a.run.app"}, nil
	g.Publish(other)
	for range 2 {
		a.last = ""
		if res, _ := get(t, front, "next---jokes.localhost"); res.StatusCode != 200 || a.last != "jokes-2" {
			t.Errorf("next---jokes.localhost leads to %q (%d)", a.last, res.StatusCode)
		}
		g.Publish(route()) // in either order
	}
}

func TestHosts(t *testing.T) {
	a, g, front := start(t, true,
		func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, " ", r.RequestURI) })
	for _, tt := range []struct {
		host, revision string
		code           int
	}{
		{host, "jokes-1", 200}, {number, "jokes-1", 200}, {strings.ToUpper(host) + ".:443", "jokes-1", 200},
		{host + ":443", "jokes-1", 200}, {"JOKES-ABCDEFGHIJ-LZ.a.run.app", "jokes-1", 200},
		{"next---" + host, "jokes-2", 200}, {"other---" + host, "", 404}, {"unknown.a.run.app", "", 404},
		{"jokes.localhost", "jokes-1", 200}, {"jokes.europe-north1.localhost:7180", "jokes-1", 200},
		{"next---jokes.localhost", "jokes-2", 200}, {"jokes.us-east1.localhost", "", 404},
		{"nobody.localhost", "", 404},
	} {
		a.last = ""
		res, body := get(t, front, tt.host)
		if res.StatusCode != tt.code || a.last != tt.revision {
			t.Errorf("%s = %d by %q, want %d by %q", tt.host, res.StatusCode, a.last, tt.code, tt.revision)
		}
		if tt.code == 200 && body != tt.host+" /a%2Fb?c=d" {
			t.Errorf("%s: the app saw %q", tt.host, body)
		}
		if tt.code == 404 && !strings.Contains(body, "The requested URL was not found on this server.") {
			t.Errorf("%s: body %q", tt.host, body)
		}
	}
	if a.open != 0 {
		t.Errorf("%d leases are still out", a.open)
	}
	next := route()
	next.Tags = nil
	g.Publish(next)
	if res, _ := get(t, front, "next---"+host); res.StatusCode != 404 {
		t.Errorf("a tag that is gone = %d", res.StatusCode)
	}
	g.Remove(next.Service)
	if res, _ := get(t, front, host); res.StatusCode != 404 {
		t.Errorf("a service that is gone = %d", res.StatusCode)
	}
}

func TestSplit(t *testing.T) {
	a, g, front := start(t, true, func(http.ResponseWriter, *http.Request) {})
	r := route()
	r.Targets = []run.RouteTarget{{Revision: rev("jokes-1"), Percent: 90}, {Revision: rev("jokes-2"), Percent: 10}}
	g.Publish(r)
	seen := map[string]int{}
	for range 1000 {
		get(t, front, host)
		seen[a.last]++
	}
	// 10 % of 1000, six standard deviations (9.5 each) on both sides.
	if n := seen["jokes-2"]; n < 43 || n > 157 || seen["jokes-1"]+n != 1000 {
		t.Errorf("a split of 90 to 10 sent %v", seen)
	}
}

func TestInvocation(t *testing.T) {
	_, _, front := start(t, false, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "auth=%q serverless=%q", r.Header.Get("Authorization"),
			r.Header.Get("X-Serverless-Authorization"))
	})
	for _, tt := range []struct {
		name   string
		header []string
		code   int
		body   string
	}{
		{"nobody", nil, 403, "Your client does not have permission to get URL"},
		{"who may", []string{"Authorization",
			"Bearer h.good.sig"}, 200, `auth="Bearer h.good.SIGNATURE_REMOVED_BY_GOOGLE" serverless=""`},
		{"who may not", []string{"Authorization", "Bearer h.other.sig"}, 403, "Forbidden"},
		{"forged", []string{"Authorization", "Bearer h.good.bad"}, 401, "Unauthorized"},
		{"basic", []string{"Authorization", "Basic abc"}, 403, "Forbidden"},
		{"the other header", []string{"X-Serverless-Authorization", "Bearer h.good.sig", "Authorization",
			"Bearer mine"}, 200, `auth="Bearer mine" serverless=""`},
		{"the other header wins", []string{"X-Serverless-Authorization", "Bearer x", "Authorization",
			"Bearer h.good.sig"}, 401, "Unauthorized"},
	} {
		res, body := get(t, front, host, tt.header...)
		if res.StatusCode != tt.code || !strings.Contains(body, tt.body) {
			t.Errorf("%s = %d %q, want %d %q", tt.name, res.StatusCode, body, tt.code, tt.body)
		}
		if (res.StatusCode == 401) != strings.Contains(res.Header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%s: WWW-Authenticate = %q", tt.name, res.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestRefusals(t *testing.T) {
	a, _, front := start(t, true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, tt := range []struct {
		err  error
		code int
		body string
	}{
		{fault.New(fault.ResourceExhausted, "x"), 429, "Rate exceeded."},
		{fault.New(fault.Unavailable, "secret detail"), 503, "not available at this time"},
		{context.DeadlineExceeded, 504, "upstream request timeout"},
		{nil, 504, "upstream request timeout"}, // the app does not answer within the revision's second
	} {
		a.err = tt.err
		res, body := get(t, front, host)
		if res.StatusCode != tt.code || !strings.Contains(body, tt.body) || strings.Contains(body, "secret") {
			t.Errorf("%v = %d %q, want %d %q", tt.err, res.StatusCode, body, tt.code, tt.body)
		}
	}
}

func TestHeadersForTheApp(t *testing.T) {
	_, _, front := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "Traceparent", "X-Cloud-Trace-Context",
			"Connection", "Keep-Alive"} {
			fmt.Fprintf(w, "%s: %s\n", name, r.Header.Get(name))
		}
	})
	_, body := get(t, front, host, "X-Forwarded-For", "1.2.3.4", "Keep-Alive", "x", "Traceparent",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	for _, want := range []string{
		"X-Forwarded-For: 1.2.3.4,127.0.0.1\n", "X-Forwarded-Proto: http\n",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
		"X-Cloud-Trace-Context: 0af7651916cd43dd8448eb211c80319c/13235353014750950193;o=1\n", "Keep-Alive: \n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in:\n%s", want, body)
		}
	}
	if _, body := get(t, front, host); !strings.Contains(body, "Traceparent: 00-") {
		t.Errorf("a request without a trace starts none:\n%s", body)
	}
}

func TestStreamsAreNotHeldBack(t *testing.T) {
	next := make(chan bool)
	_, _, front := start(t, true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-End")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
		w.Header().Set("X-End", "yes")
	})
	r, _ := http.NewRequest("GET", front.URL, nil)
	r.Host = host
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := in.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d = %q, %v", i, line, err)
		}
		_, _ = in.ReadString('\n')
		next <- true // only now does the app go on: the event was not buffered
	}
	if _, err := io.ReadAll(in); err != nil || res.Trailer.Get("X-End") != "yes" {
		t.Errorf("the end: %v, trailer %v", err, res.Trailer)
	}
}

func TestUpgrade(t *testing.T) {
	_, _, front := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
			r.Header.Get("Upgrade"))
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("upgrade = %v, %v", res, err)
	}
	fmt.Fprint(conn, "ping\n")
	if line, err := in.ReadString('\n'); err != nil || line != "ping\n" {
		t.Errorf("echo = %q, %v", line, err)
	}
}

func FuzzHost(f *testing.F) {
	a := &app{err: fault.New(fault.Unavailable, "none")}
	g := gateway.New(gateway.Config{
		Instances: a,
		Invoker:   invoker{true},
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	g.Publish(route())
	f.Add("next---jokes.localhost")
	f.Add(host)
	f.Fuzz(func(t *testing.T, h string) {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, &http.Request{
			Method: "GET",
			Host:   h,
			URL:    &url.URL{Path: "/"},
			Header: http.Header{},
			Body:   http.NoBody,
		})
		if w.Code != 404 && w.Code != 503 {
			t.Errorf("%q = %d", h, w.Code)
		}
	})
}
