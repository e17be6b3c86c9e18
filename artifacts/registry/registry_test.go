package registry_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/google/uuid"

	"giggle/artifacts"
	"giggle/artifacts/registry"
	"giggle/blob"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/resource"
	"giggle/store"
)

const host = "europe-north1-docker.pkg.dev"

// world is a registry behind TLS, with a project whose owner, reader and stranger are known by tokens.
type world struct {
	*artifacts.Artifacts
	blobs    *blob.Dir
	server   *httptest.Server
	identity *iam.IAM
	owner    string // access tokens
	reader   string
	stranger string
	full     error // what Admit says
	audit    *audit.Log
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	st, err := store.Open(ctx, filepath.Join(dir, "state.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{}
	if w.blobs, err = blob.Open(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if w.identity, err = iam.New(ctx, iam.Config{Store: st, Owner: "you@giggle.test", Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	w.owner, w.reader, w.stranger = w.token(t, "you"), w.token(t, "reader"), w.token(t, "stranger")
	for _, p := range []string{"giggle", "other-project"} {
		w.grant(t, "projects/"+p, "roles/owner", "user:you@giggle.test")
	}
	w.Artifacts = artifacts.New(artifacts.Config{Store: st, Blobs: w.blobs, NewID: uuid.NewString})
	for _, id := range []string{"my-repo", "second"} {
		w.repository(t, id)
	}
	if w.audit, err = audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.audit.Close() })
	handler := registry.New(registry.Config{
		Artifacts: w.Artifacts,
		Blobs:     w.blobs,
		Identity:  authorizer{w.identity},
		Project: func(ref string) (resource.Project, error) {
			switch ref {
			case "giggle", "123456789012":
				return resource.Project{ID: "giggle", Number: "123456789012"}, nil
			case "other-project":
				return resource.Project{ID: ref}, nil
			}
			return resource.Project{}, fault.New(fault.NotFound, "no project %q", ref)
		},
		Admit: func() error { return w.full },
		Audit: w.audit,
		NewID: uuid.NewString,
		Log:   slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	w.server = httptest.NewTLSServer(handler)
	t.Cleanup(w.server.Close)
	return w
}

// testLog fails a test in which the registry logs an error: it logs nothing but faults of its own.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Errorf("logged: %s", p)
	return len(p), nil
}

// authorizer is IAM with a reader, whose role IAM does not know yet.
type authorizer struct{ *iam.IAM }

func (a authorizer) Authorize(ctx context.Context, p iam.Principal, permission, resource string) error {
	if p == iam.User("reader@giggle.test") && strings.HasSuffix(permission, ".downloadArtifacts") &&
		strings.HasSuffix(resource, "/my-repo") {
		return nil
	}
	return a.IAM.Authorize(ctx, p, permission, resource)
}

func (w *world) token(t *testing.T, who string) string {
	t.Helper()
	token, _, err := w.identity.AccessToken(iam.User(who+"@giggle.test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w *world) grant(t *testing.T, resource, role, member string) {
	t.Helper()
	if _, err := w.identity.SetPolicy(t.Context(), resource, iam.Policy{Bindings: []iam.Binding{{
		Role:    role,
		Members: []string{member},
	}}}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) repository(t *testing.T, id string) {
	t.Helper()
	_, err := w.CreateRepository(t.Context(), artifacts.Repository{
		Name:   resource.Repository("giggle", "europe-north1", id),
		Format: artifacts.Docker,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// transport reaches the server under any name.
func (w *world) transport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, w.server.Listener.Addr().String())
		},
	}
}

func (w *world) options(t *testing.T, user, password string) []remote.Option {
	return []remote.Option{
		remote.WithTransport(w.transport()), remote.WithContext(t.Context()),
		remote.WithAuth(&authn.Basic{Username: user, Password: password}),
	}
}

func ref(t *testing.T, s string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPushAndPull(t *testing.T) {
	w := newWorld(t)
	img, err := random.Image(40_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"_dcgcloud_token", "oauth2accesstoken"} {
		to := ref(t, host+"/giggle/my-repo/team/jokes:v1")
		if err := remote.Write(to, img, w.options(t, user, w.owner)...); err != nil {
			t.Fatalf("push as %s: %v", user, err)
		}
	}
	for _, s := range []string{"/giggle/my-repo/team/jokes:v1", "/123456789012/my-repo/team/jokes:v1",
		"/giggle/my-repo/team/jokes@" + digest(t, img)} {
		got, err := remote.Image(ref(t, host+s), w.options(t, "oauth2accesstoken", w.reader)...)
		if err != nil {
			t.Fatalf("pull %s: %v", s, err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("pull %s: %v", s, err)
		}
		if digest(t, got) != digest(t, img) {
			t.Errorf("pull %s: got %s, pushed %s", s, digest(t, got), digest(t, img))
		}
	}
	// What was pushed is what a deploy finds.
	got, err := w.Resolve(t.Context(), "giggle", host+"/giggle/my-repo/team/jokes:v1")
	if want := host + "/giggle/my-repo/team/jokes@" + digest(t, img); err != nil || got != want {
		t.Errorf("Resolve = %q, %v; want %q", got, err, want)
	}
}

func TestIndex(t *testing.T) {
	w := newWorld(t)
	idx, err := random.Index(1000, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	to := ref(t, host+"/giggle/my-repo/multi:latest")
	if err := remote.WriteIndex(to, idx, w.options(t, "oauth2accesstoken", w.owner)...); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Index(to, w.options(t, "oauth2accesstoken", w.reader)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(got); err != nil {
		t.Error(err)
	}
	h, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.Resolve(t.Context(), "giggle", to.String()); err != nil || !strings.HasSuffix(r, "@"+h.String()) {
		t.Errorf("Resolve = %q, %v; want the index's digest %s", r, err, h)
	}
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// do sends one request with a bearer token ("" is none) and returns the answer with its body read.
func (w *world) do(
	t *testing.T, token, method, path string, body io.Reader, header map[string]string,
) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	tr := w.transport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(b)
}
