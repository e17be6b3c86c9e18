package iamadmin_test

import (
	"slices"
	"testing"

	"giggle/iam"
)

func TestPredefinedRoles(t *testing.T) {
	w := newWorld(t)
	r := w.CallAs(t, w.Stranger, "GET", "/v1/roles/run.invoker", "", 200)
	if !slices.Contains(r["includedPermissions"].([]any), any("run.routes.invoke")) ||
		r["title"] != "Cloud Run Invoker" || r["stage"] != "GA" {
		t.Errorf("run.invoker = %v", r)
	}
	w.CallAs(t, w.Stranger, "GET", "/v1/roles/no.such", "", 404)
	basic := w.CallAs(t, w.Stranger, "GET", "/v1/roles", "", 200)["roles"].([]any)
	if len(basic) < 80 || basic[0].(map[string]any)["includedPermissions"] != nil {
		t.Errorf("%d roles, the first %v", len(basic), basic[0])
	}
	full := w.CallAs(t, w.Stranger, "GET", "/v1/roles?view=FULL&pageSize=1", "", 200)
	if full["roles"].([]any)[0].(map[string]any)["includedPermissions"] == nil || full["nextPageToken"] == nil {
		t.Errorf("full view: %v", full)
	}
	grantable := w.Call(t, "POST", "/v1/roles:queryGrantableRoles",
		`{"fullResourceName":"//run.googleapis.com/projects/giggle/locations/l/services/s"}`, 200)
	var names []string
	for _, r := range grantable["roles"].([]any) {
		names = append(names, r.(map[string]any)["name"].(string))
	}
	if !slices.Contains(names, "roles/run.invoker") || slices.Contains(names, "roles/artifactregistry.reader") {
		t.Errorf("grantable on a service: %v", names)
	}
	w.Call(t, "POST", "/v1/roles:queryGrantableRoles", `{"fullResourceName":"projects/giggle"}`, 400)
	testable := w.Call(t, "POST", "/v1/permissions:queryTestablePermissions",
		`{"fullResourceName":"//cloudresourcemanager.googleapis.com/projects/giggle"}`, 200)
	if n := len(testable["permissions"].([]any)); n < 500 {
		t.Errorf("%d testable permissions", n)
	}
}

func TestCustomRoleLife(t *testing.T) {
	w := newWorld(t)
	const role = "/v1/projects/giggle/roles/Teller"
	r := w.Call(t, "POST", "/v1/projects/giggle/roles",
		`{"roleId":"Teller","role":{"title":"Teller","includedPermissions":["iam.serviceAccounts.list","iam.roles.list","iam.roles.list"],"stage":"GA"}}`, 200)
	if r["name"] != "projects/giggle/roles/Teller" || len(r["includedPermissions"].([]any)) != 2 {
		t.Errorf("created %v", r)
	}
	for body, status := range map[string]int{
		`{"roleId":"Teller","role":{}}`: 409,
		`{"roleId":"a b","role":{}}`:    400,
		`{"roleId":"Other","role":{"includedPermissions":["no.such.permission"]}}`: 400,
	} {
		w.Call(t, "POST", "/v1/projects/giggle/roles", body, status)
	}
	w.CallAs(t, w.Stranger, "GET", role, "", 403)
	w.CallAs(t, w.Stranger, "GET", "/v1/projects/nowhere/roles", "", 403)

	// A binding to it works, and follows each change at once.
	bind := func(member string) {
		t.Helper()
		p := w.IAM.Policy("projects/giggle")
		p.Bindings = append(p.Bindings, iamBinding("projects/giggle/roles/Teller", member))
		if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", p); err != nil {
			t.Fatal(err)
		}
	}
	list := func(status int) { t.Helper(); w.CallAs(t, w.Stranger, "GET", accounts, "", status) }
	list(403)
	bind("user:stranger@giggle.test")
	list(200)
	w.CallAs(t, w.Stranger, "GET", "/v1/projects/giggle/roles", "", 200)
	patched := w.Call(t, "PATCH", role+"?updateMask=includedPermissions",
		`{"title":"No","includedPermissions":["iam.roles.get"]}`, 200)
	if patched["title"] != "Teller" {
		t.Errorf("patched to %v", patched)
	}
	list(403)
	w.Call(t, "PATCH", role+"?updateMask=includedPermissions",
		`{"includedPermissions":["iam.serviceAccounts.list"],"etag":"`+r["etag"].(string)+`"}`, 409)
	w.Call(t, "PATCH", role+"?updateMask=includedPermissions", `{"includedPermissions":["iam.serviceAccounts.list"]}`,
		200)
	list(200)
	w.Call(t, "PATCH", role+"?updateMask=stage", `{"stage":"DISABLED"}`, 200)
	list(403)
	w.Call(t, "PATCH", role+"?updateMask=stage", `{"stage":"BETA"}`, 200)
	list(200)
	if r := w.Call(t, "DELETE", role, "", 200); r["deleted"] != true {
		t.Errorf("deleted %v", r)
	}
	list(403)
	w.Call(t, "DELETE", role, "", 400)
	if l := w.Call(t, "GET", "/v1/projects/giggle/roles", "", 200); l["roles"] != nil {
		t.Errorf("the deleted role is listed: %v", l)
	}
	if l := w.Call(t, "GET", "/v1/projects/giggle/roles?showDeleted=true", "", 200); len(l["roles"].([]any)) != 1 {
		t.Errorf("with the deleted ones: %v", l)
	}
	w.Call(t, "POST", role+":undelete", "", 200)
	list(200)
}

func iamBinding(role, member string) iam.Binding {
	return iam.Binding{Role: role, Members: []string{member}}
}
