//go:build long

package registry_test

import (
	"encoding/xml"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// conformant is how many tests of the suite pass. Two are left out by the suite itself: it allows that a mount without
// a source is answered with an upload, and ours is, because a blob of some other repository is no secret to give away.
const conformant = 787

// The OCI distribution specification's own conformance suite (test/conformance pins it), with everything on that the
// specification has, referrers and what is optional included.
func TestLongConformance(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	suite := filepath.Join(dir, "suite")
	const source = "../../test/conformance"
	build := exec.CommandContext(t.Context(), "go", "build", "-C", source, "-o", suite,
		"github.com/opencontainers/distribution-spec/conformance")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// A proxy for plain HTTP that is the registry itself: the suite uses the real name, and no certificate.
	proxy := httptest.NewServer(w.server.Config.Handler)
	defer proxy.Close()
	results := filepath.Join(dir, "results")
	run := exec.CommandContext(t.Context(), suite)
	run.Dir = dir
	run.Env = append(os.Environ(), "HTTP_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=", "OCI_RESULTS_DIR="+results,
		"OCI_VERSION=1.1", "OCI_TLS=disabled", "OCI_REGISTRY="+host, "OCI_REPO1=giggle/my-repo/one",
		"OCI_REPO2=giggle/second/two",
		"OCI_USERNAME=oauth2accesstoken", "OCI_PASSWORD="+w.owner,
		// What the suite leaves off by itself because registries need not have it.
		"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
		"OCI_API_MANIFESTS_TAG_PARAM=true",
	)
	out, err := run.CombinedOutput()
	var junit struct {
		Suites []struct {
			Cases []struct {
				Class  string `xml:"classname,attr"`
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	b, readErr := os.ReadFile(filepath.Join(results, "junit.xml"))
	if readErr != nil {
		t.Fatalf("the suite left no results: %v, %v\n%.4000s", readErr, err, out)
	}
	if err := xml.Unmarshal(b, &junit); err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, s := range junit.Suites {
		for _, c := range s.Cases {
			count[c.Status]++
			if c.Status != "passed" {
				t.Logf("%s: %s %s", c.Status, c.Class, c.Name)
			}
		}
	}
	t.Logf("%v", count)
	if err != nil || count["failure"] != 0 || count["error"] != 0 || count["passed"] < conformant {
		t.Errorf("the suite: %v, %v; want no failure and at least %d passed\n%.8000s", err, count, conformant, out)
	}
}
