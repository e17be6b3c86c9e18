package guard_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"giggle/api/guard"
	"giggle/api/guard/guardtest"
	"giggle/fault"
	"giggle/logging"
	"giggle/logging/audit"
	"giggle/rest"
)

// Everything that changes something or tries to is in the audit log, and every refusal; what only reads is not.
func TestCallsAreInTheAuditLog(t *testing.T) {
	w := guardtest.New(t)
	const thing = "/v1/projects/{project}/things/{thing}"
	const on = "projects/{project}/things/{thing}"
	rules := guard.Rules{
		"things.get":        {Permission: "run.services.get", On: on},
		"things.update":     {Permission: "run.services.update", On: on},
		"things.test":       {Permission: "run.services.get", On: on},
		"things.write":      {Permission: "run.services.update", On: on, Data: true},
		"things.refuse":     {Authenticated: true, On: on},
		"things.open":       {Open: true},
		"things.invalidate": {Authenticated: true, On: on},
	}
	ok := func(context.Context, *rest.Request) (any, error) { return map[string]string{}, nil }
	w.Serve(t, "things.googleapis.com", "", rules, func(m *rest.Mux) {
		m.HandleFunc("GET", thing, "things.get", ok)
		m.HandleFunc("PUT", thing, "things.update", ok)
		m.HandleFunc("POST", thing+":test", "things.test", ok)
		m.HandleFunc("POST", thing+":write", "things.write", ok)
		m.HandleFunc("POST", "/v1/open", "things.open", ok)
		m.HandleFunc("POST", thing+":refuse", "things.refuse", func(context.Context, *rest.Request) (any, error) {
			e := fault.New(fault.PermissionDenied, "No.")
			e.Metadata = map[string]string{"permission": "iam.serviceAccounts.actAs",
				"resource": "projects/giggle/serviceAccounts/x"}
			return nil, e
		})
		m.HandleFunc("POST", thing+":invalidate", "things.invalidate",
			func(context.Context, *rest.Request) (any, error) {
				return nil, fault.Invalid("spec.env", "the value %q is wrong", "hunter2")
			})
	})
	const at = "/v1/projects/giggle/things/x"
	for _, c := range []struct {
		what, token, method, path string
		status                    int
		want                      string // log, method, member, permission, resource, granted, code; "" for no entry
	}{
		{"a read", w.Owner, "GET", at, 200, ""},
		{"a read by POST", w.Owner, "POST", at + ":test", 200, ""},
		{"an open call", "", "POST", "/v1/open", 200, ""},
		{"a write", w.Owner, "PUT", at, 200, "activity things.update user:you@giggle.test run.services.update projects/giggle/things/x true 0"},
		{"a project's number", w.Owner, "PUT", "/v1/projects/" + w.Project.Number + "/things/x", 200, "activity things.update user:you@giggle.test run.services.update projects/giggle/things/x true 0"},
		{"a write of data", w.Owner, "POST", at + ":write", 200, "data_access things.write user:you@giggle.test run.services.update projects/giggle/things/x true 0"},
		{"a refused write", w.Stranger, "PUT", at, 403, "activity things.update user:stranger@giggle.test run.services.update projects/giggle/things/x false 7"},
		{"a refused read", w.Stranger, "GET", at, 403, "activity things.get user:stranger@giggle.test run.services.get projects/giggle/things/x false 7"},
		{"nobody", "", "GET", at, 401, "data_access things.get    - 16"},
		{"a bad token", "ya29.secret-secret", "GET", at, 401, "data_access things.get    - 16"},
		{"refused by the handler", w.Owner, "POST", at + ":refuse", 403, "activity things.refuse user:you@giggle.test iam.serviceAccounts.actAs projects/giggle/serviceAccounts/x false 7"},
		{"a write that failed", w.Owner, "POST", at + ":invalidate", 400, "activity things.invalidate user:you@giggle.test  projects/giggle/things/x - 3"},
	} {
		before := entries(t, w)
		w.CallAs(t, c.token, c.method, c.path, "", c.status, "User-Agent", "a-test")
		after := entries(t, w)
		if c.want == "" {
			if len(after) != len(before) {
				t.Errorf("%s is in the log: %+v", c.what, after[len(after)-1])
			}
			continue
		}
		if len(after) != len(before)+1 {
			t.Errorf("%s made %d entries, want 1", c.what, len(after)-len(before))
			continue
		}
		if got := line(t, after[len(after)-1]); got != c.want {
			t.Errorf("%s is logged as %q, want %q", c.what, got, c.want)
		}
	}
	for _, e := range entries(t, w) {
		if p := payload(t, e); strings.Contains(p.Status.Message, "hunter2") ||
			strings.Contains(p.Status.Message, "ya29") {
			t.Errorf("a value of a request is in the log: %+v", p)
		}
		if e.ID == "" || payload(t, e).Request.UserAgent != "a-test" || payload(t, e).Request.CallerIP == "" {
			t.Errorf("an entry without request id, user agent or address: %+v", e)
		}
	}
}

func entries(t *testing.T, w *guardtest.World) []logging.Entry {
	t.Helper()
	all, err := logging.Collect(w.Audit.Read(t.Context(), logging.Filter{}))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func payload(t *testing.T, e logging.Entry) audit.Payload {
	t.Helper()
	p, err := audit.PayloadOf(&e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func line(t *testing.T, e logging.Entry) string {
	p, granted := payload(t, e), "-"
	permission := ""
	if len(p.Authorization) == 1 {
		permission = p.Authorization[0].Permission
		granted = map[bool]string{true: "true", false: "false"}[p.Authorization[0].Granted]
	}
	_, name, _ := strings.Cut(e.Log, "/")
	code := map[int32]string{0: "0", 3: "3", 7: "7", 16: "16"}[p.Status.Code]
	return strings.Join([]string{name, p.MethodName, p.Authentication.PrincipalSubject, permission, p.ResourceName,
		granted, code}, " ")
}

// A broken disk under the log does not take the answer away: the write has happened.
func TestAnswerGoesOutWhenTheLogFails(t *testing.T) {
	w := guardtest.New(t)
	w.Serve(t, "things.googleapis.com", "", guard.Rules{"things.create": {Authenticated: true}}, func(m *rest.Mux) {
		m.HandleFunc(http.MethodPost, "/v1/things", "things.create",
			func(context.Context, *rest.Request) (any, error) { return map[string]string{}, nil })
	})
	if err := w.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	w.Call(t, "POST", "/v1/things", "", 200)
}
