package gateway_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
	"giggle/gateway"
	"giggle/logging"
	"giggle/run"
)

// recorder keeps entries and hands them on.
type recorder chan logging.Entry

func (r recorder) Append(e logging.Entry) { r <- e }

func TestEntries(t *testing.T) {
	a, g, front := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/abort":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/slow":
			<-r.Context().Done()
		case "/stuck":
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprint(w, "knock knock")
		}
	})
	type answer struct {
		status   int
		severity logging.Severity
		note     string
	}
	ok := answer{200, logging.Info, ""}
	var resource *logging.Resource
	for _, tt := range []struct {
		name, method, path, body string
		err                      error
		cold                     bool
		want                     answer
		bytes                    int64 // of the answer's body, at least
	}{
		{"an answer", "GET", "/a?b=c", "", nil, false, ok, 11},
		{"a body", "POST", "/", "0123456789", nil, false, ok, 11},
		{"it waited", "GET", "/", "", nil, true, ok, 11},
		{"missing", "GET", "/missing", "", nil, false, answer{404, logging.Warning, ""}, 10},
		{"no instance", "GET", "/", "", fault.New(fault.Unavailable, "x"), false, answer{503, logging.Error,
			"no available instance"}, 10},
		{"too many", "GET", "/", "", fault.New(fault.ResourceExhausted, "x"), false, answer{429, logging.Warning,
			"no available instance"}, 14},
		{"cut off by the app", "GET", "/abort", "", nil, false, ok, 4},
		{"out of time", "GET", "/slow", "", nil, false, answer{504, logging.Error, "maximum request timeout"}, 10},
		{"out of time in the middle", "GET", "/stuck", "", nil, false, answer{200, logging.Info,
			"maximum request timeout"}, 4},
	} {
		a.err, a.cold = tt.err, tt.cold
		r, err := http.NewRequest(tt.method, front.URL+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("User-Agent", "curl/9")
		r.Header.Set("Referer", "https://a.test/")
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
		if res, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		got := <-a.records
		q := got.Request
		if got.Time.IsZero() || q.Latency <= 0 || q.ResponseSize < tt.bytes+17 ||
			q.RequestSize < int64(len(tt.body))+60 {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if !strings.Contains(got.Text, tt.want.note) || (tt.want.note == "") != (got.Text == "") {
			t.Errorf("%s: says %q, want %q", tt.name, got.Text, tt.want.note)
		}
		want := logging.Entry{
			Project:  "giggle",
			Log:      logging.Requests,
			Time:     got.Time,
			Severity: tt.want.severity,
			Text:     got.Text,
			Resource: logging.Revision(rev("jokes-1").Name),
			Labels:   map[string]string{"instanceId": "i1"},
			Request: &logging.Request{
				Method: tt.method,
				URL: "http://" + host +
					tt.path,
				Protocol:     "HTTP/1.1",
				Status:       tt.want.status,
				Latency:      q.Latency,
				RequestSize:  q.RequestSize,
				ResponseSize: q.ResponseSize,
				UserAgent:    "curl/9",
				Referer:      "https://a.test/",
				RemoteIP:     "127.0.0.1",
			},
			Trace: "0af7651916cd43dd8448eb211c80319c",
			Span:  "b7ad6b7169203331",
		}
		if tt.cold {
			want.Labels["cold_start"] = "true"
		}
		if tt.err != nil {
			want.Labels = nil
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
		if shared := got.Resource; resource != nil && shared != resource {
			t.Errorf("%s: the resource is made for each request", tt.name)
		}
		resource = got.Resource
	}
	stats := g.Stats()
	if len(stats) != 1 || stats[0].Revision != "jokes-1" ||
		stats[0].Requests != [gateway.Classes]uint64{0, 5, 0, 2, 2} || stats[0].InFlight != 0 ||
		stats[0].Latencies.Count() != 9 {
		t.Errorf("stats: %+v", stats)
	}
}

// A client that leaves takes its request along, and the entry says so.
func TestClientLeaves(t *testing.T) {
	arrived, gone := make(chan bool), make(chan bool)
	a, _, front := start(t, true, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-r.Context().Done()
		gone <- true
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := http.DefaultClient.Do(r); err == nil {
		t.Error("there is an answer")
	}
	<-gone // the instance is told
	if got := <-a.records; got.Request.Status != 499 || !strings.Contains(got.Text, "closed the connection") {
		t.Errorf("entry: %+v", got)
	}
}

func TestIngress(t *testing.T) {
	a, g, _ := start(t, true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in") })
	for _, tt := range []struct {
		ingress run.Ingress
		project string // of the instance that calls
		code    int
	}{
		{run.IngressAll, "", 200}, {run.IngressInternal, "", 404}, {run.IngressInternal, "giggle", 200},
		{run.IngressInternal, "other", 404},
		{run.IngressInternalLoad, "", 404}, {run.IngressInternalLoad, "giggle", 200}, {run.IngressAll, "other", 200},
		{"", "", 200},
	} {
		next := route()
		next.Ingress = tt.ingress
		g.Publish(next)
		for _, h := range []string{host, number, "next---" + host, "jokes.localhost"} {
			r := httptest.NewRequest("GET", "http://"+h+"/", nil)
			if tt.project != "" {
				r = r.WithContext(gateway.WithCaller(r.Context(), tt.project))
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if rec := <-a.records; w.Code != tt.code || rec.Request.Status != tt.code ||
				(tt.code == 404) != strings.Contains(rec.Text, "ingress") {
				t.Errorf("%q from %q to %s = %d, entry %+v", tt.ingress, tt.project, h, w.Code, rec)
			}
		}
	}
}

// A change takes effect at once and as a whole, while requests go on.
func TestPublishUnderLoad(t *testing.T) {
	g := gateway.New(gateway.Config{
		Instances: refusing{},
		Invoker:   invoker{true},
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	var wg sync.WaitGroup
	stop := make(chan bool)
	g.Publish(route())
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				w := httptest.NewRecorder()
				g.ServeHTTP(w, httptest.NewRequest("GET", "http://"+host+"/", nil))
				if w.Code != 503 {
					t.Errorf("a host that always was there = %d", w.Code)
					return
				}
			}
		})
	}
	for i := range 500 {
		next := route()
		next.Tags = map[string]run.Revision{fmt.Sprintf("t%d", i): rev("jokes-2")}
		g.Publish(next)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("http://t%d---%s/", i, host), nil))
		if w.Code != 503 {
			t.Errorf("tag %d = %d after it was published", i, w.Code)
		}
	}
	close(stop)
	wg.Wait()
}

// Of many revisions those that have a route are counted on, and the others are not kept for ever.
func TestManyRevisions(t *testing.T) {
	g := gateway.New(gateway.Config{
		Instances: refusing{},
		Invoker:   invoker{true},
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	for i := range 300 {
		next := route()
		next.Targets = []run.RouteTarget{{Revision: rev(fmt.Sprintf("jokes-%d", i+10)), Percent: 100}}
		next.Tags = map[string]run.Revision{"old": rev("jokes-10")}
		g.Publish(next)
		for _, h := range []string{host, "old---" + host} {
			g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://"+h+"/", nil))
		}
	}
	stats := g.Stats()
	if len(stats) > 60 {
		t.Errorf("%d revisions are counted", len(stats))
	}
	for _, s := range stats {
		if s.Revision == "jokes-10" && s.Requests[4] != 301 {
			t.Errorf("what had a route all the time: %+v", s.Requests)
		}
	}
	g.Remove(route().Service)
	if n := len(g.Stats()); n != 0 {
		t.Errorf("%d revisions of a service that is gone", n)
	}
}

func TestQuantiles(t *testing.T) {
	var h gateway.Histogram
	if h.Quantile(0.5) != 0 {
		t.Errorf("of nothing: %v", h.Quantile(0.5))
	}
	for i := range gateway.Buckets - 1 {
		if gateway.Bound(i) >= gateway.Bound(i+1) {
			t.Fatalf("bucket %d ends at %v, the next at %v", i, gateway.Bound(i), gateway.Bound(i+1))
		}
	}
	if gateway.Bound(gateway.Buckets-1) < time.Hour {
		t.Errorf("the last bucket ends at %v: an hour is not in it", gateway.Bound(gateway.Buckets-1))
	}
}
