package policytroubleshooter_test

import (
	"context"
	"strings"
	"testing"

	"giggle/api/guard/guardtest"
	"giggle/api/policytroubleshooter"
	"giggle/iam"
	"giggle/rest"
)

const host = "policytroubleshooter.googleapis.com"

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, host, host, policytroubleshooter.Rules, func(m *rest.Mux) {
		policytroubleshooter.New(policytroubleshooter.Config{
			Identity:  w.IAM,
			Canonical: func(ctx context.Context, name string) (string, error) { return w.Guard().Canonical(ctx, name) },
		}).Register(m)
	})
	return w
}

func ask(principal, permission, resource string) string {
	return `{"accessTuple":{"principal":"` + principal + `","permission":"` + permission + `","fullResourceName":"` +
		resource + `"}}`
}

// What comes out is what the evaluator decides, with the policies that it asked, the nearest first.
func TestTroubleshoot(t *testing.T) {
	w := newWorld(t)
	_, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", iam.Policy{
		Version: 3,
		Bindings: []iam.Binding{
			{Role: "roles/owner", Members: []string{w.IAM.Owner().Member}},
			{Role: "roles/run.invoker", Members: []string{"user:ann@giggle.test"}},
		},
		Conditional: []iam.ConditionalBinding{{
			Binding:   iam.Binding{Role: "roles/run.viewer", Members: []string{"user:ann@giggle.test"}},
			Condition: iam.Condition{Title: "never", Expression: "false"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	number := w.Project.Number
	const service = "//run.googleapis.com/projects/giggle/locations/europe-north1/services/jokes"
	for _, tt := range []struct{ name, principal, permission, resource, state, wants string }{
		{"granted", "ann@giggle.test", "run.routes.invoke", service, "CAN_ACCESS", "ROLE_PERMISSION_INCLUDED"},
		{"by the project's number", "ann@giggle.test", "run.routes.invoke", strings.Replace(service, "giggle", number,
			1), "CAN_ACCESS", "//run.googleapis.com/projects/giggle/"},
		{"a condition that is false", "ann@giggle.test", "run.services.get", service, "CANNOT_ACCESS", `"value": false`},
		{"a role without it", "ann@giggle.test", "run.services.delete", service, "CANNOT_ACCESS", "ROLE_PERMISSION_NOT_INCLUDED"},
		{"no binding", "bob@giggle.test", "run.routes.invoke", service, "CANNOT_ACCESS", "//cloudresourcemanager.googleapis.com/projects/giggle"},
		{"a bucket of some project", "ann@giggle.test", "storage.buckets.get", "//storage.googleapis.com/projects/_/buckets/a-bucket", "CANNOT_ACCESS", "//storage.googleapis.com/projects/giggle/buckets/a-bucket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, text := w.Raw(t, w.Owner, "POST", "/v3/iam:troubleshoot",
				ask(tt.principal, tt.permission, tt.resource))
			if status != 200 || !strings.Contains(text, `"overallAccessState": "`+tt.state+`"`) ||
				!strings.Contains(text, tt.wants) {
				t.Errorf("%d: want %s and %s in %s", status, tt.state, tt.wants, text)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	const project = "//cloudresourcemanager.googleapis.com/projects/giggle"
	good := ask("ann@giggle.test", "run.services.get", project)
	for _, tt := range []struct {
		name, token, body string
		status            int
		field             string
	}{
		{"without a credential", "", good, 401, ""},
		{"may not see the policies", w.Stranger, good, 403, ""},
		{"no permission", w.Owner, ask("ann@giggle.test", "", project), 400, "accessTuple.permission"},
		{"no full name", w.Owner, ask("ann@giggle.test", "a.b.c",
			"projects/giggle"), 400, "accessTuple.fullResourceName"},
		{"no principal that can be", w.Owner, ask("group:a@b.test", "a.b.c", project), 400, "principal"},
		{"a context", w.Owner, strings.Replace(good, `"principal"`,
			`"conditionContext":{"resource":{"type":"x"}},"principal"`, 1), 405, "accessTuple.conditionContext"},
		{"an empty context, as gcloud has it", w.Owner, strings.Replace(good, `"principal"`,
			`"conditionContext":{"resource":{},"request":{},"destination":{}},"principal"`, 1), 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.CallAs(t, tt.token, "POST", "/v3/iam:troubleshoot", tt.body, tt.status)
			if got := guardtest.Field(out); got != tt.field {
				t.Errorf("field %q, want %q: %v", got, tt.field, out)
			}
		})
	}
}
