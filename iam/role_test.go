package iam_test

import (
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
)

// What each role is for, with a permission of it and one that it must not have.
func TestPredefinedRoles(t *testing.T) {
	w := newWorld(t)
	who := iam.User("a@giggle.test")
	for _, tt := range []struct{ role, has, lacks string }{
		{"roles/owner", "resourcemanager.projects.setIamPolicy", ""},
		{"roles/owner", "run.routes.invoke", ""},
		// The owner has no tokens and signatures of accounts, as in Google Cloud: Token Creator is granted.
		{"roles/owner", "iam.serviceAccounts.actAs", "iam.serviceAccounts.getAccessToken"},
		{"roles/owner", "iam.serviceAccounts.setIamPolicy", "iam.serviceAccounts.getOpenIdToken"},
		{"roles/owner", "iam.serviceAccountKeys.create", "iam.serviceAccounts.signBlob"},
		{"roles/owner", "iam.roles.create", "iam.serviceAccounts.signJwt"},
		{"roles/owner", "run.builds.create", "iam.serviceAccounts.implicitDelegation"},
		{"roles/owner", "storage.objects.setIamPolicy", "resourcemanager.projects.create"},
		{"roles/owner", "storage.objects.get", "no.such.permission"},
		{"roles/editor", "storage.buckets.setIamPolicy", "iam.serviceAccounts.getAccessToken"},
		{"roles/viewer", "storage.buckets.get", "storage.buckets.getIamPolicy"},
		{"roles/editor", "run.services.create", "resourcemanager.projects.setIamPolicy"},
		{"roles/editor", "storage.objects.create", "run.services.setIamPolicy"},
		{"roles/viewer", "run.services.get", "run.services.create"},
		{"roles/viewer", "storage.objects.get", "storage.objects.delete"},
		{"roles/run.invoker", "run.routes.invoke", "run.services.get"},
		{"roles/run.admin", "run.services.setIamPolicy", "iam.serviceAccounts.actAs"},
		{"roles/run.developer", "run.services.update", "run.services.setIamPolicy"},
		{"roles/cloudbuild.builds.builder", "artifactregistry.repositories.uploadArtifacts", "run.services.create"},
		{"roles/cloudbuild.builds.builder", "storage.objects.get", "artifactregistry.repositories.delete"},
		{"roles/cloudbuild.builds.editor", "cloudbuild.builds.create", "artifactregistry.repositories.uploadArtifacts"},
		{"roles/artifactregistry.reader", "artifactregistry.repositories.downloadArtifacts", "artifactregistry.repositories.uploadArtifacts"},
		{"roles/iam.serviceAccountUser", "iam.serviceAccounts.actAs", "iam.serviceAccounts.getAccessToken"},
		{"roles/iam.serviceAccountTokenCreator", "iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.actAs"},
		{"roles/serviceusage.serviceUsageConsumer", "serviceusage.services.use", "serviceusage.services.enable"},
		{"roles/no.such", "", "run.services.get"},
	} {
		w.bind(t, project, tt.role, who.Member)
		if tt.has != "" && !w.Allowed(who, tt.has, service) {
			t.Errorf("%s does not grant %s", tt.role, tt.has)
		}
		if tt.lacks != "" && w.Allowed(who, tt.lacks, service) {
			t.Errorf("%s grants %s", tt.role, tt.lacks)
		}
	}
}

// A binding to a role that is not there is refused where it would grant nothing without a word.
func TestBindingNeedsItsRole(t *testing.T) {
	w := newWorld(t)
	set := func(roles ...string) error {
		p := w.Policy(project)
		p.Bindings = nil
		for _, r := range roles {
			p.Bindings = append(p.Bindings, iam.Binding{Role: r, Members: []string{"user:a@giggle.test"}})
		}
		_, err := w.SetPolicy(t.Context(), project, p)
		return err
	}
	for role, ok := range map[string]bool{
		"roles/run.invoker": true, "roles/run.invokr": false, "projects/giggle/roles/none": false,
		"roles/spanner.admin": true,
	} {
		if err := set(role); (err == nil) != ok || !ok && !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v, want it taken: %v", role, err, ok)
		}
	}
	if _, err := w.CreateRole(t.Context(), "giggle", "mine",
		iam.Role{Permissions: []string{"run.services.get"}}); err != nil {
		t.Fatal(err)
	}
	if err := set("projects/giggle/roles/mine"); err != nil {
		t.Fatal(err)
	}
	// Long after it was deleted, its binding is not in the way of other changes.
	if _, err := w.DeleteRole(t.Context(), "projects/giggle/roles/mine", ""); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(37 * 24 * time.Hour)
	if err := w.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := set("projects/giggle/roles/mine", "roles/viewer"); err != nil {
		t.Error(err)
	}
	if err := set("roles/viewer"); err != nil {
		t.Error(err)
	}
	if err := set("projects/giggle/roles/mine"); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("bound again: %v", err)
	}
}
