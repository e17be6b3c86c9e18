package artifactregistry_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/api/artifactregistry"
	"giggle/api/guard"
	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/store"
)

// projects are the project giggle, by id and number.
type projects struct{}

func (projects) Find(ref string) (resource.Project, error) {
	if ref == "giggle" || ref == "123456789012" {
		return resource.Project{ID: "giggle", Number: "123456789012"}, nil
	}
	return resource.Project{}, fault.New(fault.NotFound, "no project %q", ref)
}

func (projects) CheckEnabled(string, string) error { return nil }

type world struct {
	*rest.Mux
	artifacts       *artifacts.Artifacts
	blobs           *blob.Dir
	owner, stranger string // tokens
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "state.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := iam.New(t.Context(), iam.Config{
		Store: st, Owner: "you@giggle.test", Now: time.Now,
		Governed: []iam.Governed{{Collection: "repositories", Kind: artifacts.RepositoryKind}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.SetPolicy(t.Context(), "projects/giggle", iam.Policy{
		Bindings: []iam.Binding{{Role: "roles/owner", Members: []string{"user:you@giggle.test"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	g := guard.New(guard.Config{
		Identity: identity,
		Projects: projects{},
		Audit:    log,
		Log:      slog.New(slog.DiscardHandler),
	})
	const host = "artifactregistry.googleapis.com"
	chain, err := g.Chain(guard.API{Host: host, Service: host, Rules: artifactregistry.Rules})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Mux: rest.NewMux(host, rest.Options{NewID: uuid.NewString, Interceptors: chain.Interceptors()})}
	w.artifacts, w.blobs = artifacts.New(artifacts.Config{Store: st, Blobs: blobs, NewID: uuid.NewString}), blobs
	artifactregistry.New(artifactregistry.Config{
		Artifacts:  w.artifacts,
		Operations: operation.New(st),
		Policies:   identity,
		Project:    projects{}.Find,
		Pages:      resource.NewPages(identity.PageKey(), time.Now),
	}).Register(w.Mux)
	if err := w.Build(); err != nil {
		t.Fatal(err)
	}
	for to, who := range map[*string]iam.Principal{&w.owner: identity.Owner(),
		&w.stranger: iam.User("stranger@giggle.test")} {
		if *to, _, err = identity.AccessToken(who, nil); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// call sends one request and decodes the answer.
func (w *world) call(t *testing.T, token, method, path, body string, status int) map[string]any {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "https://artifactregistry.googleapis.com"+path, in)
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, rec.Code, status, rec.Body)
	}
	var out map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, rec.Body)
	}
	return out
}

const (
	parent = "/v1/projects/giggle/locations/europe-north1"
	mine   = "projects/giggle/locations/europe-north1/repositories/my-repo"
)

// As `gcloud artifacts repositories create my-repo --repository-format docker` goes (reference: gcloud 528).
func TestCreate(t *testing.T) {
	w := newWorld(t)
	w.call(t, w.owner, "GET", "/v1/"+mine+"?alt=json", "", http.StatusNotFound)
	op := w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo&alt=json",
		`{"format":"DOCKER","mode":"MODE_UNSPECIFIED","description":"Mine","labels":{"a":"b"},"name":"`+mine+`"}`,
		http.StatusOK)
	op = w.call(t, w.owner, "GET", "/v1/"+op["name"].(string)+"?alt=json", "", http.StatusOK)
	response, _ := op["response"].(map[string]any)
	if op["done"] != true || response["name"] != mine ||
		response["@type"] != "type.googleapis.com/google.devtools.artifactregistry.v1.Repository" {
		t.Errorf("operation: %v", op)
	}
	for _, name := range []string{mine, strings.Replace(mine, "giggle", "123456789012", 1)} {
		r := w.call(t, w.owner, "GET", "/v1/"+name, "", http.StatusOK)
		for field, want := range map[string]string{
			"name": mine, "format": "DOCKER", "mode": "STANDARD_REPOSITORY", "description": "Mine",
			"registryUri": "europe-north1-docker.pkg.dev/giggle/my-repo",
		} {
			if r[field] != want {
				t.Errorf("%s = %v, want %s", field, r[field], want)
			}
		}
	}
	w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo", `{"format":"DOCKER"}`, http.StatusConflict)
	ops := w.call(t, w.owner, "GET", parent+"/operations", "", http.StatusOK)
	if n := len(ops["operations"].([]any)); n != 1 {
		t.Errorf("%d operations, want 1: %v", n, ops)
	}
	w.call(t, w.owner, "GET", parent+"/operations/none", "", http.StatusNotFound)
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	for body, status := range map[string]int{
		`{"format":"MAVEN"}`:                                                                                  http.StatusMethodNotAllowed,
		`{"format":"DOCKER","kmsKeyName":"k"}`:                                                                http.StatusMethodNotAllowed,
		`{"format":"DOCKER","mode":"REMOTE_REPOSITORY"}`:                                                      http.StatusMethodNotAllowed,
		`{"format":"DOCKER","remoteRepositoryConfig":{"description":"d"}}`:                                    http.StatusMethodNotAllowed,
		`{"format":"DOCKER","vulnerabilityScanningConfig":{"enablementConfig":"INHERITED"}}`:                  http.StatusMethodNotAllowed,
		`{"description":"no format"}`:                                                                         http.StatusBadRequest,
		`{"format":"DOCKER","labels":{"Bad":"x"}}`:                                                            http.StatusBadRequest,
		`{"format":"DOCKER","dockerConfig":{},"vulnerabilityScanningConfig":{"enablementConfig":"DISABLED"}}`: http.StatusOK,
	} {
		w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo", body, status)
	}
	w.call(t, w.owner, "POST", parent+"/repositories", `{"format":"DOCKER"}`, http.StatusBadRequest)
	w.call(t, w.owner, "POST", "/v1/projects/giggle/locations/moon/repositories?repositoryId=r", `{"format":"DOCKER"}`,
		http.StatusBadRequest)
	w.call(t, w.owner, "GET", "/v1/"+mine+"/rules", "", http.StatusMethodNotAllowed)
	w.call(t, w.stranger, "GET", "/v1/"+mine, "", http.StatusForbidden)
	w.call(t, w.stranger, "POST", parent+"/repositories?repositoryId=r", `{"format":"DOCKER"}`, http.StatusForbidden)
	w.call(t, w.owner, "GET", "/v1/projects/unknown-one/locations/us/repositories", "", http.StatusForbidden)
	w.call(t, "", "GET", "/v1/"+mine, "", http.StatusUnauthorized)
}

func TestListAndDelete(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a-1", "b-1", "c-1"} {
		w.call(t, w.owner, "POST", parent+"/repositories?repositoryId="+id, `{"format":"DOCKER"}`, http.StatusOK)
	}
	var ids []string
	for token, pages := "", 0; ; pages++ {
		page := w.call(t, w.owner, "GET", parent+"/repositories?pageSize=2&pageToken="+token, "", http.StatusOK)
		for _, r := range page["repositories"].([]any) {
			name := r.(map[string]any)["name"].(string)
			ids = append(ids, name[strings.LastIndex(name, "/")+1:])
		}
		if token, _ = page["nextPageToken"].(string); token == "" {
			break
		}
		if pages > 3 {
			t.Fatal("pages without end")
		}
	}
	if got := strings.Join(ids, " "); got != "a-1 b-1 c-1" {
		t.Errorf("listed %s", got)
	}
	w.call(t, w.owner, "GET", parent+"/repositories?pageToken=garbage", "", http.StatusBadRequest)

	op := w.call(t, w.owner, "DELETE", parent+"/repositories/a-1", "", http.StatusOK)
	if response := op["response"].(map[string]any); op["done"] != true ||
		response["@type"] != "type.googleapis.com/google.protobuf.Empty" {
		t.Errorf("delete: %v", op)
	}
	w.call(t, w.owner, "GET", parent+"/repositories/a-1", "", http.StatusNotFound)
	w.call(t, w.owner, "DELETE", parent+"/repositories/a-1", "", http.StatusNotFound)
}

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.call(t, w.owner, "GET", "/v1/"+mine+":getIamPolicy", "", http.StatusNotFound)
	w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo", `{"format":"DOCKER"}`, http.StatusOK)
	test := func(token string) int {
		t.Helper()
		out := w.call(t, token, "POST", "/v1/"+mine+":testIamPermissions",
			`{"permissions":["artifactregistry.repositories.get","artifactregistry.repositories.uploadArtifacts"]}`,
			http.StatusOK)
		held, _ := out["permissions"].([]any)
		return len(held)
	}
	if a, b := test(w.owner), test(w.stranger); a != 2 || b != 0 {
		t.Errorf("the owner has %d permissions, a stranger %d", a, b)
	}
	have := w.call(t, w.owner, "GET", "/v1/"+mine+":getIamPolicy?options.requestedPolicyVersion=3", "", http.StatusOK)
	set := w.call(t, w.owner, "POST", "/v1/"+mine+":setIamPolicy",
		`{"policy":{"etag":"`+have["etag"].(string)+
			`","bindings":[{"role":"roles/owner","members":["user:stranger@giggle.test"]}]}}`, http.StatusOK)
	if set["etag"] == have["etag"] {
		t.Errorf("the etag stays %v", set["etag"])
	}
	w.call(t, w.stranger, "GET", "/v1/"+mine, "", http.StatusOK)

	// A repository of the same name does not inherit the policy.
	w.call(t, w.stranger, "DELETE", "/v1/"+mine, "", http.StatusOK)
	w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo", `{"format":"DOCKER"}`, http.StatusOK)
	w.call(t, w.stranger, "GET", "/v1/"+mine, "", http.StatusForbidden)
}

func TestLocations(t *testing.T) {
	w := newWorld(t)
	all := w.call(t, w.owner, "GET", "/v1/projects/giggle/locations", "", http.StatusOK)
	if n, want := len(all["locations"].([]any)), len(resource.Regions())+len(resource.MultiRegions()); n != want {
		t.Errorf("%d locations, want %d", n, want)
	}
	// gcloud artifacts locations list
	w.call(t, w.owner, "GET", "/v1beta2/projects/giggle/locations?alt=json", "", http.StatusOK)
	page := w.call(t, w.owner, "GET", "/v1/projects/giggle/locations?pageSize=1", "", http.StatusOK)
	next := w.call(t, w.owner, "GET",
		"/v1/projects/giggle/locations?pageSize=1&pageToken="+page["nextPageToken"].(string), "", http.StatusOK)
	if a, b := page["locations"].([]any)[0], next["locations"].([]any)[0]; a.(map[string]any)["locationId"] == b.(map[string]any)["locationId"] {
		t.Errorf("two pages with %v", a)
	}
	w.call(t, w.owner, "GET", parent, "", http.StatusOK)
	w.call(t, w.owner, "GET", "/v1/projects/giggle/locations/moon", "", http.StatusNotFound)
}

// A route without a rule could not be called by anyone.
func TestRules(t *testing.T) {
	w := newWorld(t)
	for _, route := range w.Routes() { // gRPC-only ones included
		if _, ok := artifactregistry.Rules[route.RPC]; !ok {
			t.Errorf("%s has no rule", route.RPC)
		}
	}
	for n, rule := range artifactregistry.Rules {
		if rule.Open {
			t.Errorf("%s needs no credentials", n)
		}
		if (rule.Permission == "") != (rule.On == "") {
			t.Errorf("%s: %+v is half a rule", n, rule)
		}
	}
}
