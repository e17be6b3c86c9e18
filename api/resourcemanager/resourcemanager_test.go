package resourcemanager_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"giggle/api/guard/guardtest"
	"giggle/api/resourcemanager"
	"giggle/iam"
	"giggle/rest"
)

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, "cloudresourcemanager.googleapis.com", "", resourcemanager.Rules, func(m *rest.Mux) {
		resourcemanager.New(resourcemanager.Config{Projects: w.Projects, Policies: w.IAM}).Register(m)
	})
	return w
}

func TestGet(t *testing.T) {
	w := newWorld(t)
	for _, ref := range []string{"giggle", w.Project.Number} {
		v1 := w.Call(t, "GET", "/v1/projects/"+ref, "", 200)
		if v1["projectId"] != "giggle" || v1["projectNumber"] != w.Project.Number || v1["lifecycleState"] != "ACTIVE" ||
			v1["createTime"] == nil {
			t.Errorf("v1 %s: %v", ref, v1)
		}
		v3 := w.Call(t, "GET", "/v3/projects/"+ref, "", 200)
		if v3["name"] != "projects/"+w.Project.Number || v3["projectId"] != "giggle" || v3["state"] != "ACTIVE" ||
			v3["displayName"] != "giggle" {
			t.Errorf("v3 %s: %v", ref, v3)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	// Whatever an account has in a project: it is nothing on the platform.
	member := iam.ServiceAccount(iam.ComputeAccount(w.Project.Number))
	if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", iam.Policy{Bindings: []iam.Binding{
		{Role: "roles/owner", Members: []string{member.Member, w.IAM.Owner().Member}},
	}}); err != nil {
		t.Fatal(err)
	}
	account := w.Token(t, member)
	for _, tt := range []struct {
		name, token, method, path, body string
		status                          int
	}{
		// Whether a project exists is nobody's business who has no role there.
		{"unknown", w.Owner, "GET", "/v1/projects/nowhere", "", 403},
		{"unknown v3", w.Owner, "GET", "/v3/projects/nowhere", "", 403},
		{"not mine", w.Stranger, "GET", "/v1/projects/giggle", "", 403},
		{"no token", "", "GET", "/v1/projects", "", 401},
		{"bad filter", w.Owner, "GET", "/v1/projects?filter=colour:red", "", 400},
		{"bad query", w.Owner, "GET", "/v3/projects:search?query=name:(x", "", 400},
		{"no folders", w.Owner, "GET", "/v3/projects?parent=folders/1", "", 405},
		{"no tags", w.Owner, "POST", "/v1/projects", `{"projectId":"a-new-one","tags":{"1/a":"b"}}`, 405},
		{"a bad parent", w.Owner, "POST", "/v1/projects", `{"projectId":"a-new-one","parent":{"type":"project","id":"giggle"}}`, 400},
		{"a bad parent v3", w.Owner, "POST", "/v3/projects", `{"projectId":"a-new-one","parent":"folders/../x"}`, 400},
		{"short id", w.Owner, "POST", "/v1/projects", `{"projectId":"five5"}`, 400},
		{"upper case", w.Owner, "POST", "/v1/projects", `{"projectId":"Giggles-Two"}`, 400},
		{"path", w.Owner, "POST", "/v3/projects", `{"projectId":"../giggle"}`, 400},
		{"no id", w.Owner, "POST", "/v3/projects", `{}`, 400},
		{"taken", w.Owner, "POST", "/v1/projects", `{"projectId":"giggle"}`, 409},
		{"a stranger makes one", w.Stranger, "POST", "/v1/projects", `{"projectId":"a-new-one"}`, 403},
		{"a stranger makes one v3", w.Stranger, "POST", "/v3/projects", `{"projectId":"a-new-one"}`, 403},
		{"an owner of a project makes one", account, "POST", "/v1/projects", `{"projectId":"a-new-one"}`, 403},
		{"unknown operation", w.Owner, "GET", "/v1/operations/cp.1", "", 404},
		{"another's operation", w.Stranger, "GET", "/v1/operations/cp." + w.Project.Number, "", 404},
		{"permissions on nothing", w.Owner, "POST", "/v1/projects/nowhere:testIamPermissions", `{"permissions":["a.b"]}`, 404},
		{"permissions on nothing v3", w.Owner, "POST", "/v3/projects/nowhere:testIamPermissions", `{"permissions":["a.b"]}`, 404},
		{"too many permissions v3", w.Owner, "POST", "/v3/projects/giggle:testIamPermissions", `{"permissions":["a.b` +
			strings.Repeat(`","a.b`, 100) + `"]}`, 400},
		{"no policy v3", w.Owner, "POST", "/v3/projects/giggle:setIamPolicy", `{}`, 400},
		{"not mine to delete", w.Stranger, "DELETE", "/v1/projects/giggle", "", 403},
		{"not mine to delete v3", w.Stranger, "DELETE", "/v3/projects/giggle", "", 403},
		{"not mine to change", w.Stranger, "PUT", "/v1/projects/giggle", `{"name":"mine"}`, 403},
		{"not deleted", w.Owner, "POST", "/v1/projects/giggle:undelete", "{}", 400},
		{"a short name", w.Owner, "PUT", "/v1/projects/giggle", `{"name":"x"}`, 400},
		{"a bad label", w.Owner, "PUT", "/v1/projects/giggle", `{"name":"giggle","labels":{"A":"b"}}`, 400},
		{"a bad mask", w.Owner, "PATCH", "/v3/projects/giggle?updateMask=state", `{"state":"ACTIVE"}`, 400},
		{"move", w.Owner, "POST", "/v3/projects/giggle:move", `{"destinationParent":"folders/1"}`, 405},
	} {
		t.Run(tt.name, func(t *testing.T) { w.CallAs(t, tt.token, tt.method, tt.path, tt.body, tt.status) })
	}
}

// creator lets the stranger make projects.
func creator(t *testing.T, w *guardtest.World) {
	t.Helper()
	_, err := w.IAM.SetPolicy(t.Context(), iam.Platform, iam.Policy{Bindings: []iam.Binding{
		{
			Role:    "roles/resourcemanager.projectCreator",
			Members: []string{"user:stranger@giggle.test", w.IAM.Owner().Member},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestListShowsWhatTheCallerMaySee(t *testing.T) {
	w := newWorld(t)
	creator(t, w)
	w.CallAs(t, w.Stranger, "POST", "/v1/projects",
		`{"projectId":"a-strangers","name":"Not yours","labels":{"team":"red"}}`, 200)
	w.Call(t, "POST", "/v3/projects", `{"projectId":"labelled","displayName":"With labels","labels":{"team":"blue"}}`,
		200)
	for _, tt := range []struct {
		filter string
		want   []string
	}{
		{"", []string{"another-project", "giggle", "labelled"}},
		{"id:giggle", []string{"giggle"}},
		{"projectId=GIGGLE", []string{"giggle"}},
		{"id:a*", []string{"another-project"}},
		{"lifecycleState:ACTIVE id:l*", []string{"labelled"}},
		{"lifecycleState:DELETE_REQUESTED", nil},
		{"labels.team:blue", []string{"labelled"}},
		{"labels.team:*", []string{"labelled"}},
		{`name:"giggle"`, []string{"giggle"}},
	} {
		q := strings.NewReplacer(" ", "%20", `"`, "%22").Replace(tt.filter)
		for path, list := range map[string]string{"/v1/projects?filter=": "projects",
			"/v3/projects:search?query=": "projects"} {
			if got := guardtest.Names(w.Call(t, "GET", path+q, "", 200), list, "projectId"); !slices.Equal(got,
				tt.want) {
				t.Errorf("%s%s: %v, want %v", path, tt.filter, got, tt.want)
			}
		}
	}
	if got := guardtest.Names(w.CallAs(t, w.Stranger, "GET", "/v1/projects", "", 200), "projects",
		"projectId"); !slices.Equal(got, []string{"a-strangers"}) {
		t.Errorf("the stranger sees %v", got)
	}
}

// Its maker owns a new project, and nobody else does.
func TestCreate(t *testing.T) {
	w := newWorld(t)
	creator(t, w)
	op := w.CallAs(t, w.Stranger, "POST", "/v1/projects", `{"projectId":"brand-new","name":"Brand new"}`, 200)
	p, _ := op["response"].(map[string]any)
	if op["done"] != true || p["projectId"] != "brand-new" || p["name"] != "Brand new" ||
		p["@type"] != "type.googleapis.com/google.cloudresourcemanager.v1.Project" {
		t.Errorf("operation: %v", op)
	}
	if again := w.CallAs(t, w.Stranger, "GET", "/v1/"+op["name"].(string), "", 200); again["done"] != true ||
		again["name"] != op["name"] {
		t.Errorf("polled: %v", again)
	}
	w.CallAs(t, w.Stranger, "GET", "/v1/projects/brand-new", "", 200)
	w.Call(t, "GET", "/v1/projects/brand-new", "", 403)
}

func TestPolicies(t *testing.T) {
	w := newWorld(t)
	if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", iam.Policy{Bindings: []iam.Binding{
		{Role: "roles/owner", Members: []string{w.IAM.Owner().Member}},
	}}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"/v1/projects/giggle", "/v3/projects/" + w.Project.Number} {
		have := w.Call(t, "POST", v+":getIamPolicy", `{"options":{"requestedPolicyVersion":3}}`, 200)
		if got := guardtest.Names(have, "bindings", "role"); !slices.Equal(got, []string{"roles/owner"}) {
			t.Errorf("%s: %v", v, have)
		}
		const both = `{"role":"roles/owner","members":["user:you@giggle.test"]},{"role":"roles/run.invoker","members":["user:stranger@giggle.test"]}`
		etag := have["etag"].(string)
		set := w.Call(t, "POST", v+":setIamPolicy", `{"policy":{"etag":"`+etag+`","bindings":[`+both+`]}}`, 200)
		if got := guardtest.Names(set, "bindings", "role"); len(got) != 2 || set["etag"] == etag {
			t.Errorf("%s: %v", v, set)
		}
		w.Call(t, "POST", v+":setIamPolicy", `{"policy":{"etag":"`+etag+`","bindings":[`+both+`]}}`, 409)
		held := w.CallAs(t, w.Stranger, "POST", v+":testIamPermissions",
			`{"permissions":["run.routes.invoke","run.services.delete"]}`, 200)
		if got, _ := held["permissions"].([]any); len(got) != 1 || got[0] != "run.routes.invoke" {
			t.Errorf("%s: held %v", v, held)
		}
		w.Call(t, "POST", v+":setIamPolicy",
			`{"policy":{"bindings":[{"role":"roles/owner","members":["user:you@giggle.test"]}]}}`, 200)
	}
}

// As `gcloud projects list --filter` sends it, and as people write it for v1 and v3.
func TestFilters(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", "/v1/projects", `{"projectId":"h3-prod","name":"Howl Three","labels":{"env":"prod"},"parent":{"type":"folder","id":"12"}}`, 200)
	number := w.Call(t, "GET", "/v1/projects/h3-prod", "", 200)["projectNumber"].(string)
	w.Call(t, "POST", "/v1/projects", `{"projectId":"gone-one"}`, 200)
	w.Call(t, "DELETE", "/v1/projects/gone-one", "", 200)
	for filter, want := range map[string]string{
		"lifecycleState:ACTIVE":                         "another-project giggle h3-prod",
		"lifecycleState:ACTIVE AND (projectId=h3-prod)": "h3-prod",
		"lifecycleState:ACTIVE AND (projectId:h3*)":     "h3-prod",
		"project_id:h3-prod":                            "h3-prod",
		"PROJECT_ID=h3-prod":                            "h3-prod",
		"id:h3*":                                        "h3-prod",
		"name:howl*":                                    "h3-prod",
		`name="Howl Three"`:                             "h3-prod",
		"projectNumber=" + number:                       "h3-prod",
		"labels.env:prod":                               "h3-prod",
		"labels.env:*":                                  "h3-prod",
		"labels.env!=prod AND lifecycleState:ACTIVE":    "another-project giggle",
		"parent.id=1":                                   "",
		"parent.id=12":                                  "h3-prod",
		"parent=folders/12":                             "h3-prod",
		"parent.type:folder":                            "h3-prod",
		"parent.type:organization":                      "",
		"projectId:h3* AND lifecycleState:ACTIVE":       "h3-prod",
		"projectId:(giggle h3-prod)":                    "giggle h3-prod",
		"lifecycleState:DELETE_REQUESTED":               "gone-one",
		"NOT lifecycleState:ACTIVE":                     "gone-one",
		"h3":                                            "h3-prod",
		"(projectId:giggle OR labels.env:prod) AND NOT name:howl*": "giggle",
	} {
		q := url.Values{"filter": {filter}}.Encode()
		v1 := guardtest.Names(w.Call(t, "GET", "/v1/projects?"+q, "", 200), "projects", "projectId")
		q = url.Values{"query": {filter}}.Encode()
		v3 := guardtest.Names(w.Call(t, "GET", "/v3/projects:search?"+q, "", 200), "projects", "projectId")
		if strings.Join(v1, " ") != want || !slices.Equal(v1, v3) {
			t.Errorf("%s: %v and %v, want %q", filter, v1, v3, want)
		}
	}
}

// A project's life: renamed, deleted, and back, as `gcloud projects` and as v3's clients do it.
func TestLife(t *testing.T) {
	w := newWorld(t)
	p := w.Call(t, "GET", "/v1/projects/giggle", "", 200)
	p["name"], p["labels"] = "Much laughter", map[string]string{"env": "dev"}
	whole, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	got := w.Call(t, "PUT", "/v1/projects/giggle", string(whole), 200)
	if got["name"] != "Much laughter" || got["labels"].(map[string]any)["env"] != "dev" {
		t.Errorf("update: %v", got)
	}
	op := w.Call(t, "PATCH", "/v3/projects/giggle?updateMask=displayName", `{"displayName":"Less of it"}`, 200)
	got = w.Call(t, "GET", "/v3/projects/giggle", "", 200)
	if op["done"] != true || got["displayName"] != "Less of it" || got["labels"].(map[string]any)["env"] != "dev" {
		t.Errorf("patch: %v, then %v", op, got)
	}
	ancestors := w.Call(t, "POST", "/v1/projects/giggle:getAncestry", "{}", 200)["ancestor"].([]any)
	if len(ancestors) != 1 ||
		ancestors[0].(map[string]any)["resourceId"].(map[string]any)["id"] != "giggle" {
		t.Errorf("ancestors: %v", ancestors)
	}
	for _, tt := range []struct{ method, path string }{
		{"DELETE", "/v1/projects/giggle"}, {"POST", "/v1/projects/giggle:undelete"},
		{"DELETE", "/v3/projects/giggle"}, {"POST", "/v3/projects/giggle:undelete"},
	} {
		w.Call(t, tt.method, tt.path, "", 200)
		want := "DELETE_REQUESTED"
		if tt.method == "POST" {
			want = "ACTIVE"
		}
		v1, v3 := w.Call(t, "GET", "/v1/projects/giggle", "", 200), w.Call(t, "GET", "/v3/projects/giggle", "", 200)
		if v1["lifecycleState"] != want || v3["state"] != want || (v3["deleteTime"] == nil) != (want == "ACTIVE") {
			t.Errorf("after %s %s: %v, %v", tt.method, tt.path, v1, v3)
		}
	}
}
