package metadata_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/metadata"
)

const cloudPlatform = "https://www.googleapis.com/auth/cloud-platform"

type tokens struct{}

func (tokens) AccessToken(_ context.Context, account string, _ []string) (string, time.Time, error) {
	return "access of " + account, time.Unix(3600, 0), nil
}
func (tokens) IDToken(_ context.Context, account, audience string) (string, error) {
	return "id of " + account + " for " + audience, nil
}

func TestTree(t *testing.T) {
	h := metadata.New(metadata.Identity{
		ProjectID:     "giggle",
		ProjectNumber: "123456789012",
		Region:        "europe-north1",
		InstanceID:    "i1",
		Account:       "a@b.test",
		Scopes:        []string{cloudPlatform},
	}, tokens{}, func() time.Time { return time.Unix(0, 0) })
	get := func(path string, header ...string) (int, string) {
		r := httptest.NewRequest("GET", path, nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Header().Get("Metadata-Flavor") != "Google" {
			t.Errorf("%s: the answer has no Metadata-Flavor", path)
		}
		return w.Code, w.Body.String()
	}
	flavor := []string{"Metadata-Flavor", "Google"}
	const v1 = "/computeMetadata/v1/"
	for _, tt := range []struct {
		path   string
		header []string
		code   int
		body   string // exact
	}{
		{"/", nil, 200, "computeMetadata/\n"},
		{v1 + "project/project-id", flavor, 200, "giggle"},
		{v1 + "project/numeric-project-id", flavor, 200, "123456789012"},
		{v1 + "instance/region", flavor, 200, "projects/123456789012/regions/europe-north1"},
		{v1 + "instance/zone", flavor, 200, "projects/123456789012/zones/europe-north1-1"},
		{v1 + "instance/id", flavor, 200, "i1"},
		{v1 + "instance/", flavor, 200, "id\nregion\nservice-accounts/\nzone\n"},
		{v1 + "instance/service-accounts/default/email", flavor, 200, "a@b.test"},
		{v1 + "instance/service-accounts/default/scopes", flavor, 200, cloudPlatform + "\n"},
		{v1 + "instance/service-accounts/a@b.test/identity?audience=x", flavor, 200, "id of a@b.test for x"},
		{v1 + "universe/universe-domain", flavor, 200, "googleapis.com"},
		{v1 + "instance/service-accounts/default/identity", flavor, 400, "non-empty audience parameter required\n"},
		{v1 + "project/project-id", nil, 403, "Missing required header: Metadata-Flavor: Google\n"},
		{v1 + "project/project-id", append([]string{"X-Forwarded-For", "1.2.3.4"},
			flavor...), 403, "A request with X-Forwarded-For is refused.\n"},
		{v1 + "nowhere", flavor, 404, "Not found.\n"},
		{v1 + "instance/id/deeper", flavor, 404, "Not found.\n"},
		{v1 + "instance/id?wait_for_change=true&last_etag=0", flavor, 200, "i1"},
		{v1 + "instance/id?wait_for_change=true&timeout_sec=x", flavor, 400, "timeout_sec must be a number of seconds\n"},
		{v1 + "instance/id?alt=json", flavor, 200, "\"i1\"\n"},
		{v1 + "project/numeric-project-id?alt=json", flavor, 200, "123456789012\n"},
		{v1 + "project/?recursive=true", flavor, 200, "{\"numericProjectId\":123456789012,\"projectId\":\"giggle\"}\n"},
		{v1 + "project/?recursive=true&alt=text", flavor, 200, "numeric-project-id 123456789012\nproject-id giggle\n"},
		{v1 + "project/?recursive=TRUE", flavor, 200, "{\"numericProjectId\":123456789012,\"projectId\":\"giggle\"}\n"},
		{v1 + "project/?recursive=True&alt=JSON", flavor, 200, "{\"numericProjectId\":123456789012,\"projectId\":\"giggle\"}\n"},
		{v1 + "project?recursive=1&alt=Text", flavor, 200, "numeric-project-id 123456789012\nproject-id giggle\n"},
		{v1 + "project/?recursive=false", flavor, 200, "numeric-project-id\nproject-id\n"},
		{v1 + "project/?recursive=no", flavor, 200, "numeric-project-id\nproject-id\n"},
		{v1 + "instance/id?alt=TEXT", flavor, 200, "i1"},
		{v1 + "project//project-id/", flavor, 200, "giggle"},
		{v1 + "project/project-id", []string{"metadata-flavor", "google"}, 200, "giggle"},
		{v1 + "project/project-id", []string{"X-Google-Metadata-Request", "true"}, 200, "giggle"},
		{v1 + "project/project-id", []string{"X-Google-Metadata-Request", "TRUE"}, 200, "giggle"},
		{v1 + "project/project-id", []string{"X-Google-Metadata-Request", "no"}, 403, "Missing required header: Metadata-Flavor: Google\n"},
		{v1 + "project/?alt=xml", flavor, 400, "alt must be text or json\n"},
		{v1 + "universe/universe_domain", flavor, 200, "googleapis.com"},
		{v1 + "project/project-id", []string{"X-Google-Metadata-Request", "True"}, 200, "giggle"},
		{v1 + "instance/service-accounts/default/identity?audience=x&format=full&licenses=TRUE", flavor, 200, "id of a@b.test for x"},
		{v1 + "instance/service-accounts/default/identity?audience=x&format=odd", flavor, 400, "format must be standard or full\n"},
	} {
		if code, body := get(tt.path, tt.header...); code != tt.code || body != tt.body {
			t.Errorf("%s = %d %q, want %d %q", tt.path, code, body, tt.code, tt.body)
		}
	}
	_, body := get(v1+"instance/service-accounts/default/token", flavor...)
	var tok struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}
	if err := json.Unmarshal([]byte(body), &tok); err != nil || tok.AccessToken != "access of a@b.test" ||
		tok.ExpiresIn != 3600 || tok.TokenType != "Bearer" {
		t.Errorf("token = %s (%v)", body, err)
	}
	_, body = get(v1+"?recursive=true", flavor...)
	var all map[string]map[string]any
	if err := json.Unmarshal([]byte(body), &all); err != nil || all["project"]["projectId"] != "giggle" ||
		strings.Contains(body, "access of") {
		t.Errorf("recursive = %s (%v)", body, err)
	}
	r := httptest.NewRequest("POST", v1, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d", w.Code)
	}
}
