package giggle_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging"
	"giggle/resource"
)

// identity lets everybody read the logs of one project.
type identity struct{ giggle.Identity }

func (identity) Authorize(_ context.Context, _ iam.Principal, permission, resource string) error {
	if permission == "logging.logEntries.list" && resource == "projects/giggle" {
		return nil
	}
	return fault.New(fault.PermissionDenied, "no %s on %s", permission, resource)
}

func serve(t *testing.T, l logging.Reader, loads giggle.Top) *httptest.Server {
	t.Helper()
	h := giggle.New(giggle.Config{
		Identity: identity{},
		Log:      l,
		Loads:    func() giggle.Top { return loads },
		Projects: func() []string { return []string{"giggle", "other"} },
		Caller:   func(int) (iam.Principal, error) { return iam.User("you@giggle.test"), nil },
	}).Handler()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func entry(n int) logging.Entry {
	return logging.Entry{
		Project: "giggle",
		Log:     logging.Stdout,
		Time:    time.Unix(int64(1_800_000_000+n), 0),
		Text:    fmt.Sprint(n),
		Resource: logging.Revision(resource.Revision{Service: resource.Service("giggle", "europe-north1",
			"jokes"), ID: "jokes-1"}),
	}
}

func TestLogs(t *testing.T) {
	l := logging.NewRing(100, 1<<20)
	for n := range 60 {
		l.Append(entry(n))
	}
	build := entry(0)
	build.Resource, build.Text = logging.Build("giggle", "b1", ""), "Step #0"
	l.Append(build)
	s := serve(t, l, giggle.Top{})
	for _, tt := range []struct {
		query string
		code  int
		lines int
		text  string
	}{
		{"project=giggle", 200, 50, `"textPayload":"59"`}, {"project=giggle&limit=0", 200, 60, `"textPayload":"0"`},
		{"project=giggle&limit=1&service=jokes", 200, 1, `"59"`},
		{"project=giggle&service=other", 200, 0, ""}, {"project=giggle&severity=error", 200, 0, ""},
		{"project=giggle&limit=0&region=europe-north1&revision=jokes-1", 200, 60, `"textPayload":"0"`},
		{"project=giggle&limit=0&region=us-central1", 200, 0, ""},
		{"project=giggle&limit=0&build=b1", 200, 1, `"textPayload":"Step #0"`}, {"project=giggle&build=b2", 200, 0, ""},
		{"project=other&build=b1", 403, 1, "logging.logEntries.list"},
		{"", 400, 1, "project"}, {"project=other", 403, 1, "logging.logEntries.list"},
		{"project=giggle&limit=-1", 400, 1, "limit"}, {"project=giggle&limit=100001", 400, 1, "limit"},
		{"project=giggle&limit=x", 400, 1, "limit"}, {"project=giggle&severity=loud", 400, 1, "severity"},
		{"project=other&follow=true", 403, 1, "logging.logEntries.list"},
	} {
		res, err := http.Get(s.URL + "/v1/logs?" + tt.query)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tt.code || strings.Count(string(b), "\n") != tt.lines ||
			!strings.Contains(string(b), tt.text) {
			t.Errorf("%s = %d %s, %v", tt.query, res.StatusCode, b, err)
		}
	}
}

func TestLogsAreFollowed(t *testing.T) {
	l := logging.NewRing(100, 1<<20)
	l.Append(entry(1))
	s := serve(t, l, giggle.Top{})
	res, err := http.Get(s.URL + "/v1/logs?project=giggle&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)
	for n := 1; n < 5; n++ {
		b, err := in.ReadBytes('\n')
		var line giggle.LogLine
		if err != nil || json.Unmarshal(b, &line) != nil || line.Entry == nil || line.Entry.Text != fmt.Sprint(n) {
			t.Fatalf("line %d: %s, %v", n, b, err)
		}
		l.Append(entry(n + 1))
	}
}

// broken is a log that fails after so many entries.
type broken struct{ after int }

func (l broken) Read(context.Context, logging.Filter) iter.Seq2[logging.Entry, error] {
	return func(yield func(logging.Entry, error) bool) {
		for n := range l.after {
			if !yield(entry(n), nil) {
				return
			}
		}
		yield(logging.Entry{}, fault.New(fault.Unavailable, "it is closed"))
	}
}

func (l broken) Follow(ctx context.Context, f logging.Filter) iter.Seq2[logging.Entry, error] {
	return l.Read(ctx, f)
}

// What fails at once has its status; what fails later is said in a line.
func TestLogsThatFail(t *testing.T) {
	for _, tt := range []struct {
		after int
		query string
		code  int
		lines int
	}{{0, "", 503, 1}, {2, "", 200, 3}, {0, "&follow=true", 200, 1}, {2, "&follow=true", 200, 3}} {
		s := serve(t, broken{tt.after}, giggle.Top{})
		res, err := http.Get(s.URL + "/v1/logs?project=giggle" + tt.query)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tt.code || strings.Count(string(b), "\n") != tt.lines ||
			!strings.Contains(string(b), `"message":"it is closed"`) {
			t.Errorf("%+v = %d %s, %v", tt, res.StatusCode, b, err)
		}
	}
}

func TestTop(t *testing.T) {
	s := serve(t, nil, giggle.Top{
		Revisions: []giggle.Load{{Project: "giggle", Revision: "jokes-1"}, {Project: "other", Revision: "secret-1"}},
	})
	for query, want := range map[string]struct {
		code int
		text string
	}{"project=giggle": {200, "jokes-1"}, "project=other": {403, "projects/other"}, "": {403, "projects/other"}} {
		res, err := http.Get(s.URL + "/v1/top?" + query)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != want.code || !strings.Contains(string(b), want.text) ||
			strings.Contains(string(b), "secret") {
			t.Errorf("%q = %d %.200s, %v", query, res.StatusCode, b, err)
		}
	}
}
