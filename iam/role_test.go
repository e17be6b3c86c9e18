package iam_test

import (
	"fmt"
	"testing"

	"giggle/iam"
)

// What each role is for, with a permission of it and one that it must not have.
func TestPredefinedRoles(t *testing.T) {
	w := newWorld(t)
	who := iam.User("a@giggle.test")
	for _, tt := range []struct{ role, has, lacks string }{
		{"roles/owner", "resourcemanager.projects.setIamPolicy", ""},
		{"roles/owner", "run.routes.invoke", ""},
		{"roles/owner", "iam.serviceAccounts.getAccessToken", ""},
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

// One check costs less than a microsecond and no memory at 1,000 bindings.
func TestCheckAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	manyBindings(t, w)
	who := iam.User("u999@giggle.test")
	if n := testing.AllocsPerRun(100, func() {
		if !w.Allowed(who, "run.routes.invoke", service) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a check", n)
	}
}

func BenchmarkAllowed(b *testing.B) {
	w := newWorld(b)
	manyBindings(b, w)
	who := iam.User("u999@giggle.test")
	for b.Loop() {
		w.Allowed(who, "run.routes.invoke", service)
	}
}

func manyBindings(t testing.TB, w *world) {
	t.Helper()
	var p iam.Policy
	for i := range 1000 {
		p.Bindings = append(p.Bindings, iam.Binding{Role: "roles/run.invoker", Members: []string{fmt.Sprintf("user:u%d@giggle.test", i)}})
	}
	if _, err := w.SetPolicy(t.Context(), project, p); err != nil {
		t.Fatal(err)
	}
}
