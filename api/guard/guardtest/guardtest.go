// Package guardtest is what stands around an API in its tests: a real store with identities and two projects, and a
// mux behind the real guard.
//
// It serves the tests of the api packages. It has no products of its own and listens nowhere.
package guardtest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/projects"
	"giggle/resource"
	"giggle/rest"
	"giggle/store"
)

// World is a platform's identities and projects. The owner owns both projects; the stranger has a token and no role.
type World struct {
	Store    *store.Store
	Audit    *audit.Log
	IAM      *iam.IAM
	Projects *projects.Projects
	Pages    *resource.Pages
	Project  projects.Project // "giggle"
	Other    projects.Project // "another-project"

	Owner, Stranger string // tokens

	host string
	mux  *rest.Mux
}

// New opens a world, with policies on some kinds of resources.
func New(t testing.TB, governed ...iam.Governed) *World {
	t.Helper()
	// Every write has a time of its own, so that an order by time is one.
	var ticks atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"), now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &World{Store: st}
	if w.Audit, err = audit.Open(audit.Config{Dir: filepath.Join(t.TempDir(),
		"audit"), Now: now, Journal: st}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Audit.Close() })
	if w.IAM, err = iam.New(t.Context(), iam.Config{
		Store:    st,
		Owner:    "you@giggle.test",
		Now:      time.Now,
		Governed: governed,
	}); err != nil {
		t.Fatal(err)
	}
	if w.Projects, err = projects.New(t.Context(),
		projects.Config{Store: st, Now: time.Now, Created: w.IAM.CreateDefaults}); err != nil {
		t.Fatal(err)
	}
	w.Pages = resource.NewPages(w.IAM.PageKey(), time.Now)
	for id, p := range map[string]*projects.Project{"giggle": &w.Project, "another-project": &w.Other} {
		if *p, err = w.Projects.Create(t.Context(), projects.Project{ID: id}, w.IAM.Owner().Member); err != nil {
			t.Fatal(err)
		}
	}
	w.Owner, w.Stranger = w.Token(t, w.IAM.Owner()), w.Token(t, iam.User("stranger@giggle.test"))
	return w
}

// Token makes an access token of a principal.
func (w *World) Token(t testing.TB, who iam.Principal) string {
	t.Helper()
	token, _, err := w.IAM.AccessToken(who, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Guard is the real guard over the world. It finds service accounts, and no bucket but "a-bucket" in project giggle.
func (w *World) Guard() *guard.Guard {
	return guard.New(guard.Config{
		Identity: w.IAM,
		Projects: w.Projects,
		Audit:    w.Audit,
		Log:      slog.New(slog.DiscardHandler),
		Find: func(ctx context.Context, collection, id string) (project, canonical string, err error) {
			if collection == "buckets" && id == "a-bucket" {
				return "giggle", id, nil
			}
			if collection != "serviceAccounts" {
				return "", "", fault.New(fault.NotFound, "The specified bucket does not exist.")
			}
			return w.IAM.AccountNames(ctx, id)
		},
	})
}

// Serve builds the mux that Call calls.
func (w *World) Serve(t testing.TB, host, service string, rules guard.Rules, register func(*rest.Mux)) {
	t.Helper()
	w.ServeAPI(t, guard.API{Host: host, Service: service, Rules: rules}, register)
}

// ServeAPI is Serve for an API with more to say.
func (w *World) ServeAPI(t testing.TB, guarded guard.API, register func(*rest.Mux)) {
	t.Helper()
	w.host = guarded.Host
	chain, err := w.Guard().Chain(guarded)
	if err != nil {
		t.Fatal(err)
	}
	w.mux = rest.NewMux(w.host, rest.Options{
		NewID:        uuid.NewString,
		Admit:        chain.Admit,
		Interceptors: chain.Interceptors(),
	})
	register(w.mux)
	if err := w.mux.Build(); err != nil {
		t.Fatal(err)
	}
}

// Handler is the mux.
func (w *World) Handler() http.Handler { return w.mux }

// Raw sends a request and returns the status and the answer as it is.
func (w *World) Raw(t testing.TB, token, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "https://"+w.host+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// Call sends a request as the owner and decodes the answer, which must be a JSON object and have the status.
func (w *World) Call(t testing.TB, method, path, body string, status int) map[string]any {
	t.Helper()
	return w.CallAs(t, w.Owner, method, path, body, status)
}

// CallAs sends a request with a token, or with none; headers are name, value, …
func (w *World) CallAs(t testing.TB, token, method, path, body string, status int, headers ...string) map[string]any {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "https://"+w.host+path, in)
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	if rec.Code != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, rec.Code, status, rec.Body)
	}
	// gcloud's apitools can't read null, neither as the body nor where a list is expected.
	if b := rec.Body.Bytes(); bytes.Contains(b, []byte(": null")) || bytes.Contains(b, []byte(":null")) {
		t.Errorf("%s %s answers with a null: %s", method, path, b)
	}
	var out map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || out == nil {
		t.Fatalf("%s %s: not a JSON object (%v): %s", method, path, err, rec.Body)
	}
	return out
}

// Reason is the reason in an error's ErrorInfo, or "".
func Reason(answer map[string]any) string {
	e, _ := answer["error"].(map[string]any)
	details, _ := e["details"].([]any)
	for _, d := range details {
		if m, ok := d.(map[string]any); ok && m["reason"] != nil {
			s, _ := m["reason"].(string)
			return s
		}
	}
	return ""
}

// Field is the path of the first field that an error names, or "".
func Field(answer map[string]any) string {
	e, _ := answer["error"].(map[string]any)
	details, _ := e["details"].([]any)
	for _, d := range details {
		m, _ := d.(map[string]any)
		if v, _ := m["fieldViolations"].([]any); len(v) > 0 {
			f, _ := v[0].(map[string]any)
			s, _ := f["field"].(string)
			return s
		}
	}
	return ""
}

// Names is one string field of each element of a list in an answer, in order.
func Names(answer map[string]any, list, field string) []string {
	var out []string
	all, _ := answer[list].([]any)
	for _, x := range all {
		m, _ := x.(map[string]any)
		s, _ := m[field].(string)
		out = append(out, s)
	}
	return out
}
