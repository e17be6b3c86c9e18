package iam_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"giggle/iam"
)

// thousand gives a project 1,000 bindings that always count, and returns questions that are allowed and denied by them.
func thousand(t testing.TB, w *world) (who iam.Principal, yes, no string) {
	t.Helper()
	var p iam.Policy
	for i := range 1000 {
		p.Bindings = append(p.Bindings, iam.Binding{
			Role: fmt.Sprintf("roles/elsewhere.role%d", i), Members: []string{fmt.Sprintf("user:u%d@giggle.test", i)},
		})
	}
	p.Bindings[999].Role = "roles/run.invoker"
	if _, err := w.SetPolicy(t.Context(), project, p); err != nil {
		t.Fatal(err)
	}
	return iam.User("u999@giggle.test"), "run.routes.invoke", "run.services.delete"
}

// A check asks for no memory while no condition has to be evaluated.
func TestAllowedAsksForNoMemory(t *testing.T) {
	w := newWorld(t)
	who, yes, no := thousand(t, w)
	w.bind(t, service, "roles/run.invoker", "domain:nowhere.test", "projectOwner:giggle")
	for _, name := range []string{service, service + "/revisions/r", project, "projects/giggle/buckets/b/objects/o"} {
		if !w.Allowed(who, yes, name) || w.Allowed(who, no, name) {
			t.Fatalf("on %s: %s", name, w.Explain(who, yes, name))
		}
		if n := testing.AllocsPerRun(100, func() {
			_ = w.Allowed(who, yes, name)
			_ = w.Allowed(who, no, name)
			_ = w.Allowed(iam.Anonymous, no, name)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkAllowed(b *testing.B) {
	w := newWorld(b)
	who, yes, no := thousand(b, w)
	for name, permission := range map[string]string{"allowed": yes, "denied": no} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = w.Allowed(who, permission, service)
			}
		})
	}
	for name, expression := range map[string]string{
		"time":    `request.time < timestamp("2100-01-01T00:00:00Z")`,
		"prefix":  `resource.name.startsWith("projects/_/buckets/acme/objects/")`,
		"extract": `resource.name.extract("/order_date={date}/") == "2019-11-03"`,
	} {
		b.Run("condition/"+name, func(b *testing.B) {
			if _, err := w.SetPolicy(b.Context(), project, conditional(expression)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if !w.Allowed(iam.User("eve@giggle.test"), "storage.objects.get", object) {
					b.Fatal("denied")
				}
			}
		})
	}
}

// plainly is the rule of allow policies, said a second time and slowly: some binding on the resource or above names the
// principal, has a role with the permission, and its condition is true.
func plainly(w *world, truth map[string]bool, member, domain, permission string, chain ...string) bool {
	owns := func(project, role string) bool {
		for _, b := range w.Policy(project).Bindings {
			for _, m := range b.Members {
				if b.Role == role && (m == member || m == "domain:"+domain) {
					return true
				}
			}
		}
		return false
	}
	named := func(b iam.Binding) bool {
		for _, m := range b.Members {
			switch {
			case m == "allUsers", member != "" && (m == member || m == "allAuthenticatedUsers"),
				domain != "" && m == "domain:"+domain,
				m == "projectOwner:giggle" && member != "" && owns(project, "roles/owner"),
				m == "projectEditor:giggle" && member != "" && owns(project, "roles/editor"),
				m == "projectViewer:giggle" && member != "" && owns(project, "roles/viewer"):
				return true
			}
		}
		return false
	}
	has := func(role string) bool {
		r, err := w.Role(role)
		if err != nil {
			return false
		}
		for _, p := range r.Permissions {
			if p == permission {
				return true
			}
		}
		return false
	}
	for _, on := range chain {
		p := w.Policy(on)
		for _, b := range p.Bindings {
			if named(b) && has(b.Role) {
				return true
			}
		}
		for _, b := range p.Conditional {
			if named(b.Binding) && has(b.Role) && truth[b.Condition.Expression] {
				return true
			}
		}
	}
	return false
}

// On random policies, Allowed, Explain and the plain rule agree, and an explanation is about what it explains.
func TestEvaluatorAgainstThePlainRule(t *testing.T) {
	w := newWorld(t)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	truth := map[string]bool{
		"true": true, "1 == 2": false, `resource.type == "run.googleapis.com/Service"`: true,
		`resource.name.startsWith("projects/other/")`: false, `request.time.getHours("Nowhere") == 1`: false,
	}
	var expressions []string
	for e := range truth {
		expressions = append(expressions, e)
	}
	members := []string{"user:a@giggle.test", "user:b@other.test", "serviceAccount:s@elsewhere.iam.gserviceaccount.com",
		"domain:giggle.test", "projectOwner:giggle", "projectEditor:giggle", "projectViewer:giggle"}
	roles := []string{"roles/run.invoker", "roles/run.viewer", "roles/run.admin", "roles/storage.objectViewer",
		"roles/elsewhere.role"}
	principals := []struct{ member, domain string }{
		{"", ""}, {"user:a@giggle.test", "giggle.test"}, {"user:b@other.test", "other.test"},
		{"serviceAccount:s@elsewhere.iam.gserviceaccount.com", ""},
	}
	yes := 0
	for range 300 {
		for _, on := range []string{project, service} {
			p := iam.Policy{Version: 3}
			for range random.IntN(4) {
				p.Bindings = append(p.Bindings, iam.Binding{
					Role:    pick(append(roles, "roles/owner", "roles/editor", "roles/viewer")...),
					Members: []string{pick(append(members, "allUsers", "allAuthenticatedUsers")...), pick(members...)},
				})
			}
			for range random.IntN(4) {
				p.Conditional = append(p.Conditional, iam.ConditionalBinding{
					Binding:   iam.Binding{Role: pick(roles...), Members: []string{pick(members...)}},
					Condition: iam.Condition{Title: "t", Expression: pick(expressions...)},
				})
			}
			if _, err := w.SetPolicy(t.Context(), on, p); err != nil {
				t.Fatal(err)
			}
		}
		for _, who := range principals {
			permission := pick("run.routes.invoke", "run.services.get", "run.services.delete", "storage.objects.get")
			want := plainly(w, truth, who.member, who.domain, permission, service, project)
			e := w.Explain(iam.Principal{Member: who.member}, permission, service)
			if got := w.Allowed(iam.Principal{Member: who.member}, permission, service); got != want ||
				e.Allowed != want {
				t.Fatalf("%s: Allowed %v, the plain rule %v\n%s\n%+v\n%+v", who.member, got, want, e, w.Policy(service),
					w.Policy(project))
			}
			if want {
				yes++
			}
			if (e.By != nil) != want || (e.Grant == nil) != want || want && !e.By.Has {
				t.Fatalf("an explanation that does not: %+v", e)
			}
		}
	}
	if yes < 100 || yes > 1100 {
		t.Errorf("%d of 1200 questions were allowed: the policies are not random", yes)
	}
}
