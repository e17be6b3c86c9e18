package iam_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/iam"
)

// Every refusal says what would help: the smallest role and the line that grants it where the policy is.
func TestRefusalSaysWhatHelps(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ permission, on, want string }{
		{"run.routes.invoke", service, "gcloud run services add-iam-policy-binding jokes --region=europe-north1 --project=giggle --member=user:eve@giggle.test --role=roles/run.servicesInvoker"},
		{"run.services.setIamPolicy", service, "--role=roles/run.admin"},
		{"run.services.list", "projects/giggle/locations/europe-north1", "gcloud projects add-iam-policy-binding giggle --member=user:eve@giggle.test --role=roles/run."},
		{"artifactregistry.repositories.downloadArtifacts", "projects/giggle/locations/l/repositories/r", "gcloud artifacts repositories add-iam-policy-binding r --location=l --project=giggle --member=user:eve@giggle.test --role=roles/artifactregistry."},
		{"iam.serviceAccounts.actAs", "projects/giggle/serviceAccounts/a@b.test", "gcloud iam service-accounts add-iam-policy-binding a@b.test --project=giggle --member=user:eve@giggle.test --role=roles/iam.serviceAccountUser"},
		{"storage.objects.get", "projects/giggle/buckets/b", "gcloud storage buckets add-iam-policy-binding gs://b --member=user:eve@giggle.test --role=roles/storage."},
		{"resourcemanager.projects.setIamPolicy", project, "--role=roles/"},
		{"no.such.permission", project, "--role=roles/owner"},
	} {
		f := fault.From(w.Authorize(t.Context(), iam.User("eve@giggle.test"), tt.permission, tt.on))
		if f == nil || len(f.Help) != 1 || !strings.Contains(f.Help[0].Description, tt.want) || !strings.Contains(f.Help[0].Description, " has "+tt.permission+".") {
			t.Errorf("%s on %s: %+v, want %q", tt.permission, tt.on, f, tt.want)
			continue
		}
		// The role that it names does grant it.
		role := f.Help[0].Description[strings.LastIndex(f.Help[0].Description, "=")+1:]
		w.bind(t, project, role, "user:eve@giggle.test")
		if !w.Allowed(iam.User("eve@giggle.test"), tt.permission, tt.on) {
			t.Errorf("%s does not grant %s", role, tt.permission)
		}
		w.bind(t, project, "roles/owner", "user:you@giggle.test")
	}
}
