package registry_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"giggle/artifacts"
	"giggle/resource"
)

// The hosts of Container Registry are repositories of Artifact Registry, made by the first push to them.
func TestContainerRegistry(t *testing.T) {
	w := newWorld(t)
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	w.grant(t, "projects/giggle", "roles/artifactregistry.writer", "user:reader@giggle.test")
	err = remote.Write(ref(t, "gcr.io/giggle/jokes:v1"), img, w.options(t, "oauth2accesstoken", w.reader)...)
	if err == nil || !strings.Contains(err.Error(), "gcr.io repo does not exist. Creating on push requires") {
		t.Errorf("a first push of one who may not create: %v", err)
	}
	w.grant(t, "projects/giggle", "roles/owner", "user:you@giggle.test")
	for host, location := range map[string]string{"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe",
		"asia.gcr.io": "asia"} {
		name := host + "/giggle/team/jokes"
		if err := remote.Write(ref(t, name+":v1"), img, w.options(t, "oauth2accesstoken", w.owner)...); err != nil {
			t.Fatalf("push to %s: %v", host, err)
		}
		if _, err := w.Repository(t.Context(), resource.Repository("giggle", location, host)); err != nil {
			t.Error(err)
		}
		// It is the same image by both names.
		other := location + "-docker.pkg.dev/giggle/" + host + "/team/jokes"
		for _, s := range []string{name, other} {
			got, err := remote.Image(ref(t, s+":v1"), w.options(t, "oauth2accesstoken", w.owner)...)
			if err != nil {
				t.Fatalf("pull %s: %v", s, err)
			}
			if digest(t, got) != digest(t, img) {
				t.Errorf("pull %s: another image", s)
			}
			if r, err := w.Resolve(t.Context(), "giggle", s+":v1"); err != nil || r != s+"@"+digest(t, img) {
				t.Errorf("Resolve(%s) = %s, %v", s, r, err)
			}
		}
	}
	for path, status := range map[string]int{
		"/v2/giggle/team/jokes/tags/list": http.StatusOK, "/v2/giggle/tags/list": http.StatusBadRequest,
		"/v2/giggle/none/tags/list": http.StatusNotFound,
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://gcr.io"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.owner)
		tr := w.transport()
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
		if resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
	// No other repository may be called so.
	if _, err := w.CreateRepository(t.Context(), legacyIn("europe-north1")); err == nil {
		t.Error("gcr.io was made in europe-north1")
	}
}

func legacyIn(location string) artifacts.Repository {
	return artifacts.Repository{Name: resource.Repository("giggle", location, "gcr.io"), Format: artifacts.Docker}
}
