package iam_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
)

const object = "projects/giggle/buckets/acme/objects/data_lake/orders/order_date=2019-11-03/aef87g"

func conditional(expression string) iam.Policy {
	return iam.Policy{Version: 3, Conditional: []iam.ConditionalBinding{{
		Binding:   iam.Binding{Role: "roles/storage.objectViewer", Members: []string{"user:eve@giggle.test"}},
		Condition: iam.Condition{Title: "t", Expression: expression},
	}}}
}

// What IAM's attribute reference says of each attribute and function. The clock is at 2027-01-15T08:00:00Z, a Friday.
func TestConditions(t *testing.T) {
	w := newWorld(t)
	w.now = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	for expression, want := range map[string]bool{
		`true`:               true,
		`1 == 1 && !(2 < 1)`: true,
		`resource.name == "projects/_/buckets/acme/objects/data_lake/orders/order_date=2019-11-03/aef87g"`: true,
		`resource.name == "` + object + `"`:                                                   false,
		`resource.name.startsWith("projects/_/buckets/acme/objects/data_lake/")`:              true,
		`resource.name.startsWith('projects/_/buckets/other/')`:                               false,
		`resource.name.endsWith("/aef87g")`:                                                   true,
		`resource.type == "storage.googleapis.com/Object"`:                                    true,
		`resource.type == "storage.googleapis.com/Bucket"`:                                    false,
		`resource.type in ["storage.googleapis.com/Bucket", "storage.googleapis.com/Object"]`: true,
		`resource.service == "storage.googleapis.com"`:                                        true,
		`resource.service != "run.googleapis.com" || false`:                                   true,
		`resource.type == "x" ? false : true`:                                                 true,

		`resource.name.extract("/order_date={date}/") == "2019-11-03"`:                    true,
		`resource.name.extract("buckets/{name}/") == "acme"`:                              true,
		`resource.name.extract("/orders/{empty}order_date") == ""`:                        true,
		`resource.name.extract("{start}/objects/data_lake") == "projects/_/buckets/acme"`: true,
		`resource.name.extract("orders/{end}") == "order_date=2019-11-03/aef87g"`:         true,
		`resource.name.extract("{all}") == resource.name`:                                 true,
		`resource.name.extract("/orders/{none}/order_date=") == ""`:                       true,
		`resource.name.extract("/order_date={date}/").startsWith("2019")`:                 true,

		`request.time < timestamp("2027-01-15T08:00:01Z")`:                                     true,
		`request.time < timestamp("2027-01-15T08:00:00.000Z")`:                                 false,
		`request.time > timestamp("2027-01-15T09:30:00+02:00")`:                                true,
		`request.time - duration("3600s") < timestamp("2027-01-15T07:30:00Z")`:                 true,
		`request.time + duration("1h") > timestamp("2027-01-15T08:30:00Z")`:                    true,
		`request.time - timestamp("2027-01-15T07:00:00Z") == duration("3600s")`:                true,
		`request.time.getHours() == 8 && request.time.getMinutes() == 0`:                       true,
		`request.time.getHours("Europe/Berlin") == 9`:                                          true,
		`request.time.getHours("America/Los_Angeles") == 0`:                                    true,
		`request.time.getHours("-08:00") == 0`:                                                 true,
		`request.time.getFullYear() == 2027 && request.time.getMonth() == 0`:                   true,
		`request.time.getDate() == 15 && request.time.getDayOfMonth() == 14`:                   true,
		`request.time.getDayOfYear() == 14 && request.time.getDayOfWeek("Europe/Berlin") >= 1`: true,
		`request.time.getDayOfWeek() <= 5`:                                                     true,
		`request.time.getSeconds() == 0 && request.time.getMilliseconds() == 0`:                true,
		`request.time.getHours("Nowhere/AtAll") >= 0`:                                          false, // it fails
		// the other side decides
		`request.time.getHours("Nowhere/AtAll") >= 0 || true`: true,
		// it fails: no template
		`resource.name.extract(resource.type) == ""`:                                               false,
		`resource.name == "` + strings.Repeat("x", 3000) + `"`:                                     false,
		strings.Repeat("true && ", 12) + "true":                                                    true,
		strings.Repeat("(", 20) + "true" + strings.Repeat(")", 20):                                 true,
		`resource.name.startsWith("projects/_/buckets/acme") && request.time.getHours() in [8, 9]`: true,
	} {
		if _, err := w.SetPolicy(t.Context(), project, conditional(expression)); err != nil {
			t.Errorf("%.200s is refused: %v", expression, err)
			continue
		}
		e := w.Explain(iam.User("eve@giggle.test"), "storage.objects.get", object)
		if e.Allowed != want || w.Allowed(iam.User("eve@giggle.test"), "storage.objects.get", object) != want {
			t.Errorf("%.200s: allowed %v, want %v\n%s", expression, e.Allowed, want, e)
		}
	}
}

// Names, types and services of resources, in Google's form.
func TestResourceAttributes(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ on, name, kind string }{
		{project, project, "cloudresourcemanager.googleapis.com/Project"},
		{"projects/giggle/buckets/b", "projects/_/buckets/b", "storage.googleapis.com/Bucket"},
		{"projects/giggle/buckets/b/objects/a/keys/c", "projects/_/buckets/b/objects/a/keys/c", "storage.googleapis.com/Object"},
		{service, service, "run.googleapis.com/Service"},
		{service + "/revisions/r", service + "/revisions/r", "run.googleapis.com/Revision"},
		{"projects/giggle/locations/l/repositories/r", "projects/giggle/locations/l/repositories/r", "artifactregistry.googleapis.com/Repository"},
		{"projects/giggle/serviceAccounts/a@b.test", "projects/giggle/serviceAccounts/a@b.test", "iam.googleapis.com/ServiceAccount"},
		{"projects/giggle/serviceAccounts/a@b.test/keys/k", "projects/giggle/serviceAccounts/a@b.test/keys/k", "iam.googleapis.com/ServiceAccountKey"},
		{"projects/giggle/services/run.googleapis.com", "projects/giggle/services/run.googleapis.com", "serviceusage.googleapis.com/Service"},
		{"projects/giggle/what/is/this", "projects/giggle/what/is/this", ""},
	} {
		of, _, _ := strings.Cut(tt.kind, "/")
		p := conditional(fmt.Sprintf("resource.name == %q && resource.type == %q && resource.service == %q", tt.name,
			tt.kind, of))
		if _, err := w.SetPolicy(t.Context(), project, p); err != nil {
			t.Fatal(err)
		}
		if e := w.Explain(iam.User("eve@giggle.test"), "storage.objects.get", tt.on); !e.Allowed {
			t.Errorf("%s: want name %s, type %s\n%s", tt.on, tt.name, tt.kind, e)
		}
	}
}

// What SetPolicy and LintCondition refuse, in words that name the trouble: no CEL that IAM has not, and nothing that
// grows or costs.
func TestConditionRefusals(t *testing.T) {
	w := newWorld(t)
	const list = "[1,2,3,4,5,6,7,8,9,10]"
	for _, tt := range []struct {
		name, expression, text string
		code                   fault.Code
	}{
		{"empty", "", "required", fault.InvalidArgument},
		{"blank", " \n", "required", fault.InvalidArgument},
		{"syntax", "resource.name ==", "Syntax error", fault.InvalidArgument},
		{"not bool", "resource.name", "bool", fault.InvalidArgument},
		{"types", "resource.name == 1", "no matching overload", fault.InvalidArgument},
		{"unknown attribute", "resource.colour == 'red'", "undeclared reference", fault.InvalidArgument},
		{"unknown function", "resource.name.reverse() == ''", "undeclared reference", fault.InvalidArgument},
		{"a date that is none", `request.time < timestamp("tomorrow")`, "tomorrow", fault.InvalidArgument},
		{"a template that is none", `resource.name.extract("a") == ""`, "template", fault.InvalidArgument},
		{"a template with two parts", `resource.name.extract("{a}/{b}") == ""`, "template", fault.InvalidArgument},
		{"too long", `resource.name == "` + strings.Repeat("x", 4096) + `"`, "longer", fault.InvalidArgument},
		{"13 operators", strings.Repeat("true && ", 13) + "true", "13 logical operators", fault.InvalidArgument},
		{"deep", strings.Repeat("(", 1500) + "true" + strings.Repeat(")", 1500), "", fault.InvalidArgument},
		{"deep lists", strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + " == []", "", fault.InvalidArgument},

		{"macro all", list + ".all(x, x > 0)", "undeclared reference", fault.InvalidArgument},
		{"macro exists", list + ".exists(x, x > 0)", "undeclared reference", fault.InvalidArgument},
		{"macro has", "has(resource.name)", "undeclared reference", fault.InvalidArgument},
		{"nested macros", list + ".all(a, " + list + ".all(b, " + list + ".all(c, true)))", "undeclared reference", fault.InvalidArgument},
		{"map and filter", list + ".map(x, x).filter(x, true) == []", "undeclared reference", fault.InvalidArgument},
		{"concatenation", strings.Repeat("resource.name + ", 10) + "resource.name == ''", "no matching overload", fault.InvalidArgument},
		{"lists added", list + " + " + list + " == []", "no matching overload", fault.InvalidArgument},
		{"regular expression", `resource.name.matches("(a*)*b")`, "undeclared reference", fault.InvalidArgument},
		{"size", "size(resource.name) > 1", "undeclared reference", fault.InvalidArgument},
		{"a map", "{'a': true}['a']", "Maps", fault.InvalidArgument},
		{"a message", "google.type.Expr{} == google.type.Expr{}", "Maps", fault.InvalidArgument},
		{"costly", "[" + strings.Repeat("resource.name.extract('{x}'),", 120) + "''] == []", "cost", fault.InvalidArgument},

		{"grants by role", `api.getAttribute("iam.googleapis.com/modifiedGrantsByRole", []).hasOnly(["roles/run.viewer"])`, "modifiedGrantsByRole", fault.Unimplemented},
		{"tags", `resource.matchTag("123/env", "prod")`, "tags", fault.Unimplemented},
		{"access levels", `"accessPolicies/1/accessLevels/a" in request.auth.access_levels`, "undeclared reference", fault.InvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.SetPolicy(t.Context(), project, conditional(tt.expression))
			if !fault.Is(err, tt.code) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("SetPolicy: %v, want %v with %q", err, tt.code, tt.text)
			}
			if lint := iam.LintCondition(tt.expression); fault.CodeOf(lint) != tt.code {
				t.Errorf("LintCondition: %v", lint)
			}
			f := fault.From(err)
			if len(f.Fields) != 1 || f.Fields[0].Path != "policy.bindings.condition.expression" {
				t.Errorf("fields: %+v", f.Fields)
			}
		})
	}
	if len(w.Policy(project).Conditional) != 0 {
		t.Error("a refused policy was kept")
	}
}

// The rules about bindings with a condition, the expression aside.
func TestConditionalBindings(t *testing.T) {
	w := newWorld(t)
	with := func(change func(*iam.Policy)) iam.Policy {
		p := conditional("true")
		change(&p)
		return p
	}
	for name, tt := range map[string]struct {
		policy iam.Policy
		field  string
	}{
		"version 1":  {with(func(p *iam.Policy) { p.Version = 1 }), "policy.version"},
		"no version": {with(func(p *iam.Policy) { p.Version = 0 }), "policy.version"},
		"no title":   {with(func(p *iam.Policy) { p.Conditional[0].Condition.Title = "" }), "policy.bindings.condition.title"},
		"long title": {with(func(p *iam.Policy) {
			p.Conditional[0].Condition.Title = strings.Repeat("x",
				101)
		}), "policy.bindings.condition.title"},
		"long text": {with(func(p *iam.Policy) {
			p.Conditional[0].Condition.Description = strings.Repeat("x",
				257)
		}), "policy.bindings.condition.description"},
		"basic role":    {with(func(p *iam.Policy) { p.Conditional[0].Role = "roles/editor" }), "policy.bindings.condition"},
		"everybody":     {with(func(p *iam.Policy) { p.Conditional[0].Members = []string{"allUsers"} }), "policy.bindings.condition"},
		"every account": {with(func(p *iam.Policy) { p.Conditional[0].Members = []string{"allAuthenticatedUsers"} }), "policy.bindings.condition"},
		"bad member":    {with(func(p *iam.Policy) { p.Conditional[0].Members = []string{"eve"} }), "policy.bindings.members"},
		"unknown role":  {with(func(p *iam.Policy) { p.Conditional[0].Role = "roles/run.nothing" }), "policy.bindings.role"},
		"a hidden role": {with(func(p *iam.Policy) { p.Conditional[0].Role = "roles/x_withcond_0123456789abcdef0123" }), "policy.bindings.role"},
		"20 for one": {with(func(p *iam.Policy) {
			for i := range 20 {
				b := p.Conditional[0]
				b.Condition.Title = fmt.Sprint(i)
				p.Conditional = append(p.Conditional, b)
			}
		}), "policy.bindings.condition"},
	} {
		_, err := w.SetPolicy(t.Context(), project, tt.policy)
		if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument || len(f.Fields) != 1 ||
			f.Fields[0].Path != tt.field {
			t.Errorf("%s: %v, want %s", name, err, tt.field)
		}
	}

	// One role with several conditions is several bindings; the same condition twice is one.
	p := with(func(p *iam.Policy) {
		same, other := p.Conditional[0], p.Conditional[0]
		same.Members = []string{"user:EVE@Giggle.Test", "user:you@giggle.test"}
		other.Condition.Expression = "false"
		p.Conditional = append(p.Conditional, same, other)
		p.Bindings = []iam.Binding{{Role: "roles/storage.objectViewer", Members: []string{"user:always@giggle.test"}}}
	})
	got, err := w.SetPolicy(t.Context(), project, p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Bindings) != 1 || len(got.Conditional) != 2 ||
		strings.Join(got.Conditional[0].Members, " ") != "user:eve@giggle.test user:you@giggle.test" ||
		got.Version != 3 {
		t.Errorf("kept as %+v", got)
	}
	w.open(t)
	if !w.Allowed(iam.User("eve@giggle.test"), "storage.objects.get", object) {
		t.Error("the condition is gone after a restart")
	}

	// A reader of version 1 does not see conditions, and can't write the policy back without them.
	old, err := w.Policy(project).AsVersion(1)
	if err != nil || old.Version != 1 || len(old.Bindings) != 3 || len(old.Conditional) != 0 ||
		!strings.HasPrefix(old.Bindings[1].Role, "roles/storage.objectViewer_withcond_") ||
		old.Bindings[1].Role == old.Bindings[2].Role {
		t.Errorf("as version 1: %+v, %v", old, err)
	}
	for _, version := range []int32{0, 1, 3} {
		old.Version = version
		if _, err := w.SetPolicy(t.Context(), project, old); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("written back as version %d: %v", version, err)
		}
	}
	old.Version, old.Bindings = 1, old.Bindings[:1]
	if _, err := w.SetPolicy(t.Context(), project, old); !fault.Is(err, fault.InvalidArgument) ||
		!strings.Contains(err.Error(),
			"Specified policy version (1) cannot be less than the existing policy version (3)") {
		t.Errorf("a read-modify-write with version 1: %v", err)
	}
	if _, err := w.Policy(project).AsVersion(2); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("version 2: %v", err)
	}
	old.Version = 3
	if got, err = w.SetPolicy(t.Context(), project, old); err != nil || got.Version != 1 {
		t.Errorf("all conditions removed with version 3: %+v, %v", got, err)
	}
}

// Whatever the expression, it is refused as the caller's fault or it is evaluated within its cost.
func FuzzCondition(f *testing.F) {
	w := newWorld(f)
	for _, seed := range []string{
		`true`, `resource.name.extract("/order_date={date}/") == "2019-11-03"`,
		`request.time.getHours("Europe/Berlin") in [8, 9]`,
		`request.time < timestamp("2027-01-15T08:00:01Z") || !(resource.type != "x")`, `[1,2].all(x, x > 0)`,
		`a.b.c{d: 1}`, "\"\\xff\" == ''",
		`duration("1h") + duration("290y") > duration("1s")`, `resource.name.extract("{") == ""`, `b"a" == b"b"`,
		`[[], [1], {}] == []`,
		`-9223372036854775808 == 1`, `1.0/0.0 == 1.0`, `true ? true : false`, `resource["name"] == ""`,
		`.resource.name == ""`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		lint := iam.LintCondition(expression)
		_, err := w.SetPolicy(t.Context(), project, conditional(expression))
		if fault.Is(err, fault.InvalidArgument) || fault.Is(err, fault.Unimplemented) {
			if lint == nil {
				t.Errorf("%q passes lint and is refused: %v", expression, err)
			}
			return
		}
		if err != nil || lint != nil {
			t.Fatalf("%q: %v, lint %v", expression, err, lint)
		}
		if e := w.Explain(iam.User("eve@giggle.test"), "storage.objects.get",
			object); e.Allowed != w.Allowed(iam.User("eve@giggle.test"), "storage.objects.get", object) {
			t.Errorf("%q: Explain and Allowed disagree:\n%s", expression, e)
		}
	})
}
