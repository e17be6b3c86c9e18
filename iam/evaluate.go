package iam

import (
	"context"
	"strings"
	"time"

	"github.com/google/cel-go/cel"

	"giggle/catalog"
	"giggle/fault"
)

// compiled is a policy as the evaluator reads it.
type compiled struct {
	Policy
	grants  map[string][]grant // to each member but those of the next two kinds
	domains map[string][]grant // to each domain
	holders []holderGrant      // to those who have a basic role on a project

	programs map[string]cel.Program // of each expression; nil where it does not compile
}

// grant is one binding's role for one member.
type grant struct {
	member    string
	role      string
	condition *Condition  // nil: it always counts
	program   cel.Program // of the condition; nil where it does not compile any more
}

// holderGrant is a grant to projectOwner:PROJECT, projectEditor:PROJECT or projectViewer:PROJECT.
type holderGrant struct {
	grant
	project string // "projects/PROJECT"
	basic   string // "roles/owner"
}

// compile makes a policy ready to evaluate that was accepted once. A condition of which an older release thought better
// is never met.
func compile(p Policy) *compiled {
	c, _ := compileNew(p, nil)
	return c
}

// compileNew is compile, and fails with InvalidArgument or Unimplemented on a condition that is none. It compiles no
// expression that is in before, the policy that p follows, which may be nil.
func compileNew(p Policy, before *compiled) (*compiled, error) {
	c := &compiled{Policy: p, grants: make(map[string][]grant), programs: make(map[string]cel.Program)}
	for _, b := range p.Bindings {
		c.add(b, nil, nil)
	}
	var failed error
	for i := range p.Conditional {
		b := &p.Conditional[i]
		e := b.Condition.Expression
		if _, done := c.programs[e]; !done {
			var program cel.Program
			if before != nil {
				program = before.programs[e]
			}
			if program == nil {
				var err error
				if program, err = compileCondition(e); err != nil {
					program, failed = nil, err
				}
			}
			c.programs[e] = program
		}
		c.add(b.Binding, &b.Condition, c.programs[e])
	}
	return c, failed
}

func (c *compiled) add(b Binding, condition *Condition, program cel.Program) {
	for _, member := range b.Members {
		g := grant{member, b.Role, condition, program}
		kind, id, _ := strings.Cut(member, ":")
		switch kind {
		case "domain":
			if c.domains == nil {
				c.domains = make(map[string][]grant)
			}
			c.domains[id] = append(c.domains[id], g)
		case "projectOwner", "projectEditor", "projectViewer":
			basic := "roles/" + strings.ToLower(strings.TrimPrefix(kind, "project"))
			c.holders = append(c.holders, holderGrant{g, "projects/" + id, basic})
		default:
			c.grants[member] = append(c.grants[member], g)
		}
	}
}

// question is one question to the evaluator: may this member do that with this resource?
type question struct {
	policies map[string]*compiled
	roles    roleSet
	now      func() time.Time

	member     string // "" for an unauthenticated caller
	permission string
	resource   string

	attributes *Attributes  // of the resource, once a condition asked for them
	explain    *Explanation // what to write down; nil: nothing
}

// Allowed reports whether the principal has the permission on the resource, by a binding there or on what it inherits
// from. It reads memory only: a look-up for each way that the principal can be named, whatever the number of bindings,
// and asks for no memory unless a condition has to be evaluated.
func (m *IAM) Allowed(p Principal, permission, name string) bool {
	return m.decide(p, permission, name, nil)
}

// decide is the one evaluator. With an explanation it writes down there what it does.
func (m *IAM) decide(p Principal, permission, name string, explain *Explanation) bool {
	q := question{
		policies:   *m.policies.Load(),
		roles:      *m.roles.Load(),
		now:        m.now,
		member:     canonicalMember(p.Member),
		permission: permission,
		resource:   name,
		explain:    explain,
	}
	for {
		if explain != nil {
			explain.Path = append(explain.Path, name)
		}
		if c := q.policies[name]; c != nil && q.allowedBy(c, name) {
			return true
		}
		parent, ok := catalog.Parent(name)
		if !ok {
			return false
		}
		name = parent
	}
}

// allowedBy asks one policy, the one on a resource.
func (q *question) allowedBy(c *compiled, on string) bool {
	if q.any(c.grants["allUsers"], on) {
		return true
	}
	if q.member == "" {
		return false
	}
	if q.any(c.grants[q.member], on) || q.any(c.grants["allAuthenticatedUsers"], on) {
		return true
	}
	if len(c.domains) > 0 && q.any(c.domains[q.domain()], on) {
		return true
	}
	for i := range c.holders {
		h := &c.holders[i]
		if q.holds(h.project, h.basic) && q.gives(&h.grant, on) {
			return true
		}
	}
	return false
}

func (q *question) any(grants []grant, on string) bool {
	for i := range grants {
		if q.gives(&grants[i], on) {
			return true
		}
	}
	return false
}

// gives reports whether a grant to the member, in the policy on a resource, gives the permission.
func (q *question) gives(g *grant, on string) bool {
	has, yes := q.roles[g.role].grants(q.permission), false
	var err error
	if has {
		if yes = g.condition == nil; !yes {
			if q.attributes == nil {
				q.attributes = attributesOf(q.resource, q.now())
			}
			yes, err = met(g.program, q.attributes)
		}
	}
	if q.explain != nil {
		q.explain.note(Considered{
			On:         on,
			Role:       g.role,
			Member:     g.member,
			Has:        has,
			Condition:  g.condition,
			Attributes: q.attributes,
			Met:        yes,
			Err:        err,
		})
	}
	return yes
}

// domain is that of a person's address, "" for any other member.
func (q *question) domain() string {
	if !strings.HasPrefix(q.member, "user:") {
		return ""
	}
	_, domain, _ := strings.Cut(q.member, "@")
	return domain
}

// holds reports whether the member is bound to a basic role by the policy on a project, by name or by domain.
func (q *question) holds(project, basic string) bool {
	c := q.policies[project]
	if c == nil {
		return false
	}
	is := func(grants []grant) bool {
		for i := range grants {
			if grants[i].role == basic && grants[i].condition == nil {
				return true
			}
		}
		return false
	}
	return is(c.grants[q.member]) || len(c.domains) > 0 && is(c.domains[q.domain()])
}

// Authorize returns nil when the principal has the permission on the resource; otherwise Unauthenticated for an
// unauthenticated caller and PermissionDenied, in IAM's own words and with what would help, for anyone else.
func (m *IAM) Authorize(_ context.Context, p Principal, permission, name string) error {
	if m.Allowed(p, permission, name) {
		return nil
	}
	if p == Anonymous {
		return Unauthenticated("")
	}
	e := fault.New(fault.PermissionDenied, "Permission '%s' denied on resource '%s' (or it may not exist) for %s.",
		permission, name, p)
	e.Reason, e.Domain = "IAM_PERMISSION_DENIED", "iam.googleapis.com"
	e.Metadata = map[string]string{"permission": permission, "resource": name}
	e.Help = m.hint(p, permission, name)
	return e
}

// AuthorizeMember is Authorize for a member of policies that shows a credential which may outlive its account: one of
// an account that is deleted or disabled is refused.
func (m *IAM) AuthorizeMember(ctx context.Context, member, permission, name string) error {
	if err := m.CheckMember(ctx, member); err != nil {
		return err
	}
	return m.Authorize(ctx, Principal{member}, permission, name)
}

// CheckMember fails for a service account that is deleted or disabled.
func (m *IAM) CheckMember(ctx context.Context, member string) error {
	email, ok := strings.CutPrefix(member, "serviceAccount:")
	if !ok {
		return nil
	}
	a, err := m.Account(ctx, "-", email)
	if err != nil {
		return err
	}
	if a.Disabled {
		return fault.New(fault.PermissionDenied, "The service account %s is disabled.", a.Email)
	}
	return nil
}

// Unauthenticated is the refusal of a call without a valid credential, in the words of Google's API front end.
func Unauthenticated(reason string) error {
	e := fault.New(fault.Unauthenticated,
		"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.")
	e.Reason, e.Domain = "ACCESS_TOKEN_TYPE_UNSUPPORTED", "googleapis.com"
	if reason != "" {
		e.Reason = reason
	}
	return e
}
