package cloud

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// unpackData unpacks a data directory of an earlier version: its state and its audit log, without the blobs.
func unpackData(t *testing.T, archive, into string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(into, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A data directory of the version before opens, and all that was in it is there: it was made by gcloud on the commit
// 60fdc24, with a service deployed from source and then changed, a build of steps, an object, accounts, a role,
// policies and repositories.
func TestDataOfTheVersionBefore(t *testing.T) {
	made := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	c := newCloudWith(t, func(cfg *Config) {
		unpackData(t, "testdata/before-0014.tar.gz", cfg.Data)
		cfg.Now = func() time.Time { return made }
	})
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := muxes(t, c)
	const in = "projects/giggle/locations/"
	for _, tt := range []struct{ host, method, path, want string }{
		{"run.googleapis.com", "GET", "/v2/" + in + "europe-north1/services/jokes", `"latestReadyRevision": "` + in +
			`europe-north1/services/jokes/revisions/jokes-00002-`},
		{"run.googleapis.com", "GET", "/v2/" + in + "europe-north1/services/jokes/revisions", "jokes-00001-"},
		{"run.googleapis.com", "GET", "/v2/" + in + "europe-north1/services/jokes:getIamPolicy", "allUsers"},
		{"run.googleapis.com", "GET", "/v2/" + in + "europe-north1/operations", `"done": true`},
		{"cloudbuild.googleapis.com", "GET", "/v1/" + in + "global/builds", `"status": "SUCCESS"`},
		{"cloudbuild.googleapis.com", "GET", "/v1/" + in + "europe-north1/builds", `europe-north1-docker.pkg.dev/giggle/cloud-run-source-deploy/jokes`},
		{"cloudbuild.googleapis.com", "GET", "/v1/" + in + "europe-north1/builds", `"name": "gcr.io/k8s-skaffold/pack"`},
		{"artifactregistry.googleapis.com", "GET", "/v1/" + in + "europe-north1/repositories", "/repositories/cloud-run-source-deploy"},
		{"artifactregistry.googleapis.com", "GET", "/v1/" + in + "europe-north1/repositories/cloud-run-source-deploy/packages", "/packages/jokes"},
		{"storage.googleapis.com", "GET", "/storage/v1/b/kept-bucket/o/hello.txt", `"size": "6"`},
		{"iam.googleapis.com", "GET", "/v1/projects/giggle/serviceAccounts/teller@giggle.iam.gserviceaccount.com", `"uniqueId"`},
		{"iam.googleapis.com", "GET", "/v1/projects/giggle/roles/teller", "run.services.get"},
		{"sourcerepo.googleapis.com", "GET", "/v1/projects/giggle/repos", "projects/giggle/repos/app"},
		{"cloudresourcemanager.googleapis.com", "POST", "/v1/projects/giggle:getIamPolicy", "serviceAccount:teller@giggle.iam.gserviceaccount.com"},
		// What has come since is there to be turned on, as at Google.
		{"serviceusage.googleapis.com", "GET", "/v1/projects/giggle/services?filter=state:ENABLED", "cloudbilling.googleapis.com"},
		{"serviceusage.googleapis.com", "GET", "/v1/projects/giggle/services?filter=state:DISABLED", "policytroubleshooter.googleapis.com"},
	} {
		r := httptest.NewRequest(tt.method, "https://"+tt.host+tt.path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		all[tt.host].ServeHTTP(w, r)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s%s = %d, want %s in %.600s", tt.host, tt.path, w.Code, tt.want, w.Body)
		}
	}
}
