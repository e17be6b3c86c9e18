package storagejson

import (
	"fmt"
	"path"
	"testing"
	"time"

	"giggle/iam"
	"giggle/storage"
	"giggle/store"
)

// As `gcloud storage buckets get-iam-policy` and `add-iam-policy-binding` go.
func TestPolicies(t *testing.T) {
	h := serve(t, func(s *Server, st *store.Store) {
		identity, err := iam.New(t.Context(), iam.Config{
			Store: st,
			Owner: "you@giggle.test",
			Now:   time.Now,
			Governed: []iam.Governed{{
				Collection: "buckets",
				Kind:       storage.BucketKind,
				Row:        path.Base,
				Name:       storage.BucketName,
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Policies = identity
	})
	const at = "/storage/v1/b/bucket/iam"
	held := func() string {
		t.Helper()
		return fmt.Sprint(h.want(t, "GET",
			at+"/testPermissions?permissions=storage.objects.get&permissions=storage.buckets.get", "",
			200)["permissions"])
	}
	have := h.want(t, "GET", at+"?optionsRequestedPolicyVersion=3&alt=json", "", 200)
	if have["kind"] != "storage#policy" || have["resourceId"] != "projects/_/buckets/bucket" ||
		have["bindings"] != nil || have["etag"] == "" {
		t.Errorf("the first policy: %v", have)
	}
	if got := held(); got != "<nil>" {
		t.Errorf("nobody has %s", got)
	}
	want := fmt.Sprintf(`{"kind":"storage#policy","resourceId":"projects/_/buckets/bucket","version":3,"etag":%q,"bindings":[{"role":"roles/owner","members":["allUsers"]}]}`, have["etag"])
	set := h.want(t, "PUT", at, want, 200)
	if fmt.Sprint(set["bindings"]) != "[map[members:[allUsers] role:roles/owner]]" || set["etag"] == have["etag"] {
		t.Errorf("set: %v", set)
	}
	if got := held(); got != "[storage.objects.get storage.buckets.get]" {
		t.Errorf("all users have %s", got)
	}
	h.want(t, "PUT", at, want, 412) // its etag is old by now
	h.want(t, "PUT", at, `{"bindings":[{"role":"roles/owner","members":["allUsers"],"condition":{"expression":"true"}}]}`, 400)
	h.want(t, "PUT", at, `{"bindings":[{"role":"roles/owner","members":["someone"]}]}`, 400)
	h.want(t, "PUT", at, `[`, 400)
	h.want(t, "GET", at+"/testPermissions", "", 400)
	h.want(t, "GET", "/storage/v1/b/nosuch/iam", "", 404)
	h.want(t, "PUT", "/storage/v1/b/nosuch/iam", want, 404)

	// A bucket of the same name does not inherit the policy.
	h.want(t, "DELETE", "/storage/v1/b/bucket", "", 204)
	h.want(t, "POST", "/storage/v1/b?project=proj-1", `{"name":"bucket"}`, 200)
	if got := held(); got != "<nil>" {
		t.Errorf("the new bucket lets nobody %s", got)
	}
}
