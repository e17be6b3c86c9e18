package iam_test

import (
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
)

// Every refusal says what would help: the smallest role and a line that grants it, and that works whether the resource
// is there or not: who is refused may not learn that.
func TestRefusalSaysWhatHelps(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ permission, on, want string }{
		{"run.routes.invoke", service, "gcloud projects add-iam-policy-binding giggle --member=user:eve@giggle.test --role=roles/run.invoker"},
		{"run.services.setIamPolicy", service, "--role=roles/run.admin"},
		{"run.services.list", "projects/giggle/locations/europe-north1", "gcloud projects add-iam-policy-binding giggle --member=user:eve@giggle.test --role=roles/run."},
		{"artifactregistry.repositories.downloadArtifacts", "projects/giggle/locations/l/repositories/r", "gcloud projects add-iam-policy-binding giggle --member=user:eve@giggle.test --role=roles/artifactregistry."},
		{"iam.serviceAccounts.actAs", "projects/giggle/serviceAccounts/a@giggle.iam.gserviceaccount.com", "gcloud projects add-iam-policy-binding giggle --member=user:eve@giggle.test --role=roles/iam.serviceAccountUser"},
		{"storage.objects.get", "projects/giggle/buckets/b", "gcloud storage buckets add-iam-policy-binding gs://b --member=user:eve@giggle.test --role=roles/storage."},
		{"resourcemanager.projects.setIamPolicy", project, "--role=roles/"},
	} {
		f := fault.From(w.Authorize(t.Context(), iam.User("eve@giggle.test"), tt.permission, tt.on))
		if f == nil || len(f.Help) != 1 || !strings.Contains(f.Help[0].Description, tt.want) ||
			!strings.Contains(f.Help[0].Description, " has "+tt.permission+".") {
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

// A line that can't be followed isn't given; one for a single resource only if that is there.
func TestGrantCanBeFollowed(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, permission, on, want string }{
		{"an account", "iam.serviceAccounts.getAccessToken", a.Name(),
			"gcloud iam service-accounts add-iam-policy-binding " + a.Email + " --project=giggle "},
		{"an account of any project", "iam.serviceAccounts.getAccessToken", "projects/-/serviceAccounts/" + a.Email,
			"gcloud iam service-accounts add-iam-policy-binding " + a.Email + " --project=giggle "},
		{"no account", "iam.serviceAccounts.getAccessToken", "projects/-/serviceAccounts/dep@giggle.iam.gserviceaccount.com",
			"gcloud projects add-iam-policy-binding giggle "},
		{"an account of nobody's", "iam.serviceAccounts.actAs", "projects/-/serviceAccounts/a@b.test", ""},
		{"a default account", "iam.serviceAccounts.actAs",
			"projects/-/serviceAccounts/123456789012-compute@developer.gserviceaccount.com",
			"gcloud projects add-iam-policy-binding 123456789012 "},
		{"an account by its id", "iam.serviceAccounts.actAs", "projects/-/serviceAccounts/1234567890", ""},
		{"a bucket", "storage.objects.get", "projects/_/buckets/b", "gcloud storage buckets add-iam-policy-binding gs://b "},
		{"an object", "storage.objects.get", "projects/_/buckets/b/objects/o",
			"gcloud storage buckets add-iam-policy-binding gs://b "},
		{"a location", "run.services.list", "projects/giggle/locations/l", "gcloud projects add-iam-policy-binding giggle "},
		{"any project", "run.services.list", "projects/-/locations/l", ""},
		{"no project", "run.services.list", "folders/1", ""},
		{"the platform", "resourcemanager.projects.create", iam.Platform, "giggle up --project-creators="},
	} {
		link, ok := w.Grant(iam.User("eve@giggle.test"), tt.permission, tt.on)
		if ok != (tt.want != "") || ok && !strings.Contains(link.Description, tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, link.Description, ok, tt.want)
		}
	}
}

// An explanation names what decided and what nearly did.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	w.now = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	p := conditional(`request.time < timestamp("2027-01-01T00:00:00Z")`)
	p.Conditional[0].Role, p.Conditional[0].Condition.Title = "roles/run.invoker", "until new year"
	failing := p.Conditional[0]
	failing.Condition = iam.Condition{Title: "nowhere", Expression: `request.time.getHours("Nowhere") == 8`}
	p.Conditional = append(p.Conditional, failing)
	p.Bindings = []iam.Binding{
		{Role: "roles/run.viewer", Members: []string{"user:eve@giggle.test"}},
		{Role: "roles/run.invoker", Members: []string{"domain:friends.test", "serviceAccount:" + a.Email}},
	}
	if _, err := w.SetPolicy(t.Context(), project, p); err != nil {
		t.Fatal(err)
	}
	if _, err := w.UpdateAccount(t.Context(), "giggle", a.Email,
		func(a *iam.Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		who  iam.Principal
		want []string
	}{
		{iam.User("eve@giggle.test"), []string{
			"DENIED: run.routes.invoke for user:eve@giggle.test on " + service + "\n",
			"policies asked: " + service + ", projects/giggle\n",
			"not by roles/run.viewer, given to user:eve@giggle.test on projects/giggle: the role does not have the permission\n",
			`not by roles/run.invoker, given to user:eve@giggle.test on projects/giggle, whose condition is false: "until new year" is request.time < timestamp("2027-01-01T00:00:00Z"); resource.name="` + service + `" resource.type="run.googleapis.com/Service" resource.service="run.googleapis.com" request.time=2027-01-15T08:00:00Z`,
			"whose condition failed (unknown time zone Nowhere)",
			"To grant it: gcloud run services add-iam-policy-binding jokes",
		}},
		{iam.User("a@friends.test"), []string{"ALLOWED: ",
			"by roles/run.invoker, given to domain:friends.test on projects/giggle\n"}},
		{iam.ServiceAccount(a.Email), []string{"ALLOWED: ", "but the account is disabled or deleted"}},
		{iam.Anonymous, []string{"DENIED: run.routes.invoke for anonymous", "no binding in them names anonymous"}},
	} {
		text := w.Explain(tt.who, "run.routes.invoke", service).String()
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", tt.who, want, text)
			}
		}
	}
}
