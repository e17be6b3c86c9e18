// Package iampolicy is the wire form of IAM policies that every API has in the same shape: getIamPolicy, setIamPolicy
// and testIamPermissions of google.iam.v1.IAMPolicy, as JSON routes.
//
// It translates between google.iam.v1.Policy and package iam's. What a caller may do is package guard's.
package iampolicy

import (
	"context"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

// Policies keeps policies: *iam.IAM.
type Policies interface {
	Policy(resource string) iam.Policy
	SetPolicy(ctx context.Context, resource string, p iam.Policy) (iam.Policy, error)
	DropPolicy(ctx context.Context, resource string) error
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
	Role      string   `json:"role"`
	Members   []string `json:"members"`
	Condition any      `json:"condition,omitempty"`
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
		return toWire(policies.Policy(name)), nil
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

func fromWire(w *policy) (iam.Policy, error) {
	p := iam.Policy{Version: w.Version, Etag: w.Etag}
	if len(w.AuditConfigs) > 0 {
		return p, fault.NotImplemented("policy.auditConfigs", "audit configurations are not implemented")
	}
	for _, b := range w.Bindings {
		if b.Condition != nil {
			return p, fault.NotImplemented("policy.bindings.condition", "conditions are not implemented yet")
		}
		if len(b.Members) == 0 {
			continue // IAM drops a binding without members
		}
		p.Bindings = append(p.Bindings, iam.Binding{Role: b.Role, Members: b.Members})
	}
	return p, nil
}

func toWire(p iam.Policy) *policy {
	w := &policy{Version: max(p.Version, 1), Etag: p.Etag}
	for _, b := range p.Bindings {
		w.Bindings = append(w.Bindings, binding{Role: b.Role, Members: b.Members})
	}
	return w
}
