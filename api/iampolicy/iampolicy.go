// Package iampolicy is the wire form of IAM policies that every API has in the same shape: getIamPolicy, setIamPolicy
// and testIamPermissions of google.iam.v1.IAMPolicy, as JSON routes.
//
// It translates between google.iam.v1.Policy and package iam's. What a caller may do is package guard's.
package iampolicy

import (
	"context"
	"strconv"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

// Policies keeps policies: *iam.IAM.
type Policies interface {
	Policy(resource string) iam.Policy
	SetPolicy(ctx context.Context, resource string, p iam.Policy) (iam.Policy, error)
	Allowed(p iam.Principal, permission, resource string) bool
}

// MaxPermissions is how many permissions one testIamPermissions may ask about, from the API reference.
const MaxPermissions = 100

// Routes says where the three RPCs are.
type Routes struct {
	Pattern string                                           // path template whose variable is {resource}
	RPC     string                                           // the RPCs are RPC.getIamPolicy and so on
	GetVerb string                                           // HTTP method of getIamPolicy; "" is GET
	Resolve func(resource string) (string, error)            // the name that policies are kept under
	Exists  func(ctx context.Context, resource string) error // fails with NotFound; nil: it need not exist
	Options []rest.RouteOption
}

// policy is google.iam.v1.Policy.
type policy struct {
	Version      int32     `json:"version,omitempty"`
	Etag         string    `json:"etag,omitempty"`
	Bindings     []binding `json:"bindings,omitempty"`
	AuditConfigs []any     `json:"auditConfigs,omitempty"`
}

type binding struct {
	Role      string     `json:"role"`
	Members   []string   `json:"members"`
	Condition *condition `json:"condition,omitempty"`
}

// condition is google.type.Expr.
type condition struct {
	Expression  string `json:"expression,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Location    string `json:"location,omitempty"` // of the expression in some file: read, and not kept
}

// Register adds the routes for one kind of resource.
func Register(m *rest.Mux, policies Policies, at Routes) {
	// A caller may test permissions on what it is about to create: gcloud 528 does before a first deploy.
	existing := func(ctx context.Context, r *rest.Request) (string, error) {
		name, err := at.Resolve(r.Params["resource"])
		if err == nil && at.Exists != nil {
			err = at.Exists(ctx, name)
		}
		return name, err
	}
	get := at.GetVerb
	if get == "" {
		get = "GET"
	}
	m.HandleFunc(get, at.Pattern+":getIamPolicy", at.RPC+".getIamPolicy", func(ctx context.Context, r *rest.Request) (any, error) {
		name, err := existing(ctx, r)
		if err != nil {
			return nil, err
		}
		version, err := requestedVersion(r)
		if err != nil {
			return nil, err
		}
		have, err := policies.Policy(name).AsVersion(version)
		if err != nil {
			return nil, err
		}
		return toWire(have), nil
	}, at.Options...)
	m.HandleFunc("POST", at.Pattern+":setIamPolicy", at.RPC+".setIamPolicy", func(ctx context.Context, r *rest.Request) (any, error) {
		name, err := existing(ctx, r)
		if err != nil {
			return nil, err
		}
		var body struct {
			Policy     *policy `json:"policy"`
			UpdateMask string  `json:"updateMask"`
		}
		if err := r.DecodeJSON(&body); err != nil {
			return nil, err
		}
		if body.Policy == nil {
			return nil, fault.Invalid("policy", "is missing")
		}
		want, err := fromWire(body.Policy)
		if err != nil {
			return nil, err
		}
		have, err := policies.SetPolicy(ctx, name, want)
		if err != nil {
			return nil, err
		}
		return toWire(have), nil
	}, at.Options...)
	m.HandleFunc("POST", at.Pattern+":testIamPermissions", at.RPC+".testIamPermissions", func(ctx context.Context, r *rest.Request) (any, error) {
		var body struct {
			Permissions []string `json:"permissions"`
		}
		if err := r.DecodeJSON(&body); err != nil {
			return nil, err
		}
		if len(body.Permissions) > MaxPermissions {
			return nil, fault.Invalid("permissions", "more than %d", MaxPermissions)
		}
		name, err := at.Resolve(r.Params["resource"])
		if err != nil {
			return nil, err
		}
		var out struct {
			Permissions []string `json:"permissions,omitempty"`
		}
		out.Permissions = Held(policies, guard.Caller(ctx), body.Permissions, name)
		return out, nil
	}, at.Options...)
}

// requestedVersion is the version of a policy that a getIamPolicy asks for, in the query or, where it is a POST, in the
// body; 0 where it asks for none.
func requestedVersion(r *rest.Request) (int32, error) {
	if s := r.Query.Get("options.requestedPolicyVersion"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0, fault.Invalid("options.requestedPolicyVersion", "%.20q is no number", s)
		}
		return int32(n), nil
	}
	if r.Method != "POST" {
		return 0, nil
	}
	var body struct {
		Options struct {
			RequestedPolicyVersion int32 `json:"requestedPolicyVersion"`
		} `json:"options"`
	}
	err := r.DecodeJSON(&body)
	return body.Options.RequestedPolicyVersion, err
}

func fromWire(w *policy) (iam.Policy, error) {
	p := iam.Policy{Version: w.Version, Etag: w.Etag}
	if len(w.AuditConfigs) > 0 {
		return p, fault.NotImplemented("policy.auditConfigs", "audit configurations are not implemented")
	}
	for _, b := range w.Bindings {
		of := iam.Binding{Role: b.Role, Members: b.Members}
		if c := b.Condition; c != nil {
			p.Conditional = append(p.Conditional, iam.ConditionalBinding{Binding: of, Condition: iam.Condition{
				Title: c.Title, Description: c.Description, Expression: c.Expression,
			}})
		} else {
			p.Bindings = append(p.Bindings, of)
		}
	}
	return p, nil
}

func toWire(p iam.Policy) *policy {
	w := &policy{Version: max(p.Version, 1), Etag: p.Etag}
	for _, b := range p.Bindings {
		w.Bindings = append(w.Bindings, binding{Role: b.Role, Members: b.Members})
	}
	for _, b := range p.Conditional {
		w.Bindings = append(w.Bindings, binding{Role: b.Role, Members: b.Members, Condition: &condition{
			Expression: b.Condition.Expression, Title: b.Condition.Title, Description: b.Condition.Description,
		}})
	}
	return w
}
