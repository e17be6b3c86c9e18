package registry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	gname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/google"
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
		"/v2/giggle/team/jokes/tags/list": http.StatusOK, "/v2/giggle/tags/list": http.StatusOK,
		"/v2/giggle/team/tags/list": http.StatusOK, "/v2/giggle/none/tags/list": http.StatusNotFound,
		"/v2/giggle/manifests/v1": http.StatusBadRequest, "/v2/other-project/tags/list": http.StatusOK,
		"/v2/Giggle/tags/list": http.StatusBadRequest,
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

// Lists have what `gcloud container images` reads: the versions of an image with their tags, and the names below one.
func TestTagsOfContainerRegistry(t *testing.T) {
	w := newWorld(t)
	w.grant(t, "projects/giggle", "roles/owner", "user:you@giggle.test")
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gcr.io/giggle/jokes:v1", "gcr.io/giggle/jokes:v2", "gcr.io/giggle/team/a:v1",
		"gcr.io/giggle/team/b/deep:v1", "gcr.io/giggle/jokes/more:v1", host + "/giggle/my-repo/team/c:v1"} {
		if err := remote.Write(ref(t, name), img, w.options(t, "_token", w.owner)...); err != nil {
			t.Fatalf("push %s: %v", name, err)
		}
	}
	d := digest(t, img)
	for _, tt := range []struct {
		name     string
		children string
		tags     string
		versions int
	}{
		{"gcr.io/giggle", "jokes team", "", 0},
		{"gcr.io/giggle/jokes", "more", "v1 v2", 1},
		{"gcr.io/giggle/jokes/more", "", "v1", 1},
		{"gcr.io/giggle/team", "a b", "", 0},
		{"gcr.io/giggle/team/b", "deep", "", 0},
		{"gcr.io/giggle/team/b/deep", "", "v1", 1},
		{"gcr.io/other-project", "", "", 0}, // before the first push
		{"us-docker.pkg.dev/giggle/gcr.io", "jokes team", "", 0},
		{host + "/giggle/my-repo", "team", "", 0},
		{host + "/giggle/my-repo/team", "c", "", 0},
		{host + "/giggle/my-repo/team/c", "", "v1", 1},
	} {
		repository, err := gname.NewRepository(tt.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := google.List(repository, google.WithTransport(w.transport()),
			google.WithAuth(&authn.Basic{Username: "_token", Password: w.owner}))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if strings.Join(got.Children, " ") != tt.children || strings.Join(got.Tags, " ") != tt.tags ||
			len(got.Manifests) != tt.versions {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt)
		}
		for of, m := range got.Manifests {
			if of != d || strings.Join(m.Tags, " ") != tt.tags || m.Size < 1000 || m.MediaType == "" ||
				time.Since(m.Uploaded) > time.Hour || m.Created.IsZero() {
				t.Errorf("%s: %s is %+v", tt.name, of, m)
			}
		}
	}
	for user, ok := range map[string]bool{"_token": true, "_dcgcloud_token": true, "oauth2accesstoken": true,
		"_dcgcr_2_1_22_token": true, "token": false, "_dcgcr_": false, "_TOKEN": false, "you": false} {
		_, err := remote.Get(ref(t, "gcr.io/giggle/jokes:v1"), w.options(t, user, w.owner)...)
		if (err == nil) != ok {
			t.Errorf("the user %q: %v", user, err)
		}
	}
}

func legacyIn(location string) artifacts.Repository {
	return artifacts.Repository{Name: resource.Repository("giggle", location, "gcr.io"), Format: artifacts.Docker}
}
