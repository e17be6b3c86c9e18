package iamadmin_test

import (
	"strings"
	"testing"

	"giggle/api/guard/guardtest"
	"giggle/api/iamadmin"
	"giggle/iam"
	"giggle/rest"
)

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, "iam.googleapis.com", "", iamadmin.Rules, func(m *rest.Mux) {
		iamadmin.New(iamadmin.Config{Identity: w.IAM, Project: w.Projects.Find, Pages: w.Pages}).Register(m)
	})
	return w
}

func TestGetServiceAccount(t *testing.T) {
	w := newWorld(t)
	email := iam.ComputeAccount(w.Project.Number)
	var unique string
	for _, p := range []string{"giggle", w.Project.Number, "-"} {
		a := w.Call(t, "GET", "/v1/projects/"+p+"/serviceAccounts/"+email, "", 200)
		unique, _ = a["uniqueId"].(string)
		if a["name"] != "projects/giggle/serviceAccounts/"+email || a["projectId"] != "giggle" || a["email"] != email ||
			a["displayName"] == "" || strings.Trim(unique, "0123456789") != "" || unique == "" {
			t.Errorf("in %s: %v", p, a)
		}
	}
	if a := w.Call(t, "GET", "/v1/projects/-/serviceAccounts/"+unique, "", 200); a["email"] != email {
		t.Errorf("by its unique id: %v", a)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	mine, others := iam.ComputeAccount(w.Project.Number), iam.ComputeAccount(w.Other.Number)
	for _, tt := range []struct {
		name, token, method, path string
		status                    int
	}{
		{"unknown", w.Owner, "GET", "/v1/projects/giggle/serviceAccounts/who@giggle.iam.gserviceaccount.com", 404},
		{"unknown in any project", w.Owner, "GET", "/v1/projects/-/serviceAccounts/who@giggle.iam.gserviceaccount.com", 404},
		{"another project's", w.Owner, "GET", "/v1/projects/giggle/serviceAccounts/" + others, 404},
		{"unknown project", w.Owner, "GET", "/v1/projects/nowhere/serviceAccounts/" + mine, 403},
		{"stranger", w.Stranger, "GET", "/v1/projects/-/serviceAccounts/" + mine, 403},
		{"no token", "", "GET", "/v1/projects/-/serviceAccounts/" + mine, 401},
		{"no such route", w.Owner, "GET", "/v1/projects/giggle/serviceAccounts/a/b", 404},
		{"stranger lists", w.Stranger, "GET", "/v1/projects/giggle/serviceAccounts", 403},
		{"stranger deletes", w.Stranger, "DELETE", "/v1/projects/giggle/serviceAccounts/" + mine, 403},
		{"stranger undeletes", w.Stranger, "POST", "/v1/projects/-/serviceAccounts/" + mine + ":undelete", 403},
		{"stranger makes a key", w.Stranger, "POST", "/v1/projects/-/serviceAccounts/" + mine + "/keys", 403},
		{"no such key", w.Owner, "GET", "/v1/projects/-/serviceAccounts/" + mine + "/keys/abc", 404},
		{"delete another project's", w.Owner, "DELETE", "/v1/projects/giggle/serviceAccounts/" + others, 404},
	} {
		t.Run(tt.name, func(t *testing.T) { w.CallAs(t, tt.token, tt.method, tt.path, "", tt.status) })
	}
}
