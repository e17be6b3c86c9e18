package policies_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/iam/apiv1/iampb"
	"google.golang.org/genproto/googleapis/type/expr"
	"google.golang.org/protobuf/proto"

	"giggle/api/guard"
	"giggle/api/guard/guardtest"
	"giggle/api/policies"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

var rules = guard.Rules{
	"things.getIamPolicy":       {Permission: "run.services.getIamPolicy", On: "{resource}"},
	"things.setIamPolicy":       {Permission: "run.services.setIamPolicy", On: "{resource}"},
	"things.testIamPermissions": {Authenticated: true},
}

// things are there by one name only.
var things = policies.Resource{
	Resolve: func(_ context.Context, name string) (string, error) {
		if strings.HasSuffix(name, "/bad!") {
			return "", fault.Invalid("resource", "%q is no name", name)
		}
		return name, nil
	},
	Exists: func(_ context.Context, name string) error {
		if strings.HasSuffix(name, "/there") {
			return nil
		}
		return fault.New(fault.NotFound, "%s was not found.", name)
	},
}

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, "things.googleapis.com", "", rules, func(m *rest.Mux) {
		policies.Register(m, w.IAM, policies.Routes{ // as projects have it
			Pattern: "/v2/{resource=projects/*/things/*}",
			RPC:     "things",
			GetVerb: "POST",
			Resource: policies.Resource{Resolve: func(_ context.Context, name string) (string, error) {
				return name,
					nil
			}},
		})
		policies.Register(m, w.IAM, policies.Routes{
			Pattern: "/v1/{resource=projects/*/things/*}", RPC: "things",
			Resource: things,
		})
	})
	return w
}

const there = "/v1/projects/giggle/things/there"

func etag(t *testing.T, policy map[string]any) string {
	t.Helper()
	s, _ := policy["etag"].(string)
	if b, err := base64.StdEncoding.DecodeString(s); err != nil || len(b) == 0 {
		t.Fatalf("etag %q is not base64 (%v), which gcloud crashes on: %v", s, err, policy)
	}
	return s
}

// As `gcloud … add-iam-policy-binding` goes: get, change, set with the etag.
func TestReadModifyWrite(t *testing.T) {
	w := newWorld(t)
	before := w.Call(t, "GET", there+":getIamPolicy?options.requestedPolicyVersion=3", "", 200)
	first := etag(t, before)
	if before["version"] != 1.0 || before["bindings"] != nil {
		t.Errorf("the policy of what has none: %v", before)
	}
	set := `{"policy":{"version":3,"etag":"` + first +
		`","bindings":[{"role":"roles/run.invoker","members":["allUsers"]},{"role":"roles/viewer","members":[]}]},"updateMask":"bindings,etag,version"}`
	after := w.Call(t, "POST", there+":setIamPolicy", set, 200)
	if etag(t, after) == first {
		t.Error("a write did not change the etag")
	}
	if got := guardtest.Names(after, "bindings", "role"); len(got) != 1 || got[0] != "roles/run.invoker" {
		t.Errorf("bindings: %v; the one without members should be gone", after)
	}
	if again := w.Call(t, "GET", there+":getIamPolicy", "", 200); etag(t, again) != etag(t, after) {
		t.Errorf("read back: %v, written: %v", again, after)
	}
	w.Call(t, "POST", there+":setIamPolicy", set, 409) // its etag is old
	w.Call(t, "POST", there+":setIamPolicy", strings.Replace(set, `"etag":"`+first+`",`, "", 1), 200)
	if empty := w.Call(t, "POST", there+":setIamPolicy", `{"policy":{}}`, 200); empty["bindings"] != nil {
		t.Errorf("an empty policy became %v", empty)
	}
}

// As `gcloud … add-iam-policy-binding --condition=…` goes, and then a client that knows nothing of conditions.
func TestConditionRoundTrip(t *testing.T) {
	w := newWorld(t)
	first := etag(t, w.Call(t, "GET", there+":getIamPolicy?options.requestedPolicyVersion=3", "", 200))
	const condition = `{"expression":"request.time < timestamp(\"2100-01-01T00:00:00Z\")","title":"for now","description":"a while"}`
	set := w.Call(t, "POST", there+":setIamPolicy", `{"policy":{"version":3,"etag":"`+first+`","bindings":[
		{"role":"roles/run.invoker","members":["user:stranger@giggle.test"],"condition":`+condition+`},
		{"role":"roles/run.invoker","members":["user:other@giggle.test"]}]}}`, 200)
	whole := w.Call(t, "GET", there+":getIamPolicy?options.requestedPolicyVersion=3", "", 200)
	posted := w.Call(t, "POST", "/v2/projects/giggle/things/there:getIamPolicy",
		`{"options":{"requestedPolicyVersion":3}}`, 200)
	for _, p := range []map[string]any{set, whole, posted} {
		bindings, _ := p["bindings"].([]any)
		if p["version"] != 3.0 || len(bindings) != 2 {
			t.Fatalf("the policy: %v", p)
		}
		got, err := json.Marshal(bindings[1].(map[string]any)["condition"])
		var want map[string]any
		if err := json.Unmarshal([]byte(condition), &want); err != nil {
			t.Fatal(err)
		}
		if sorted, _ := json.Marshal(want); err != nil || string(got) != string(sorted) {
			t.Errorf("the condition came back as %s", got)
		}
	}
	if held := w.CallAs(t, w.Stranger, "POST", there+":testIamPermissions", `{"permissions":["run.routes.invoke"]}`,
		200); held["permissions"] == nil {
		t.Error("the condition is true and gives nothing")
	}
	old := w.Call(t, "GET", there+":getIamPolicy", "", 200)
	roles := guardtest.Names(old, "bindings", "role")
	if old["version"] != 1.0 || len(roles) != 2 || !strings.HasPrefix(roles[1], "roles/run.invoker_withcond_") ||
		strings.Contains(fmt.Sprint(old), "condition") {
		t.Errorf("as version 1: %v", old)
	}
	if posted := w.Call(t, "POST", "/v2/projects/giggle/things/there:getIamPolicy", "", 200); posted["version"] != 1.0 {
		t.Errorf("asked for by POST without a version: %v", posted)
	}
	back, err := json.Marshal(map[string]any{"policy": old})
	if err != nil {
		t.Fatal(err)
	}
	w.Call(t, "POST", there+":setIamPolicy", string(back), 400)
	w.Call(t, "POST", there+":setIamPolicy", `{"policy":{"version":1,"etag":"`+etag(t, old)+`"}}`, 400)
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		field                    string
	}{
		{"unknown get", "GET", "/v1/projects/giggle/things/gone:getIamPolicy", "", 404, ""},
		{"unknown set", "POST", "/v1/projects/giggle/things/gone:setIamPolicy", `{"policy":{}}`, 404, ""},
		{"bad name", "GET", "/v1/projects/giggle/things/bad!:getIamPolicy", "", 400, "resource"},
		{"no policy", "POST", there + ":setIamPolicy", `{}`, 400, "policy"},
		{"no body", "POST", there + ":setIamPolicy", "", 400, "policy"},
		{"not JSON", "POST", there + ":setIamPolicy", `{"policy":`, 400, ""},
		{"version 2", "POST", there + ":setIamPolicy", `{"policy":{"version":2}}`, 400, "policy.version"},
		{"bad role", "POST", there +
			":setIamPolicy", `{"policy":{"bindings":[{"role":"owner","members":["allUsers"]}]}}`, 400,
			"policy.bindings.role"},
		{"bad member", "POST", there +
			":setIamPolicy", `{"policy":{"bindings":[{"role":"roles/owner","members":["everyone"]}]}}`, 400,
			"policy.bindings.members"},
		{"foreign etag", "POST", there + ":setIamPolicy", `{"policy":{"etag":"BwX="}}`, 409, ""},
		{"a condition in version 1", "POST", there + ":setIamPolicy", `{"policy":{"version":1,"bindings":[{"role":"roles/run.invoker","members":["user:a@b.test"],"condition":{"title":"t","expression":"true"}}]}}`, 400, "policy.version"},
		{"a condition that is none", "POST", there + ":setIamPolicy", `{"policy":{"version":3,"bindings":[{"role":"roles/run.invoker","members":["user:a@b.test"],"condition":{"title":"t","expression":"maybe"}}]}}`, 400, "policy.bindings.condition.expression"},
		{"an empty condition", "POST", there + ":setIamPolicy", `{"policy":{"version":3,"bindings":[{"role":"roles/run.invoker","members":["user:a@b.test"],"condition":{}}]}}`, 400, "policy.bindings.condition.title"},
		{"get version 2", "GET", there + ":getIamPolicy?options.requestedPolicyVersion=2", "", 400, "options.requestedPolicyVersion"},
		{"get version x", "GET", there + ":getIamPolicy?options.requestedPolicyVersion=x", "", 400, "options.requestedPolicyVersion"},
		{"audit", "POST", there + ":setIamPolicy", `{"policy":{"auditConfigs":[{"service":"allServices"}]}}`, 405, "policy.auditConfigs"},
		{"too many permissions", "POST", there + ":testIamPermissions", `{"permissions":["a.b` + strings.Repeat(`","a.b`, 100) + `"]}`, 400, "permissions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.Call(t, tt.method, tt.path, tt.body, tt.status)
			if got := guardtest.Field(out); got != tt.field {
				t.Errorf("field = %q, want %q: %v", got, tt.field, out)
			}
		})
	}
}

// gcloud tests permissions on what it is about to create, so the resource need not be there.
func TestPermissions(t *testing.T) {
	w := newWorld(t)
	const body = `{"permissions":["run.routes.invoke","run.services.delete"]}`
	for _, tt := range []struct {
		name, token, path string
		want              int
	}{
		{"owner", w.Owner, there, 2},
		{"owner of what is not there yet", w.Owner, "/v1/projects/giggle/things/new", 2},
		{"stranger", w.Stranger, there, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.CallAs(t, tt.token, "POST", tt.path+":testIamPermissions", body, 200)
			if held, _ := out["permissions"].([]any); len(held) != tt.want {
				t.Errorf("held: %v, want %d", out, tt.want)
			}
		})
	}
	w.Call(t, "POST", there+":setIamPolicy",
		`{"policy":{"bindings":[{"role":"roles/run.invoker","members":["user:stranger@giggle.test"]}]}}`, 200)
	out := w.CallAs(t, w.Stranger, "POST", there+":testIamPermissions", body, 200)
	if held, _ := out["permissions"].([]any); len(held) != 1 || held[0] != "run.routes.invoke" {
		t.Errorf("held by a binding on the resource: %v", out)
	}
}

func TestProto(t *testing.T) {
	p := iam.Policy{Etag: "dgAAAAAAAAAB", Bindings: []iam.Binding{{Role: "roles/owner", Members: []string{"allUsers"}}}}
	w, err := policies.ToProto(p)
	if err != nil {
		t.Fatal(err)
	}
	back, err := policies.FromProto(w)
	if err != nil || back.Etag != p.Etag || back.Version != 1 || len(back.Bindings) != 1 ||
		back.Bindings[0].Role != "roles/owner" {
		t.Errorf("%+v became %+v, %v", p, back, err)
	}
	w = &iampb.Policy{
		Version: 3,
		Bindings: []*iampb.Binding{
			{Role: "roles/run.viewer", Members: []string{"user:a@b.test"}},
			{
				Role:      "roles/run.viewer",
				Members:   []string{"user:a@b.test"},
				Condition: &expr.Expr{Title: "t", Description: "d", Expression: "true"},
			},
		},
	}
	if back, err = policies.FromProto(w); err != nil || len(back.Bindings) != 1 || len(back.Conditional) != 1 {
		t.Fatalf("%v became %+v, %v", w, back, err)
	}
	if again, err := policies.ToProto(back); err != nil || !proto.Equal(again, w) {
		t.Errorf("%v became %v, %v", w, again, err)
	}
	for name, tt := range map[string]struct {
		in   *iampb.Policy
		code fault.Code
	}{
		"none":  {nil, fault.InvalidArgument},
		"audit": {&iampb.Policy{AuditConfigs: []*iampb.AuditConfig{{}}}, fault.Unimplemented},
	} {
		if _, err := policies.FromProto(tt.in); !fault.Is(err, tt.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := policies.ToProto(iam.Policy{Etag: "not base64!"}); err == nil {
		t.Error("an etag that is not base64 passed")
	}
}

// The methods for servers with protos do what the routes do.
func TestMethods(t *testing.T) {
	w := newWorld(t)
	m := policies.New(w.IAM, things)
	ctx := t.Context()
	const there, gone = "projects/giggle/things/there", "projects/giggle/things/gone"
	set, err := m.SetIamPolicy(ctx, &iampb.SetIamPolicyRequest{
		Resource: there,
		Policy: &iampb.Policy{
			Version: 3,
			Bindings: []*iampb.Binding{
				{
					Role:      "roles/run.invoker",
					Members:   []string{"user:a@b.test"},
					Condition: &expr.Expr{Title: "t", Expression: "true"},
				},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := m.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{
		Resource: there,
		Options:  &iampb.GetPolicyOptions{RequestedPolicyVersion: 3},
	})
	if err != nil || !proto.Equal(whole, set) || len(whole.GetBindings()) != 1 {
		t.Errorf("set %v, got %v, %v", set, whole, err)
	}
	old, err := m.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{Resource: there})
	if err != nil || old.GetVersion() != 1 || old.GetBindings()[0].GetCondition() != nil {
		t.Errorf("without a version: %v, %v", old, err)
	}
	for _, name := range []string{there, gone} { // on what is about to be made, too
		owner := rest.WithCall(ctx, &rest.Call{Caller: w.IAM.Owner()})
		asked := &iampb.TestIamPermissionsRequest{Resource: name, Permissions: []string{"run.routes.invoke"}}
		if held, err := m.TestIamPermissions(owner, asked); err != nil || len(held.GetPermissions()) != 1 {
			t.Errorf("%s, the owner: %v, %v", name, held, err)
		}
		if held, err := m.TestIamPermissions(ctx, asked); err != nil || len(held.GetPermissions()) != 0 {
			t.Errorf("%s, unauthenticated: %v, %v", name, held, err)
		}
	}
	many := make([]string, policies.MaxPermissions+1)
	_, errGet := m.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{Resource: gone})
	_, errSet := m.SetIamPolicy(ctx, &iampb.SetIamPolicyRequest{Resource: gone, Policy: &iampb.Policy{}})
	_, errTest := m.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: there, Permissions: many})
	_, errName := m.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: "projects/giggle/things/bad!"})
	if !fault.Is(errGet, fault.NotFound) || !fault.Is(errSet, fault.NotFound) ||
		!fault.Is(errTest, fault.InvalidArgument) || !fault.Is(errName, fault.InvalidArgument) {
		t.Errorf("%v, %v, %v, %v", errGet, errSet, errTest, errName)
	}
}
