package iam

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"giggle/catalog"
	"giggle/fault"
	"giggle/logging/audit"
	"giggle/resource"
	"giggle/store"
)

// Policy is an allow policy on one resource.
type Policy struct {
	Version  int32     // 3 with conditional bindings, 1 without
	Etag     string    // base64; changes with every write
	Bindings []Binding // those that always count, in the order written; no two of one role
	// Conditional are the bindings that count while their condition is true, no two of one role and condition. They are
	// apart so that a reader that knows nothing of conditions sees too little and not too much.
	Conditional []ConditionalBinding `json:",omitempty"`
}

// Binding gives a role to members.
type Binding struct {
	Role    string   // "roles/run.invoker"
	Members []string // "user:you@giggle.test", "allUsers"
}

// ConditionalBinding gives a role to members while a condition is true.
type ConditionalBinding struct {
	Binding
	Condition Condition
}

var policies = store.NewTable[Policy]("iam.policy", "Policy")

// all are the bindings of both kinds; what is changed through them is changed in the policy.
func (p Policy) all() iter.Seq[*Binding] {
	return func(yield func(*Binding) bool) {
		for i := range p.Bindings {
			if !yield(&p.Bindings[i]) {
				return
			}
		}
		for i := range p.Conditional {
			if !yield(&p.Conditional[i].Binding) {
				return
			}
		}
	}
}

// clone is a copy that shares no binding with p. It shares the members.
func (p Policy) clone() Policy {
	p.Bindings, p.Conditional = slices.Clone(p.Bindings), slices.Clone(p.Conditional)
	return p
}

// AsVersion returns the policy in the form for a caller that asked for a version: 0, 1 or 3. Before 3 there are no
// conditions, and in a conditional binding the role has a suffix that SetPolicy refuses, so that such a caller can't
// write it back as one that always counts (https://cloud.google.com/iam/docs/troubleshooting-withcond).
func (p Policy) AsVersion(version int32) (Policy, error) {
	switch {
	case version != 0 && version != 1 && version != 3:
		return Policy{}, fault.Invalid("options.requestedPolicyVersion", "must be 0, 1 or 3")
	case version == 3 || len(p.Conditional) == 0:
		return p, nil
	}
	out := Policy{Version: 1, Etag: p.Etag, Bindings: slices.Clone(p.Bindings)}
	for _, b := range p.Conditional {
		out.Bindings = append(out.Bindings, Binding{Role: b.Condition.hidden(b.Role), Members: b.Members})
	}
	return out, nil
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

// SetPolicy replaces the policy on a resource, and returns it as it is kept: bindings of one role and condition are
// one, and a member is in it once. A policy that carries an etag must carry the present one, or the call fails with
// Aborted; without an etag it overwrites. The change is effective for the next request.
//
// Conditions take version 3, and so does every read-modify-write of a policy that has some
// (https://cloud.google.com/iam/docs/policies#versions).
func (m *IAM) SetPolicy(ctx context.Context, name string, p Policy) (_ Policy, err error) {
	defer fault.Wrap(&err, "iam.SetPolicy(%s)", name)
	if err := p.check(); err != nil {
		return Policy{}, err
	}
	asked := max(p.Version, 1)
	p = p.normal()
	next, err := compileNew(p, (*m.policies.Load())[name])
	if err != nil {
		return Policy{}, err
	}
	m.write.Lock()
	defer m.write.Unlock()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		if err := m.exists(tx, name); err != nil {
			return err
		}
		have, err := policies.Get(tx, name)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if p.Etag != "" && p.Etag != resource.Etag(have.Version) {
			return fault.New(fault.Aborted,
				"There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.")
		}
		if p.Etag != "" && len(have.Value.Conditional) > 0 && asked < 3 {
			return fault.New(fault.InvalidArgument,
				"Specified policy version (%d) cannot be less than the existing policy version (3). For more information, please refer to https://cloud.google.com/iam/docs/policies#versions.", asked)
		}
		if err := m.checkRoles(p, have.Value); err != nil {
			return err
		}
		if err := checkAccounts(tx, p, have.Value); err != nil {
			return err
		}
		p.Etag = resource.Etag(have.Version + 1)
		audit.Note(ctx, func(e *audit.Event) { e.Delta = delta(have.Value, p) })
		next.Policy = p
		m.remembered(tx, map[string]*compiled{name: next})
		_, err = policies.Put(tx, name, p)
		return err
	})
	if err != nil {
		return Policy{}, err
	}
	return p, nil
}

// remembered has policies be in memory as they are on disk, once the transaction is; nil is one that was dropped.
// Nothing else changes what is in memory, so that it changes in the order of the commits.
func (m *IAM) remembered(tx *store.Tx, changed map[string]*compiled) {
	tx.OnCommit(func() {
		have := *m.policies.Load()
		for name, c := range changed { // most of what is deleted has no policy
			if c == nil && have[name] == nil {
				delete(changed, name)
			}
		}
		if len(changed) == 0 {
			return
		}
		next := maps.Clone(have)
		for name, c := range changed {
			if c == nil {
				delete(next, name)
			} else {
				next[name] = c
			}
		}
		m.policies.Store(&next)
	})
}

// drop removes the policy on a resource in the transaction that deletes the resource.
func (m *IAM) drop(tx *store.Tx, name string) error {
	if err := policies.Delete(tx, name); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	m.remembered(tx, map[string]*compiled{name: nil})
	return nil
}

// Governed is a kind of resource that policies are set on. A policy is there only with its resource: it can't be set on
// what isn't there, and what is made later under a name finds no policy of what had the name before.
type Governed struct {
	Collection string // in its name: "services"
	Kind       string // of its rows in the store: "run.service"
	// Row returns the name of the row of a resource, and Name the reverse, of a row that is there. Nil: they are the
	// same.
	Row  func(name string) string
	Name func(tx *store.Tx, row string) (string, error)
}

// govern has the policies on a kind of resource go with their resources.
func (m *IAM) govern(g Governed) {
	m.governed[g.Collection] = g
	m.store.OnDelete(g.Kind, func(tx *store.Tx, row string) (err error) {
		name := row
		if g.Name != nil {
			if name, err = g.Name(tx, row); err != nil {
				return err
			}
		}
		return m.drop(tx, name)
	})
}

// exists fails with NotFound when a name is that of an account or a governed resource that isn't there.
func (m *IAM) exists(tx *store.Tx, name string) error {
	parts := strings.Split(name, "/")
	if len(parts) < 4 {
		return nil
	}
	var there bool
	var err error
	switch g, ok := m.governed[parts[len(parts)-2]]; {
	case parts[len(parts)-2] == "serviceAccounts":
		there, err = hasAccount(tx, parts[len(parts)-1])
	case !ok:
		return nil
	case g.Row != nil:
		there, err = store.Exists(tx, g.Kind, g.Row(name))
	default:
		there, err = store.Exists(tx, g.Kind, name)
	}
	if err == nil && !there {
		return fault.New(fault.NotFound, "Resource '%.200s' was not found.", name)
	}
	return err
}

// renameMemberLocked writes every policy that names a member with another name for it, and returns those that it has
// written. The lock is m.write.
func (m *IAM) renameMemberLocked(tx *store.Tx, from, to string) (map[string]*compiled, error) {
	changed := make(map[string]*compiled)
	for name, c := range *m.policies.Load() {
		if len(c.grants[from]) == 0 {
			continue
		}
		row, err := policies.Get(tx, name)
		if fault.Is(err, fault.NotFound) { // dropped in a transaction that shares this one's commit
			continue
		}
		if err != nil {
			return nil, err
		}
		p := row.Value.clone()
		for b := range p.all() {
			if at := slices.Index(b.Members, from); at >= 0 {
				b.Members = slices.Clone(b.Members)
				b.Members[at] = to
			}
		}
		p.Etag = resource.Etag(row.Version + 1)
		row.Value = p
		if _, err := policies.Update(tx, row); err != nil {
			return nil, err
		}
		changed[name], _ = compileNew(p, c)
	}
	return changed, nil
}

// limits of one policy, from IAM's quotas page.
const (
	maxBindings   = 1500
	maxMembers    = 1500
	maxConditions = 20 // that give one role to one member
)

// check fails with InvalidArgument on a policy that can't be.
func (p Policy) check() error {
	if p.Version != 0 && p.Version != 1 && p.Version != 3 {
		return fault.Invalid("policy.version", "must be 1 or 3")
	}
	if len(p.Conditional) > 0 && p.Version != 3 {
		return fault.Invalid("policy.version",
			"Specified policy version (%d) cannot be less than 3 for a policy with conditions. For more information, please refer to https://cloud.google.com/iam/docs/policies#versions.", max(p.Version, 1))
	}
	if len(p.Bindings)+len(p.Conditional) > maxBindings {
		return fault.Invalid("policy.bindings", "more than %d bindings", maxBindings)
	}
	members := 0
	for b := range p.all() {
		if err := b.check(); err != nil {
			return err
		}
		if members += len(b.Members); members > maxMembers {
			return fault.Invalid("policy.bindings.members", "more than %d members", maxMembers)
		}
	}
	times := make(map[[2]string]int)
	for _, b := range p.Conditional {
		if isBasic(b.Role) {
			return fault.Invalid("policy.bindings.condition", "Conditions can't be set on primitive roles such as %s.",
				b.Role)
		}
		if err := b.Condition.check(); err != nil {
			return err
		}
		for _, member := range b.Members {
			if member == "allUsers" || member == "allAuthenticatedUsers" {
				return fault.Invalid("policy.bindings.condition", "Conditions can't be set on public members: %s.",
					member)
			}
			of := [2]string{b.Role, canonicalMember(member)}
			if times[of]++; times[of] > maxConditions {
				return fault.Invalid("policy.bindings.condition", "more than %d conditional bindings give %s to %.100s",
					maxConditions, b.Role, member)
			}
		}
	}
	return nil
}

func (b *Binding) check() error {
	if strings.Contains(b.Role, withCond) {
		return fault.Invalid("policy.bindings.role",
			"Role %.200s stands for a binding with a condition that a policy of version 1 does not show. Read the policy again with requestedPolicyVersion 3, and write version 3.", b.Role)
	}
	if len(b.Role) > maxRoleName ||
		!strings.HasPrefix(b.Role, "roles/") && !strings.HasPrefix(b.Role, "projects/") &&
			!strings.HasPrefix(b.Role, "organizations/") {
		return fault.Invalid("policy.bindings.role",
			"Role %.100q is not of the form roles/NAME or projects/PROJECT/roles/NAME", b.Role)
	}
	for _, member := range b.Members {
		if err := CheckMember(member); err != nil {
			return err
		}
	}
	return nil
}

// maxRoleName bounds the name of a role in a binding, in bytes: more than any role's.
const maxRoleName = 256

// normal is the policy as it is kept: bindings of one role and condition are one, members are canonical and there once,
// a binding without members is gone, and the version is the lowest that can say it.
func (p Policy) normal() Policy {
	type key struct {
		role string
		when Condition
	}
	out := Policy{Version: 1, Etag: p.Etag}
	at := make(map[key]int)
	has := make(map[key]map[string]bool)
	fresh := func(k key, members []string) (added []string) {
		if has[k] == nil {
			has[k] = make(map[string]bool)
		}
		for _, member := range members {
			if member = canonicalMember(member); !has[k][member] {
				has[k][member] = true
				added = append(added, member)
			}
		}
		return added
	}
	for _, b := range p.Bindings {
		k := key{role: b.Role}
		members := fresh(k, b.Members)
		if len(members) == 0 {
			continue
		}
		if _, ok := at[k]; !ok {
			at[k] = len(out.Bindings)
			out.Bindings = append(out.Bindings, Binding{Role: b.Role})
		}
		to := &out.Bindings[at[k]]
		to.Members = append(to.Members, members...)
	}
	for _, b := range p.Conditional {
		k := key{b.Role, b.Condition}
		members := fresh(k, b.Members)
		if len(members) == 0 {
			continue
		}
		if _, ok := at[k]; !ok {
			at[k] = len(out.Conditional)
			out.Conditional = append(out.Conditional, ConditionalBinding{Binding{Role: b.Role}, b.Condition})
		}
		to := &out.Conditional[at[k]]
		to.Members = append(to.Members, members...)
	}
	if len(out.Conditional) > 0 {
		out.Version = 3
	}
	return out
}

// checkRoles fails with InvalidArgument on a binding to a role that is not there, which would grant nothing without a
// word: a custom role, or a predefined one of an API that Giggle has. What the policy had before may stay.
func (m *IAM) checkRoles(p, before Policy) error {
	had := make(map[string]bool)
	for b := range before.all() {
		had[b.Role] = true
	}
	roles := *m.roles.Load()
	for b := range p.all() {
		if _, known := roles[b.Role]; known || had[b.Role] {
			continue
		}
		if !strings.HasPrefix(b.Role, "roles/") || catalog.KnowsRole(b.Role) {
			return fault.Invalid("policy.bindings.role", "Role %.100s is not supported for this resource.", b.Role)
		}
	}
	return nil
}
