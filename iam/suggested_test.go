package iam

import "testing"

// The roles that Google's reference names for what people are refused most, or the nearest one that is no admin's.
func TestSuggestedRoles(t *testing.T) {
	roles, err := parseRoles(predefinedRoles)
	if err != nil {
		t.Fatal(err)
	}
	for permission, want := range map[string]string{
		"aiplatform.endpoints.predict": "aiplatform.user",
		"aiplatform.models.list":       "aiplatform.viewer",

		"artifactregistry.dockerimages.list":              "artifactregistry.reader",
		"artifactregistry.packages.list":                  "artifactregistry.reader",
		"artifactregistry.repositories.create":            "artifactregistry.editor",
		"artifactregistry.repositories.createOnPush":      "artifactregistry.createOnPushWriter",
		"artifactregistry.repositories.delete":            "artifactregistry.editor",
		"artifactregistry.repositories.downloadArtifacts": "artifactregistry.reader",
		"artifactregistry.repositories.get":               "artifactregistry.reader",
		"artifactregistry.repositories.list":              "artifactregistry.reader",
		"artifactregistry.repositories.setIamPolicy":      "artifactregistry.admin",
		"artifactregistry.repositories.uploadArtifacts":   "artifactregistry.writer",
		"artifactregistry.tags.create":                    "artifactregistry.writer",
		"artifactregistry.versions.delete":                "artifactregistry.editor",

		"cloudbuild.builds.approve": "cloudbuild.builds.approver",
		"cloudbuild.builds.create":  "cloudbuild.builds.editor",
		"cloudbuild.builds.get":     "cloudbuild.builds.viewer",
		"cloudbuild.builds.list":    "cloudbuild.builds.viewer",
		"cloudbuild.builds.update":  "cloudbuild.builds.editor",

		"iam.roles.create":                      "iam.roleAdmin",
		"iam.roles.get":                         "iam.roleViewer",
		"iam.roles.list":                        "iam.roleViewer",
		"iam.serviceAccountKeys.create":         "iam.serviceAccountKeyAdmin",
		"iam.serviceAccountKeys.list":           "iam.serviceAccountViewer",
		"iam.serviceAccounts.actAs":             "iam.serviceAccountUser",
		"iam.serviceAccounts.create":            "iam.serviceAccountCreator",
		"iam.serviceAccounts.delete":            "iam.serviceAccountDeleter",
		"iam.serviceAccounts.get":               "iam.serviceAccountViewer",
		"iam.serviceAccounts.getAccessToken":    "iam.serviceAccountTokenCreator",
		"iam.serviceAccounts.getIamPolicy":      "iam.serviceAccountViewer",
		"iam.serviceAccounts.getOpenIdToken":    "iam.serviceAccountOpenIdTokenCreator",
		"iam.serviceAccounts.list":              "iam.serviceAccountViewer",
		"iam.serviceAccounts.setIamPolicy":      "iam.serviceAccountAdmin",
		"iam.serviceAccounts.signBlob":          "iam.serviceAccountTokenCreator",
		"logging.logEntries.create":             "logging.logWriter",
		"logging.logs.delete":                   "logging.admin",
		"logging.logEntries.list":               "logging.viewer",
		"resourcemanager.projects.create":       "resourcemanager.projectCreator",
		"resourcemanager.projects.get":          "browser",
		"resourcemanager.projects.getIamPolicy": "browser",
		"resourcemanager.projects.setIamPolicy": "resourcemanager.projectIamAdmin",

		"run.builds.create":         "run.developer",
		"run.jobs.create":           "run.developer",
		"run.jobs.run":              "run.invoker",
		"run.locations.list":        "run.viewer",
		"run.operations.get":        "run.viewer",
		"run.revisions.delete":      "run.developer",
		"run.revisions.get":         "run.viewer",
		"run.revisions.list":        "run.viewer",
		"run.routes.invoke":         "run.invoker",
		"run.services.create":       "run.developer",
		"run.services.delete":       "run.developer",
		"run.services.get":          "run.viewer",
		"run.services.getIamPolicy": "run.viewer",
		"run.services.list":         "run.viewer",
		"run.services.setIamPolicy": "run.admin",
		"run.services.update":       "run.developer",

		"serviceusage.services.enable": "serviceusage.serviceUsageAdmin",
		"serviceusage.services.get":    "serviceusage.serviceUsageViewer",
		"serviceusage.services.list":   "serviceusage.serviceUsageViewer",
		"serviceusage.services.use":    "serviceusage.serviceUsageConsumer",

		"source.repos.create": "source.admin",
		"source.repos.get":    "source.reader",
		"source.repos.list":   "source.reader",
		"source.repos.update": "source.writer",

		"storage.buckets.create":       "storage.editor",
		"storage.buckets.delete":       "storage.editor",
		"storage.buckets.get":          "storage.bucketViewer",
		"storage.buckets.setIamPolicy": "storage.admin",
		"storage.buckets.update":       "storage.admin",
		"storage.objects.create":       "storage.objectCreator",
		"storage.objects.delete":       "storage.objectUser",
		"storage.objects.get":          "storage.objectViewer",
		"storage.objects.list":         "storage.objectViewer",
		"storage.objects.update":       "storage.objectUser",
	} {
		if r, ok := roles.suggested(permission); !ok || r.Name != "roles/"+want {
			t.Errorf("%s: %+v, want %s", permission, r, want)
		}
	}
	for _, r := range roles { // whatever is asked for, no role of an agent is named while a person's would do
		for _, p := range r.Permissions {
			got, ok := roles.suggested(p)
			if !ok || suggestionOf(got, p).rank < notForPeople {
				continue
			}
			for _, other := range roles {
				if x := suggestionOf(other, p); other.set[p] && other.Name != ownerRole && x.distance == 0 &&
					x.rank < notForPeople {
					t.Errorf("%s: %s is suggested, and %s has it", p, got.Name, other.Name)
				}
			}
		}
	}
}
