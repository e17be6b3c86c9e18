package cloud

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/storage"
)

// A token does no more than its scopes say, whoever's it is.
func TestScopes(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	if _, err := c.storage.CreateBucket(t.Context(),
		storage.Bucket{Name: "a-bucket-of-scopes", Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	type call struct{ host, method, path, body string }
	var (
		readBucket  = call{"storage.googleapis.com", "GET", "/storage/v1/b/a-bucket-of-scopes", ""}
		writeObject = call{"storage.googleapis.com", "POST",
			"/upload/storage/v1/b/a-bucket-of-scopes/o?uploadType=media&name=x", "x"}
		bucketPolicy = call{"storage.googleapis.com", "PUT", "/storage/v1/b/a-bucket-of-scopes/iam", "{}"}
		services     = call{"run.googleapis.com", "GET", "/v2/projects/giggle/locations/europe-north1/services", ""}
		policy       = call{"cloudresourcemanager.googleapis.com", "POST", "/v1/projects/giggle:setIamPolicy",
			`{"policy":{"bindings":[{"role":"roles/owner","members":["user:you@giggle.test"]}]}}`}
		readPolicy = call{"cloudresourcemanager.googleapis.com", "POST", "/v1/projects/giggle:getIamPolicy", "{}"}
	)
	every := []call{readBucket, writeObject, bucketPolicy, services, policy, readPolicy}
	const root = "https://www.googleapis.com/auth/"
	for _, tt := range []struct {
		scopes  string
		allowed []call
	}{
		{"", every}, // a token that was asked for without scopes is not limited
		{root + "cloud-platform", every},
		{"openid " + root + "userinfo.email " + root + "cloud-platform", every},
		{root + "userinfo.email", nil},
		{"openid", nil},
		{"cloud-platform", nil}, // it is no scope in short
		{root + "cloud-platform.read-only", []call{readBucket, services, readPolicy}},
		{root + "devstorage.full_control", []call{readBucket, writeObject, bucketPolicy}},
		{root + "devstorage.read_write", []call{readBucket, writeObject}},
		{root + "devstorage.read_only", []call{readBucket}},
		{root + "run.readonly", []call{services}},
	} {
		token, _, err := c.identity.AccessTokenFor(c.identity.Owner(), strings.Fields(tt.scopes), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range every {
			want := false
			for _, a := range tt.allowed {
				want = want || a == x
			}
			r := httptest.NewRequest(x.method, "https://"+x.host+x.path, strings.NewReader(x.body))
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			all[x.host].ServeHTTP(w, r)
			refused := strings.Contains(w.Body.String(), "insufficient authentication scopes")
			if (w.Code == 200) != want || refused == want {
				t.Errorf("%q: %s %s = %d, want it allowed: %v: %.200s", tt.scopes, x.method, x.path, w.Code, want,
					w.Body)
			}
		}
	}
}
