package iam

import (
	"context"
	"maps"
	"net/mail"
	"slices"
	"strings"

	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Policy is an allow policy on one resource.
type Policy struct {
	Version  int32     // 1 or 3, as the writer said
	Etag     string    // base64; changes with every write
	Bindings []Binding // in the order written
}

// Binding gives a role to members.
type Binding struct {
	Role    string   // "roles/run.invoker"
	Members []string // "user:you@giggle.test", "allUsers"
}

var policies = store.NewTable[Policy]("iam.policy", "Policy")

// compiled is a policy as the evaluator reads it.
type compiled struct {
	Policy
	roles   map[string][]string // of each member
	domains bool                // a member is a domain
}

func compile(p Policy) *compiled {
	c := &compiled{Policy: p, roles: make(map[string][]string)}
	for _, b := range p.Bindings {
		for _, member := range b.Members {
			c.roles[member] = append(c.roles[member], b.Role)
			c.domains = c.domains || strings.HasPrefix(member, "domain:")
		}
	}
	return c
}

func (m *IAM) loadPolicies(ctx context.Context) error {
	all := make(map[string]*compiled)
	err := m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := policies.List(tx, "", "", 0)
		for _, r := range rows {
			all[r.Name] = compile(r.Value)
		}
		return err
	})
	m.policies.Store(&all)
	return err
}

// Policy returns the policy on a resource: an empty one with an etag where none was set.
func (m *IAM) Policy(name string) Policy {
	if p, ok := (*m.policies.Load())[name]; ok {
		return p.Policy
	}
	return Policy{Version: 1, Etag: resource.Etag(0)}
}

// SetPolicy replaces the policy on a resource. A policy that carries an etag must carry the present one, or the call
// fails with Aborted; without an etag it overwrites. The change is effective for the next request.
func (m *IAM) SetPolicy(ctx context.Context, name string, p Policy) (_ Policy, err error) {
	defer fault.Wrap(&err, "iam.SetPolicy(%s)", name)
	if err := p.check(); err != nil {
		return Policy{}, err
	}
	m.write.Lock()
	defer m.write.Unlock()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		have, err := policies.Get(tx, name)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if p.Etag != "" && p.Etag != resource.Etag(have.Version) {
			return fault.New(fault.Aborted,
				"There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.")
		}
		if err := m.checkRoles(p, have.Value); err != nil {
			return err
		}
		p.Etag = resource.Etag(have.Version + 1)
		_, err = policies.Put(tx, name, p)
		return err
	})
	if err != nil {
		return Policy{}, err
	}
	next := maps.Clone(*m.policies.Load())
	next[name] = compile(p)
	m.policies.Store(&next)
	return p, nil
}

// DropPolicy removes the policy on a resource that is being deleted.
func (m *IAM) DropPolicy(ctx context.Context, name string) (err error) {
	defer fault.Wrap(&err, "iam.DropPolicy(%s)", name)
	m.write.Lock()
	defer m.write.Unlock()
	if _, ok := (*m.policies.Load())[name]; !ok {
		return nil
	}
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		if err := policies.Delete(tx, name); !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	next := maps.Clone(*m.policies.Load())
	delete(next, name)
	m.policies.Store(&next)
	return nil
}

// renameMember writes every policy that names a member with another name for it, and returns all policies as they are
// when the transaction is through. The caller holds m.write.
func (m *IAM) renameMember(tx *store.Tx, from, to string) (map[string]*compiled, error) {
	next := maps.Clone(*m.policies.Load())
	for name, c := range next {
		if len(c.roles[from]) == 0 {
			continue
		}
		row, err := policies.Get(tx, name)
		if err != nil {
			return nil, err
		}
		p := row.Value
		p.Bindings = slices.Clone(p.Bindings)
		for i, b := range p.Bindings {
			if at := slices.Index(b.Members, from); at >= 0 {
				p.Bindings[i].Members = slices.Clone(b.Members)
				p.Bindings[i].Members[at] = to
			}
		}
		p.Etag = resource.Etag(row.Version + 1)
		row.Value = p
		if _, err := policies.Update(tx, row); err != nil {
			return nil, err
		}
		next[name] = compile(p)
	}
	return next, nil
}

// limits of one policy, from IAM's quotas page.
const (
	maxBindings = 1500
	maxMembers  = 1500
)

func (p Policy) check() error {
	if p.Version != 0 && p.Version != 1 && p.Version != 3 {
		return fault.Invalid("policy.version", "must be 1 or 3")
	}
	if len(p.Bindings) > maxBindings {
		return fault.Invalid("policy.bindings", "more than %d bindings", maxBindings)
	}
	members := 0
	for _, b := range p.Bindings {
		if !strings.HasPrefix(b.Role, "roles/") && !strings.HasPrefix(b.Role, "projects/") && !strings.HasPrefix(b.Role, "organizations/") {
			return fault.Invalid("policy.bindings.role", "Role %q is not of the form roles/NAME or projects/PROJECT/roles/NAME", b.Role)
		}
		for _, member := range b.Members {
			if err := CheckMember(member); err != nil {
				return err
			}
		}
		if members += len(b.Members); members > maxMembers {
			return fault.Invalid("policy.bindings.members", "more than %d members", maxMembers)
		}
	}
	return nil
}

// checkRoles fails with InvalidArgument on a binding to a role that is not there, which would grant nothing without a
// word: a custom role, or a predefined one of an API that Giggle has. What the policy had before may stay.
func (m *IAM) checkRoles(p, before Policy) error {
	roles := *m.roles.Load()
	for _, b := range p.Bindings {
		_, known := roles[b.Role]
		if known || slices.ContainsFunc(before.Bindings, func(old Binding) bool { return old.Role == b.Role }) {
			continue
		}
		name, predefined := strings.CutPrefix(b.Role, "roles/")
		api, _, _ := strings.Cut(name, ".")
		if !predefined || slices.Contains(apisWithRoles, api) {
			return fault.Invalid("policy.bindings.role", "Role %.100s is not supported for this resource.", b.Role)
		}
	}
	return nil
}

// CheckMember fails with InvalidArgument on what is not a principal identifier of IAM's reference
// (https://cloud.google.com/iam/docs/principal-identifiers).
func CheckMember(s string) error {
	if s == "allUsers" || s == "allAuthenticatedUsers" {
		return nil
	}
	kind, id, ok := strings.Cut(s, ":")
	switch {
	case !ok || id == "" || len(s) > 512:
	case kind == "user" || kind == "group" || kind == "serviceAccount":
		if a, err := mail.ParseAddress(id); err == nil && a.Address == id {
			return nil
		}
	case kind == "domain" && strings.Contains(id, ".") && !strings.ContainsAny(id, " @/"):
		return nil
	case kind == "projectOwner" || kind == "projectEditor" || kind == "projectViewer":
		if resource.ProjectID(id) {
			return nil
		}
	case kind == "deleted":
		return nil
	case strings.HasPrefix(s, "principal://") || strings.HasPrefix(s, "principalSet://"):
		return nil
	}
	return fault.Invalid("policy.bindings.members", "The member %.100q is of an unknown type or form; write user:EMAIL, serviceAccount:EMAIL, group:EMAIL, domain:NAME, allUsers or allAuthenticatedUsers", s)
}

// Allowed reports whether the principal has the permission on the resource, by a binding there or on its project.
// It reads memory only: one look-up for each member that the principal is, whatever the number of bindings.
func (m *IAM) Allowed(p Principal, permission, name string) bool {
	all, roles := *m.policies.Load(), *m.roles.Load()
	for {
		if c := all[name]; c != nil && c.allows(p, permission, roles) {
			return true
		}
		parent, ok := parentOf(name)
		if !ok {
			return false
		}
		name = parent
	}
}

func (c *compiled) allows(p Principal, permission string, roles roleSet) bool {
	grants := func(member string) bool {
		for _, r := range c.roles[member] {
			if roles[r].grants(permission) {
				return true
			}
		}
		return false
	}
	if grants("allUsers") {
		return true
	}
	if p.Member == "" {
		return false
	}
	if grants(p.Member) || grants("allAuthenticatedUsers") {
		return true
	}
	if c.domains && p.IsUser() {
		_, domain, _ := strings.Cut(p.Email(), "@")
		return grants("domain:" + domain)
	}
	return false
}

// parentOf returns the resource whose policy a resource inherits: the project, for everything in one, and the service
// account for its keys.
func parentOf(name string) (string, bool) {
	if i := strings.Index(name, "/keys/"); i > 0 {
		return name[:i], true
	}
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return "", false
	}
	project, _, ok := strings.Cut(rest, "/")
	return name[:len("projects/")+len(project)], ok // a part of it: no memory is asked for
}

// Authorize returns nil when the principal has the permission on the resource; otherwise Unauthenticated for nobody
// and PermissionDenied, in IAM's own words and with what would help, for anyone else.
func (m *IAM) Authorize(_ context.Context, p Principal, permission, name string) error {
	if m.Allowed(p, permission, name) {
		return nil
	}
	if p == Anonymous {
		return Unauthenticated("")
	}
	e := fault.New(fault.PermissionDenied, "Permission '%s' denied on resource '%s' (or it may not exist) for %s.", permission, name, p)
	e.Reason, e.Domain = "IAM_PERMISSION_DENIED", "iam.googleapis.com"
	e.Metadata = map[string]string{"permission": permission, "resource": name}
	e.Help = []fault.Link{m.Grant(p, permission, name)}
	return e
}

// Unauthenticated is the refusal of a call without a valid credential, in the words of Google's API front end.
func Unauthenticated(reason string) error {
	e := fault.New(fault.Unauthenticated, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.")
	e.Reason, e.Domain = "ACCESS_TOKEN_TYPE_UNSUPPORTED", "googleapis.com"
	if reason != "" {
		e.Reason = reason
	}
	return e
}
