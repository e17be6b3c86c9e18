package iam_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/iam"
	"giggle/store"
)

// projectOwner: and its kin are whoever has the basic role on the project, and nobody else.
func TestBasicRoleHolders(t *testing.T) {
	w := newWorld(t)
	const bucket = "projects/giggle/buckets/b"
	_, err := w.SetPolicy(t.Context(), project, iam.Policy{Bindings: []iam.Binding{
		{Role: "roles/owner", Members: []string{"user:owner@giggle.test", "domain:owners.test"}},
		{Role: "roles/editor", Members: []string{"user:editor@giggle.test"}},
		{Role: "roles/viewer", Members: []string{"user:viewer@giggle.test"}},
		{Role: "roles/run.viewer", Members: []string{"projectOwner:another", "user:else@giggle.test"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.SetPolicy(t.Context(), bucket, iam.Policy{Bindings: []iam.Binding{ // as a new bucket has them
		{Role: "roles/storage.legacyBucketOwner", Members: []string{"projectEditor:giggle", "projectOwner:giggle"}},
		{Role: "roles/storage.legacyBucketReader", Members: []string{"projectViewer:giggle"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{
		"editor@giggle.test": "projectEditor:giggle", "viewer@giggle.test": "projectViewer:giggle",
		"owner@giggle.test": "projectOwner:giggle",
		"any@owners.test":   "projectOwner:giggle", "else@giggle.test": "",
	} {
		e := w.Explain(iam.User(who), "storage.objects.list", bucket)
		if want == "" != !e.Allowed || e.By != nil && e.By.Member != want {
			t.Errorf("%s: want by %q\n%s", who, want, e)
		}
	}
}

// Members and bindings are kept as IAM keeps them: addresses in lower case, nothing twice.
func TestPolicyIsKeptNormal(t *testing.T) {
	w := newWorld(t)
	p, err := w.SetPolicy(t.Context(), project, iam.Policy{Bindings: []iam.Binding{
		{
			Role:    "roles/run.invoker",
			Members: []string{"user:Eve@Giggle.Test", "user:eve@giggle.test", "domain:Giggle.Test"},
		},
		{Role: "roles/run.viewer", Members: nil},
		{
			Role:    "roles/run.viewer",
			Members: []string{"deleted:user:Bob@giggle.test?uid=123", "principal://iam.googleapis.com/X"},
		},
		{Role: "roles/run.invoker", Members: []string{"user:eve@giggle.test", "allUsers"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Bindings) != 2 || strings.Join(p.Bindings[0].Members,
		" ") != "user:eve@giggle.test domain:giggle.test allUsers" ||
		strings.Join(p.Bindings[1].Members,
			" ") != "deleted:user:bob@giggle.test?uid=123 principal://iam.googleapis.com/X" {
		t.Errorf("kept as %+v", p)
	}
	if !w.Allowed(iam.User("EVE@giggle.test"), "run.routes.invoke", service) {
		t.Error("the case of a principal's address counts")
	}
}

// A service account of a project that is here has to be here; one of another platform's may be anything.
func TestAccountsInPolicies(t *testing.T) {
	w := newWorld(t)
	err := w.store.Update(t.Context(),
		func(tx *store.Tx) error { return w.CreateDefaults(tx, "giggle", number, "user:you@giggle.test") })
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := w.CreateAccount(t.Context(), "was-here", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	before := w.bind(t, project, "roles/run.invoker", "serviceAccount:"+gone.Email)
	if err := w.DeleteAccount(t.Context(), "giggle", gone.Email); err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]bool{
		a.Email: true, strings.ToUpper(a.Email): true, iam.ComputeAccount(number): true, iam.BuildAccount(number): true,
		"nobody@giggle.iam.gserviceaccount.com": false, gone.Email: false,
		"nobody@elsewhere.iam.gserviceaccount.com": true, iam.ComputeAccount("999999999999"): true, "a@b.test": true,
		"service-" + number + "@serverless-robot-prod.iam.gserviceaccount.com": true,
		"service-" + number + "@gcp-sa-cloudbuild.iam.gserviceaccount.com":     true,
		a.UniqueID: false, "": false,
	} {
		_, err := w.SetPolicy(t.Context(), service, iam.Policy{
			Bindings: []iam.Binding{{Role: "roles/run.invoker", Members: []string{"serviceAccount:" + member}}},
		})
		if (err == nil) != want || err != nil && !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v, want accepted %v", member, err, want)
		}
		if err != nil && strings.Contains(member, "@") &&
			!strings.Contains(err.Error(), "Service account "+member+" does not exist.") {
			t.Errorf("%s: %v", member, err)
		}
	}
	// What a policy names since before may stay: the deletion renamed it.
	p := w.Policy(project)
	if want := "deleted:serviceAccount:" + gone.Email + "?uid=" + gone.UniqueID; p.Bindings[0].Members[0] != want {
		t.Fatalf("%+v became %+v", before, p)
	}
	p.Bindings = append(p.Bindings, iam.Binding{
		Role:    "roles/run.viewer",
		Members: []string{"serviceAccount:" + a.Email},
	})
	if _, err := w.SetPolicy(t.Context(), project, p); err != nil {
		t.Errorf("a policy with a member that was deleted: %v", err)
	}
}

func TestDeletedMembers(t *testing.T) {
	for s, want := range map[string]bool{
		"deleted:serviceAccount:a@p.iam.gserviceaccount.com?uid=123": true, "deleted:user:a@b.test?uid=1": true,
		"deleted:group:a@b.test?uid=1":                       true,
		"deleted:serviceAccount:a@p.iam.gserviceaccount.com": false, "deleted:serviceAccount:a@b.test?uid=": false,
		"deleted:serviceAccount:a@b.test?uid=x": false,
		"deleted:a@b.test?uid=1":                false, "deleted:domain:b.test?uid=1": false,
		"deleted:user:a?uid=1": false,
		"deleted:":             false, "deleted": false,
		"deleted:deleted:user:a@b.test?uid=1": false,
	} {
		if err := iam.CheckMember(s); (err == nil) != want {
			t.Errorf("CheckMember(%q) = %v", s, err)
		}
	}
}

// Whatever a member is, it is refused as the caller's fault, or kept in a form that is kept as it is.
func FuzzMember(f *testing.F) {
	w := newWorld(f)
	for _, s := range []string{"user:A@b.test", "domain:B.test", "deleted:user:A@b.test?uid=1", "allUsers",
		"principal://x", "projectOwner:giggle", "serviceAccount:\u212A@b.test", "x:y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, member string) {
		set := func(member string) (string, error) {
			p, err := w.SetPolicy(t.Context(), project, iam.Policy{
				Bindings: []iam.Binding{{Role: "roles/run.invoker", Members: []string{member}}},
			})
			if err != nil {
				return "", err
			}
			return p.Bindings[0].Members[0], nil
		}
		kept, err := set(member)
		if err != nil {
			if !fault.Is(err, fault.InvalidArgument) {
				t.Errorf("%q: %v", member, err)
			}
			return
		}
		if again, err := set(kept); err != nil || again != kept {
			t.Errorf("%q is kept as %q, and that as %q, %v", member, kept, again, err)
		}
	})
}
