package cloud

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/api/guard"
	"giggle/iam"
	"giggle/projects"
	"giggle/storage"
	"giggle/store"
)

// wider are the RPCs that need more than their rule says, with a role that has it all: who copies reads, too.
var wider = map[string]string{
	"storage.objects.compose": "roles/storage.objectAdmin", "storage.objects.copy": "roles/storage.objectAdmin",
	"storage.objects.rewrite": "roles/storage.objectAdmin",
}

// outside are the beginnings of paths that are in no project: nobody has a role there.
var outside = regexp.MustCompile(`^/v[12](beta1)?/(\{(name|parent|log_name|model|endpoint)=)?(organizations|folders|billingAccounts|operations|locations|endpoints/|publishers/)`)

// TestMatrix calls every route as every kind of caller. What is refused is refused with the right code, and has changed
// nothing.
func TestMatrix(t *testing.T) {
	c := newCloudWith(t, func(cfg *Config) {
		cfg.Quotas = map[string]int{"projects": 1000, "service-accounts": 1000, "custom-roles": 1000}
	})
	all := muxes(t, c)
	viewer, err := c.identity.Role("roles/viewer")
	if err != nil {
		t.Fatal(err)
	}
	routes, refused := 0, 0
	for _, a := range c.apis() {
		for _, r := range all[a.host].Routes() {
			rule := a.rules[r.RPC]
			if r.Method == "" || rule.Open {
				continue
			}
			routes++
			x := newExample(t, c, routes)
			call := func(token string) (status int, denied, changed bool) {
				before := revision(t, c)
				req := httptest.NewRequest(r.Method, "https://"+a.host+x.path(r.Pattern, rule.On),
					strings.NewReader("{}"))
				req.Host = "europe-north1-" + a.host
				req.Header.Set("Content-Type", "application/json")
				if token != "" {
					req.Header.Set("Authorization", "Bearer "+token)
				}
				w := httptest.NewRecorder()
				all[a.host].ServeHTTP(w, req)
				// A disabled API and a state that forbids it are 403, too, in other words.
				denied = w.Code == http.StatusForbidden && strings.Contains(w.Body.String(), "denied on resource")
				return w.Code, denied, revision(t, c) != before
			}
			what := fmt.Sprintf("%s: %s %s", a.host, r.Method, r.Pattern)

			for caller, token := range map[string]string{
				"nobody": "", "garbage": "ya29.garbage", "an expired token": x.expired,
				"a disabled account": x.disabled, "a deleted account": x.deleted,
				"a revoked token": x.revoked,
			} {
				if status, _, changed := call(token); status != http.StatusUnauthorized || changed {
					t.Errorf("%s as %s = %d (changed something: %v), want 401", what, caller, status, changed)
				}
			}
			may := func(caller, token string, allowed bool) {
				status, denied, changed := call(token)
				switch {
				case status == http.StatusUnauthorized:
					t.Errorf("%s as %s = 401", what, caller)
				case allowed && denied:
					t.Errorf("%s as %s is refused", what, caller)
				case !allowed && (!denied || changed):
					t.Errorf("%s as %s = %d (changed something: %v), want a refusal", what, caller, status, changed)
				}
				if denied {
					refused++
				}
			}
			if rule.Permission == "" {
				status, denied, changed := call(x.stranger)
				if changed || status == http.StatusUnauthorized || rule.On != "" && !denied {
					t.Errorf("%s as a stranger = %d (changed something: %v)", what, status, changed)
				}
				continue
			}
			may("a stranger", x.stranger, false)
			if has := slices.Contains(viewer.Permissions, rule.Permission); !has {
				x.bind(t, "roles/viewer")
				may("a viewer", x.caller, false)
			}
			x.bind(t, "roles/owner", "another-project")
			may("the owner of another project", x.caller, false)
			role := smallest(t, c, rule)
			if w := wider[r.RPC]; w != "" {
				role = w
			}
			x.bind(t, role)
			may("one with the role", x.caller, !outside.MatchString(r.Pattern))
		}
	}
	if routes < 100 || refused < 250 {
		t.Errorf("only %d routes were tried, and %d calls were refused", routes, refused)
	}
}

// smallest is the smallest role that gives what a rule asks for.
func smallest(t *testing.T, c *Cloud, rule guard.Rule) string {
	t.Helper()
	grant, _ := c.identity.Grant(iam.User("x@giggle.test"), rule.Permission, "projects/giggle")
	link := grant.Description
	role, _, _ := strings.Cut(link, " ")
	if !strings.HasPrefix(role, "roles/") {
		t.Fatalf("no role gives %s: %s", rule.Permission, link)
	}
	return role
}

// example is a project with something of every kind that routes name, and callers.
type example struct {
	c                                   *Cloud
	project, bucket                     string
	account                             string // e-mail address of a service account
	member                              string // of the caller
	caller                              string // token of who is given roles
	stranger                            string // token of who has none
	expired, disabled, deleted, revoked string
}

func newExample(t *testing.T, c *Cloud, n int) *example {
	t.Helper()
	ctx := t.Context()
	x := &example{c: c, project: fmt.Sprintf("matrix-%d", n), bucket: fmt.Sprintf("matrix-bucket-%d", n)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	token := func(p iam.Principal, life time.Duration) string {
		t.Helper()
		token, _, err := c.identity.AccessTokenFor(p, nil, life)
		must(err)
		return token
	}
	p, err := c.projects.Create(ctx, projects.Project{ID: x.project}, "user:maker@giggle.test")
	must(err)
	x.account = iam.ComputeAccount(p.Number)
	_, err = c.storage.CreateBucket(ctx, storage.Bucket{Name: x.bucket, Project: x.project})
	must(err)
	for _, id := range []string{"disabled", "deleted-one"} {
		_, err := c.identity.CreateAccount(ctx, id, iam.Account{Project: x.project})
		must(err)
	}
	email := func(id string) string { return id + "@" + x.project + ".iam.gserviceaccount.com" }
	x.disabled = token(iam.ServiceAccount(email("disabled")), time.Hour)
	x.deleted = token(iam.ServiceAccount(email("deleted-one")), time.Hour)
	x.bind(t, "roles/owner", x.project, "serviceAccount:"+email("disabled"), "serviceAccount:"+email("deleted-one"))
	_, err = c.identity.UpdateAccount(ctx, x.project, email("disabled"),
		func(a *iam.Account) error { a.Disabled = true; return nil })
	must(err)
	must(c.identity.DeleteAccount(ctx, x.project, email("deleted-one")))
	who := iam.User(fmt.Sprintf("caller-%d@giggle.test", n))
	x.member, x.caller = who.Member, token(who, time.Hour)
	x.expired, x.revoked = token(c.identity.Owner(), -time.Second), token(c.identity.Owner(), time.Hour)
	must(c.identity.Revoke(ctx, x.revoked))
	x.stranger = token(iam.User("stranger@giggle.test"), time.Hour)
	return x
}

// bind makes a role of the caller's the only one on the example's project, or on another.
func (x *example) bind(t *testing.T, role string, more ...string) {
	t.Helper()
	members, project := []string{x.member}, x.project
	if len(more) > 0 {
		project = more[0]
	}
	if len(more) > 1 {
		members = more[1:]
	}
	var platform []iam.Binding
	if role == "roles/resourcemanager.projectCreator" { // it is no role on a project
		platform = []iam.Binding{{Role: role, Members: members}}
	}
	for name, bindings := range map[string][]iam.Binding{
		"projects/" + x.project: nil, "projects/another-project": nil, "projects/" + project: {{
			Role:    role,
			Members: members,
		}},
		iam.Platform: platform,
	} {
		if _, err := x.c.identity.SetPolicy(t.Context(), name, iam.Policy{Bindings: bindings}); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	variables = regexp.MustCompile(`\{([^}=]*)(?:=([^}]*))?\}`)
	wildcards = regexp.MustCompile(`([a-zA-Z]+/)?(\*\*?)`)
)

// path fills a route's pattern with what the example has.
func (x *example) path(pattern, on string) string {
	named := map[string]string{
		"projects/": x.project, "locations/": "europe-north1", "serviceAccounts/": x.account, "buckets/": x.bucket,
		"b/": x.bucket,
	}
	p := variables.ReplaceAllStringFunc(pattern, func(v string) string {
		m := variables.FindStringSubmatch(v)
		if m[2] != "" {
			return strings.TrimPrefix(strings.Replace("/"+m[2], "/*/*", "/projects/*", 1), "/")
		}
		switch m[1] {
		case "namespace", "project", "project_id", "projectId":
			return x.project
		case "bucket", "destinationBucket":
			return x.bucket
		case "resource":
			if strings.Contains(pattern, "projects/{resource}") {
				return x.project
			}
		}
		return "x-1"
	})
	p = wildcards.ReplaceAllStringFunc(p, func(w string) string {
		m := wildcards.FindStringSubmatch(w)
		if v := named[m[1]]; v != "" {
			return m[1] + v
		}
		return m[1] + "x-1"
	})
	if strings.Contains(on, "{project}") && !strings.Contains(pattern, "{project}") {
		p += "?project=" + x.project
	}
	return p
}

func revision(t *testing.T, c *Cloud) (n int64) {
	t.Helper()
	err := c.store.View(t.Context(), func(tx *store.Tx) (err error) {
		n, err = store.Cursor(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
