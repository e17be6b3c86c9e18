package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/catalog"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

var update = flag.Bool("update", false, "write docs/coverage.md anew")

// newCloud makes a platform that listens nowhere.
func newCloud(t *testing.T) *Cloud {
	t.Helper()
	return newCloudWith(t, func(*Config) {})
}

// newCloudWith is newCloud with some of its configuration changed.
func newCloudWith(t *testing.T, change func(*Config)) *Cloud {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{
		Data:    filepath.Join(dir, "data"),
		Mirror:  filepath.Join(dir, "mirror"),
		Project: "giggle",
		Owner:   "you@giggle.test",
		Address: "127.71.90.1",
		Console: "127.0.0.1:0",
		Edge:    "127.0.0.1:0",
		Idle:    time.Minute,
		Version: "test",
		Now:     time.Now,
		Log:     slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.scaler.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func muxes(t *testing.T, c *Cloud) map[string]*rest.Mux {
	t.Helper()
	m, err := c.muxes()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEveryRouteHasARuleAndNeedsAToken(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	variable := regexp.MustCompile(`\{[^}]*\}`)
	for _, a := range c.apis() {
		for _, r := range all[a.host].Routes() {
			rule, ok := a.rules[r.RPC]
			if !ok {
				t.Errorf("%s: %s has no rule that says who may call it", a.host, r.RPC)
			}
			if rule.Open || r.Method == "" {
				continue
			}
			path := variable.ReplaceAllStringFunc(r.Pattern, func(v string) string {
				if _, p, ok := strings.Cut(strings.Trim(v, "{}"), "="); ok {
					return strings.NewReplacer("**", "x", "*", "x").Replace(p)
				}
				return "x"
			})
			req := httptest.NewRequest(r.Method, "https://"+a.host+path, strings.NewReader("{}"))
			req.Host = "europe-north1-" + a.host
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			all[a.host].ServeHTTP(w, req)
			if rule.Public && w.Code == http.StatusNotFound {
				continue // nobody can have the permission on what isn't there
			}
			if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s%s without a token = %d %.200s", r.Method, a.host, path, w.Code, w.Body)
			}
		}
	}
}

// What allUsers may read needs no token, by whichever path; the rest of a bucket does, and a token that is none is
// refused in any case (https://cloud.google.com/storage/docs/access-public-data).
func TestPublicObjects(t *testing.T) {
	c := newCloud(t)
	h := muxes(t, c)["storage.googleapis.com"]
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path, body, authorization string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "https://storage.googleapis.com"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	owner := "Bearer " + token
	for _, bucket := range []string{"art-public", "art-private"} {
		for _, w := range []*httptest.ResponseRecorder{
			do("POST", "/storage/v1/b?project=giggle", `{"name":"`+bucket+`"}`, owner),
			do("POST", "/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name=a/pub.txt", "for all", owner),
		} {
			if w.Code != http.StatusOK {
				t.Fatal(w.Code, w.Body)
			}
		}
	}
	policy := `{"bindings":[{"role":"roles/storage.objectViewer","members":["allUsers"]}]}`
	if w := do("PUT", "/storage/v1/b/art-public/iam", policy, owner); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	for _, tt := range []struct {
		method, path, authorization string
		public, private             int
	}{
		{"GET", "/BUCKET/a/pub.txt", "", 200, 401},
		{"HEAD", "/BUCKET/a/pub.txt", "", 200, 401},
		{"GET", "/download/storage/v1/b/BUCKET/o/a%2Fpub.txt?alt=media", "", 200, 401},
		{"GET", "/storage/v1/b/BUCKET/o/a%2Fpub.txt", "", 200, 401},
		{"GET", "/storage/v1/b/BUCKET/o", "", 200, 401},
		{"GET", "/BUCKET/a/pub.txt", owner, 200, 200},
		{"GET", "/BUCKET/a/pub.txt", "Bearer none", 401, 401},
		{"GET", "/storage/v1/b/BUCKET", "", 401, 401}, // an object viewer may not see the bucket
		{"GET", "/storage/v1/b/BUCKET/iam", "", 401, 401},
		{"DELETE", "/storage/v1/b/BUCKET/o/a%2Fpub.txt", "", 401, 401},
		{"POST", "/upload/storage/v1/b/BUCKET/o?uploadType=media&name=x", "", 401, 401},
		{"GET", "/storage/v1/b?project=giggle", "", 401, 401},
		{"GET", "/none-such/x", "", 404, 404},
	} {
		for bucket, want := range map[string]int{"art-public": tt.public, "art-private": tt.private} {
			path := strings.ReplaceAll(tt.path, "BUCKET", bucket)
			if w := do(tt.method, path, "", tt.authorization); w.Code != want {
				t.Errorf("%s %s with %.7q = %d, want %d: %.200s", tt.method, path, tt.authorization, w.Code, want, w.Body)
			}
		}
	}
}

// A stranger with a valid token of the platform may do nothing that has a permission.
func TestStrangersMayDoNothing(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	token, _, err := c.identity.AccessToken(iam.User("eve@giggle.test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"https://europe-north1-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/giggle/services",
		"https://run.googleapis.com/v1/projects/giggle/locations/-/services",
		"https://cloudbuild.googleapis.com/v1/projects/giggle/locations/global/builds",
		"https://artifactregistry.googleapis.com/v1/projects/giggle/locations/europe-north1/repositories",
		"https://storage.googleapis.com/storage/v1/b?project=giggle",
		"https://cloudresourcemanager.googleapis.com/v1/projects/giggle",
		"https://serviceusage.googleapis.com/v1/projects/giggle/services",
	} {
		req := httptest.NewRequest("GET", url, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		all[strings.TrimPrefix(req.Host, "europe-north1-")].ServeHTTP(w, req)
		var body struct {
			Message string
			Error   struct{ Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusForbidden {
			t.Errorf("%s = %d %.300s", url, w.Code, w.Body)
		}
		if text := body.Message + body.Error.Message; !strings.Contains(text, "Permission '") {
			t.Errorf("%s: the refusal does not name the permission: %q", url, text)
		}
	}
}

func TestDisabledAPI(t *testing.T) {
	c := newCloud(t)
	if _, err := c.projects.SetEnabled(t.Context(), "giggle", false, "run.googleapis.com"); err != nil {
		t.Fatal(err)
	}
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest("GET", "https://run.googleapis.com/v1/projects/giggle/locations/-/services", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	muxes(t, c)["run.googleapis.com"].ServeHTTP(w, req)
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "SERVICE_DISABLED") ||
		!strings.Contains(w.Body.String(), "gcloud services enable run.googleapis.com") {
		t.Errorf("a call to a disabled API = %d %s", w.Code, w.Body)
	}
}

// variable is a variable of a path template.
var variable = regexp.MustCompile(`\{[^=}]*=?([^}]*)\}`)

// unimplemented calls a route that no proto describes, about things that are not there.
func unimplemented(t *testing.T, server *httptest.Server, host, token, method, pattern string) bool {
	t.Helper()
	path := variable.ReplaceAllStringFunc(pattern, func(v string) string {
		if form := variable.FindStringSubmatch(v)[1]; form != "" {
			return strings.NewReplacer("**", "x", "*", "x").Replace(form)
		}
		return "x"
	})
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode == http.StatusMethodNotAllowed && strings.Contains(string(text), "not implemented")
}

// Every API of the catalogue is served, and no other.
func TestCatalog(t *testing.T) {
	var hosts []string
	for _, a := range newCloud(t).apis() {
		hosts = append(hosts, a.host)
	}
	if !slices.Equal(hosts, catalog.Hosts()) {
		t.Errorf("served, in this order: %q; in the catalogue: %q", hosts, catalog.Hosts())
	}
}

// TestCoverage holds docs/coverage.md to the live routes: what answers UNIMPLEMENTED is listed as such.
func TestCoverage(t *testing.T) {
	c := newCloud(t)
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	out.WriteString("# Coverage\n\nEvery RPC of the live routes; `go test ./cloud -run Coverage -update` writes this file. An RPC that is not implemented\nanswers `UNIMPLEMENTED`. A path that is not here answers 404.\n")
	all := muxes(t, c)
	for _, a := range c.apis() {
		server := httptest.NewUnstartedServer(all[a.host])
		server.EnableHTTP2 = true
		server.StartTLS()
		pool := x509.NewCertPool()
		pool.AddCert(server.Certificate())
		conn, err := grpc.NewClient(server.Listener.Addr().String(),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "example.com"})))
		if err != nil {
			t.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		row, _ := catalog.Find(a.host)
		fmt.Fprintf(&out, "\n## %s: %s\n\n| RPC | REST | |\n|---|---|---|\n", a.host, row.Title)
		done := map[string]bool{}
		for _, r := range all[a.host].Routes() {
			state := ""
			if strings.HasPrefix(r.RPC, "/") {
				// An empty message is one of every type.
				err := conn.Invoke(ctx, r.RPC, &emptypb.Empty{}, &emptypb.Empty{})
				if s := status.Convert(err); s.Code() == codes.Unimplemented &&
					strings.Contains(s.Message(), "not implemented") {
					state = "not implemented"
				}
			}
			if r.Method != "" && !strings.HasPrefix(r.RPC, "/") &&
				unimplemented(t, server, a.host, token, r.Method, r.Pattern) {
				state = "not implemented"
			}
			rpc := "`" + strings.TrimPrefix(r.RPC, "/") + "`"
			if done[rpc] {
				rpc = ""
			}
			done["`"+strings.TrimPrefix(r.RPC, "/")+"`"] = true
			rule := ""
			if r.Method != "" {
				rule = "`" + r.Method + " " + r.Pattern + "`"
			}
			fmt.Fprintf(&out, "| %s | %s | %s |\n", rpc, rule, state)
		}
		_ = conn.Close()
		server.Close()
	}
	const file = "../docs/coverage.md"
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != out.String() {
		t.Errorf("docs/coverage.md is not what the routes are (%v); run go test ./cloud -run Coverage -update", err)
	}
}

// What the catalogue says can have a policy has one only while it is there: else the next resource of that name would
// find it.
func TestPoliciesNeedTheirResource(t *testing.T) {
	c := newCloud(t)
	n := 0
	for _, a := range catalog.All() {
		for _, r := range a.Resources {
			if !r.Policy || r.Name == "" { // a project is asked for by each API itself
				continue
			}
			n++
			name := "projects/giggle/" + strings.NewReplacer("**", "none-such", "*", "none-such").Replace(r.Name)
			if _, err := c.identity.SetPolicy(t.Context(), name, iam.Policy{}); !fault.Is(err, fault.NotFound) {
				t.Errorf("a policy on %s, which isn't there: %v", name, err)
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d kinds of resources have policies", n)
	}
}
