package catalog_test

import (
	"slices"
	"strings"
	"testing"

	"giggle/catalog"
)

func TestRows(t *testing.T) {
	hosts := catalog.Hosts()
	if !slices.IsSorted(hosts) || len(slices.Compact(slices.Clone(hosts))) != len(hosts) {
		t.Errorf("hosts are not sorted, or some are there twice: %q", hosts)
	}
	for _, a := range catalog.All() {
		if found, ok := catalog.Find(a.Host); !ok || found.Title != a.Title {
			t.Errorf("%s can't be found", a.Host)
		}
		if !strings.HasSuffix(a.Host, ".googleapis.com") || a.Title == "" {
			t.Errorf("%s, %q: want a host of Google's and a title", a.Host, a.Title)
		}
		for _, r := range a.Resources {
			example := "projects/p"
			if r.Name != "" {
				example += "/" + strings.ReplaceAll(strings.ReplaceAll(r.Name, "**", "x"), "*", "x")
			}
			api, kind, ok := catalog.TypeOf(example)
			if !ok || api.Host != a.Host || kind.Name != r.Name {
				t.Errorf("%s is taken for %s of %s, not for %s of %s", example, kind.Name, api.Host, r.Name, a.Host)
			}
		}
	}
	if _, ok := catalog.Find("none.googleapis.com"); ok {
		t.Error("an API was found that isn't there")
	}
}

func TestTypeOf(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"projects/p", "cloudresourcemanager.googleapis.com/Project"},
		{"projects/p/locations/l/services/s", "run.googleapis.com/Service"},
		{"projects/p/locations/l/services/s/revisions/r", "run.googleapis.com/Revision"},
		{"projects/p/locations/l/services", ""},
		{"projects/p/locations/l/services/", ""},
		{"projects/p/buckets/b/objects/a/b/c", "storage.googleapis.com/Object"},
		{"projects/p/buckets/b/objects/", ""},
		{"projects/p/repos/team/app", "sourcerepo.googleapis.com/Repository"},
		{"projects/p/locations/l/publishers/google/models/m", "aiplatform.googleapis.com/PublisherModel"},
		{"projects/p/services/run.googleapis.com", "serviceusage.googleapis.com/Service"},
		{"projects/p/nothing/n", ""},
		{"organizations/1", ""},
	} {
		got := ""
		if a, r, ok := catalog.TypeOf(tt.name); ok {
			got = a.Host + "/" + r.Type
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParent(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"projects/p", ""},
		{"organizations/1", ""},
		{"projects/p/locations/l", "projects/p"},
		{"projects/p/locations/l/services/s", "projects/p"},
		{"projects/p/locations/l/services/s/revisions/r", "projects/p/locations/l/services/s"},
		{"projects/p/locations/l/repositories/r", "projects/p"},
		{"projects/p/locations/l/repositories/r/dockerImages/i@sha256:0", "projects/p/locations/l/repositories/r"},
		{"projects/p/locations/l/repositories/r/packages/k/tags/t", "projects/p/locations/l/repositories/r"},
		{"projects/p/serviceAccounts/a@b", "projects/p"},
		{"projects/p/serviceAccounts/a@b/keys/k", "projects/p/serviceAccounts/a@b"},
		{"projects/p/buckets/b", "projects/p"},
		{"projects/p/buckets/b/objects/x/y", "projects/p/buckets/b"},
		{"projects/p/buckets/b/objects/buckets/c/objects/d", "projects/p/buckets/b"},
		{"projects/p/repos/a/b", "projects/p"},
		{"projects/p/builds/b", "projects/p"},
	} {
		got, ok := catalog.Parent(tt.name)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("the parent of %s: %q, %v, want %q", tt.name, got, ok, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100,
		func() { catalog.Parent("projects/p/locations/l/services/s/revisions/r") }); n > 0 {
		t.Errorf("Parent takes memory %v times", n)
	}
}

func TestKnowsRole(t *testing.T) {
	for name, want := range map[string]bool{
		"roles/run.invoker": true, "roles/run.invokr": true, "roles/aiplatform.usr": true, "roles/source.x": true,
		"roles/iam.serviceAccountX": true, "roles/iam.workloadIdentityUser": false, "roles/compute.admin": false,
		"run.invoker": false, "projects/p/roles/run.x": false,
	} {
		if got := catalog.KnowsRole(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestOpens(t *testing.T) {
	for _, tt := range []struct {
		scope, host string
		want        catalog.Access
	}{
		{"https://www.googleapis.com/auth/cloud-platform", "run.googleapis.com", catalog.Full},
		{"https://www.googleapis.com/auth/cloud-platform.read-only", "none.googleapis.com", catalog.Read},
		{"https://www.googleapis.com/auth/run.readonly", "run.googleapis.com", catalog.Read},
		{"https://www.googleapis.com/auth/run.readonly", "storage.googleapis.com", 0},
		{"run", "run.googleapis.com", 0},
		{"https://www.googleapis.com/auth/devstorage.read_write", "storage.googleapis.com", catalog.Write},
	} {
		if got := catalog.Opens(tt.scope, tt.host); got != tt.want {
			t.Errorf("%s of %s: %v, want %v", tt.scope, tt.host, got, tt.want)
		}
	}
}
