package guard_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"giggle/api/guard"
	"giggle/api/guard/guardtest"
	"giggle/iam"
	"giggle/rest"
)

// thing is an API of routes that show what the guard made of a call.
func thing(m *rest.Mux) {
	for _, route := range []struct{ pattern, rpc string }{
		{"/open", "open"}, {"/unruled", "unruled"}, {"/anyone", "anyone"},
		{"/v1/{name=projects/**}", "named"}, {"/either", "either"}, {"/regional/{project}", "regional"},
		{"/nothing", "nothing"},
		{"/b/{bucket}", "bucket"},
	} {
		m.HandleFunc("GET", route.pattern, route.rpc, func(ctx context.Context, r *rest.Request) (any, error) {
			return map[string]any{"caller": guard.Caller(ctx).Member}, nil
		})
	}
}

var rules = guard.Rules{
	"open":     {Open: true},
	"anyone":   {Authenticated: true},
	"named":    {Permission: "run.services.get", On: "{name}"},
	"either":   {Permission: "run.services.get", On: "{name}|projects/{project_id}"},
	"regional": {Permission: "run.services.get", On: "projects/{project}/locations/{region}"},
	"nothing":  {Permission: "run.services.get", On: "{name}"},
	"bucket":   {Permission: "run.services.get", On: "projects/_/buckets/{bucket}"},
}

const service = "run.googleapis.com"

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, service, service, rules, thing)
	return w
}

func TestBranches(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Projects.SetEnabled(t.Context(), "another-project", false, service); err != nil {
		t.Fatal(err)
	}
	const none, bad = "", "ya29.of-another-platform"
	compute := iam.ComputeAccount(w.Project.Number)
	for _, tt := range []struct {
		name, token, path string
		headers           []string
		status            int
		reason            string
	}{
		{"open without a token", none, "/open", nil, 200, ""},
		{"open with a bad token", bad, "/open", nil, 200, ""},
		{"no rule, no token", none, "/unruled", nil, 401, "CREDENTIALS_MISSING"},
		{"no rule, even for the owner", w.Owner, "/unruled", nil, 403, ""},
		{"anyone without a token", none, "/anyone", nil, 401, "CREDENTIALS_MISSING"},
		{"anyone with a bad token", bad, "/anyone", nil, 401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
		{"anyone with another scheme", none, "/anyone", []string{"Authorization",
			"Basic eW91OnB3"}, 401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
		{"anyone signed in", w.Stranger, "/anyone", nil, 200, ""},

		{"permission", w.Owner, "/v1/projects/giggle/things/x", nil, 200, ""},
		{"no permission", w.Stranger, "/v1/projects/giggle/things/x", nil, 403, "IAM_PERMISSION_DENIED"},
		{"a project by its number", w.Owner, "/v1/projects/" + w.Project.Number + "/things/x", nil, 200, ""},
		{"unknown project", w.Owner, "/v1/projects/nowhere/things/x", nil, 403, "IAM_PERMISSION_DENIED"},
		{"disabled API", w.Owner, "/v1/projects/another-project/things/x", nil, 403, "SERVICE_DISABLED"},
		{"disabled API by number", w.Owner, "/v1/projects/" + w.Other.Number + "/things/x", nil, 403, "SERVICE_DISABLED"},
		{"disabled API is no news for a stranger", w.Stranger, "/v1/projects/another-project/things/x", nil, 403, "IAM_PERMISSION_DENIED"},

		{"any project's account", w.Owner, "/v1/projects/-/serviceAccounts/" + compute, nil, 200, ""},
		{"any project's account, for a stranger", w.Stranger, "/v1/projects/-/serviceAccounts/" +
			compute, nil, 403, "IAM_PERMISSION_DENIED"},
		{"any project's unknown account", w.Owner, "/v1/projects/-/serviceAccounts/who@giggle.test", nil, 404, ""},
		{"bucket", w.Owner, "/b/a-bucket", nil, 200, ""},
		{"bucket of another", w.Stranger, "/b/a-bucket", nil, 403, "IAM_PERMISSION_DENIED"},
		{"no bucket", w.Owner, "/b/no-bucket", nil, 404, ""},

		{"first of two templates", w.Owner, "/either?name=projects/giggle/things/x", nil, 200, ""},
		{"second of two templates", w.Owner, "/either?project_id=giggle", nil, 200, ""},
		{"the first decides when both are there", w.Owner, "/either?name=projects/nowhere/things/x&project_id=giggle", nil, 403, "IAM_PERMISSION_DENIED"},
		{"neither template", w.Owner, "/either", nil, 400, ""},
		{"a field is missing", w.Owner, "/nothing", nil, 400, ""},

		{"region in the host", w.Owner, "/regional/giggle", []string{"Host",
			"europe-north1-run.googleapis.com"}, 200, ""},
		{"no region in the host", w.Owner, "/regional/giggle", nil, 400, ""},
		{"no such region", w.Owner, "/regional/giggle", []string{"Host", "atlantis1-run.googleapis.com"}, 400, ""},

		{"a way up", w.Owner, "/v1/projects/giggle/%2e%2e/another-project", nil, 400, ""},
		{"a way up in one segment", w.Owner, "/regional/giggle%2f..%2fx", []string{"Host",
			"europe-north1-run.googleapis.com"}, 400, ""},
		{"an empty segment", w.Owner, "/either?name=projects/giggle//x", nil, 400, ""},
		{"a very long name", w.Owner, "/either?name=projects/giggle/" + strings.Repeat("x", 2000), nil, 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.CallAs(t, tt.token, "GET", tt.path, "", tt.status, tt.headers...)
			if got := guardtest.Reason(out); got != tt.reason {
				t.Errorf("reason = %q, want %q: %v", got, tt.reason, out)
			}
		})
	}
	if out := w.CallAs(t, w.Stranger, "GET", "/anyone", "", 200); out["caller"] != "user:stranger@giggle.test" {
		t.Errorf("the handler sees as its caller %v", out["caller"])
	}
}

// A condition on a service account's name sees the same name whatever the caller calls the account, as the handler
// means the same account: whoever may one of two must not get at the other by its number.
func TestAccountsHaveOneName(t *testing.T) {
	w := guardtest.New(t)
	w.Serve(t, service, "", guard.Rules{"named": {Permission: "iam.serviceAccounts.get", On: "{name}"}}, thing)
	ctx := t.Context()
	account := func(id string) iam.Account {
		a, err := w.IAM.CreateAccount(ctx, id, iam.Account{Project: "giggle"})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	public, secret, deleted := account("public"), account("secret"), account("secret-deleted")
	if err := w.IAM.DeleteAccount(ctx, "giggle", deleted.Email); err != nil {
		t.Fatal(err)
	}
	foreign := iam.ComputeAccount(w.Other.Number)
	for who, c := range map[string]struct {
		condition string
		may       map[string]int // what a caller of that condition gets, by the account's id
	}{
		"all but the secret ones": {`!resource.name.extract("serviceAccounts/{id}").startsWith("secret")`,
			map[string]int{
				public.Email: 200, public.UniqueID: 200, secret.Email: 403, secret.UniqueID: 403, deleted.UniqueID: 403,
			}},
		"only the public one": {`resource.name.endsWith("/serviceAccounts/` + public.Email +
			`") || resource.name.extract("serviceAccounts/{id}/keys/") == "` + public.Email + `"`, map[string]int{
			public.Email: 200, public.UniqueID: 200, secret.Email: 403, secret.UniqueID: 403, deleted.UniqueID: 403,
			foreign: 403, "107": 403,
		}},
	} {
		caller := iam.Principal{Member: "user:" + strings.ReplaceAll(who, " ", "-") + "@giggle.test"}
		p := w.IAM.Policy("projects/giggle")
		p.Version = 3
		p.Conditional = append(p.Conditional, iam.ConditionalBinding{
			Binding:   iam.Binding{Role: "roles/iam.serviceAccountAdmin", Members: []string{caller.Member}},
			Condition: iam.Condition{Title: "t", Expression: c.condition},
		})
		if _, err := w.IAM.SetPolicy(ctx, "projects/giggle", p); err != nil {
			t.Fatal(err)
		}
		token := w.Token(t, caller)
		for id, status := range c.may {
			for _, project := range []string{"giggle", w.Project.Number, "-"} {
				for _, rest := range []string{"", "/keys/k"} {
					want := status
					if _, err := w.IAM.Account(ctx, "-", id); project == "-" && err != nil && id != deleted.UniqueID {
						want = 404
					}
					t.Run(strings.Join([]string{who, project, id, rest}, " "), func(t *testing.T) {
						w.CallAs(t, token, "GET", "/v1/projects/"+project+"/serviceAccounts/"+id+rest, "", want)
					})
				}
			}
		}
	}
}

func TestUserProject(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, token, project string
		status               int
	}{
		{"own", w.Owner, "giggle", 200},
		{"own by number", w.Owner, w.Project.Number, 200},
		{"unknown", w.Owner, "nowhere", http.StatusForbidden},
		{"another's", w.Stranger, "giggle", http.StatusForbidden},
		{"hostile", w.Owner, "../" + strings.Repeat("x", 3000), http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.CallAs(t, tt.token, "GET", "/anyone", "", tt.status, "X-Goog-User-Project", tt.project)
			if got := guardtest.Reason(out); (got == "USER_PROJECT_DENIED") != (tt.status == 403) {
				t.Errorf("reason = %q: %v", got, out)
			}
			if b, err := json.Marshal(out); err != nil || len(b) > 1000 {
				t.Errorf("an answer of %d bytes (%v): it repeats what it was sent", len(b), err)
			}
		})
	}
}

func TestRegion(t *testing.T) {
	for host, want := range map[string]string{
		"europe-north1-run.googleapis.com": "europe-north1", "europe-north1-run.googleapis.com:443": "europe-north1",
		"run.googleapis.com": "", "atlantis1-run.googleapis.com": "", "-run.googleapis.com": "", "": "",
		"[::1]:443": "", "europe-north1": "",
	} {
		if got := guard.Region(host); got != want {
			t.Errorf("Region(%q) = %q, want %q", host, got, want)
		}
	}
}

// A rule that can't be one keeps the API from being served, at the start and not at the first call.
func TestChainRefusesRules(t *testing.T) {
	for name, rule := range map[string]guard.Rule{
		"none":                     {},
		"a permission on nothing":  {Permission: "a.b.c"},
		"two":                      {Permission: "a.b.c", On: "{name}", Authenticated: true},
		"open and absent":          {Open: true, Absent: true},
		"an open brace":            {Permission: "a.b.c", On: "projects/{project"},
		"a brace too many":         {Permission: "a.b.c", On: "projects/{{project}"},
		"no field":                 {Permission: "a.b.c", On: "projects/{}"},
		"an empty second template": {Permission: "a.b.c", On: "{name}|"},
	} {
		if _, err := guard.New(guard.Config{}).Chain(guard.API{Host: "x", Rules: guard.Rules{"rpc": rule}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
