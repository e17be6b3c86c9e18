// Package policies is the wire form of IAM policies that every API has in the same shape: getIamPolicy, setIamPolicy
// and testIamPermissions of google.iam.v1.IAMPolicy, as methods for servers with protos to embed and as JSON routes.
//
// It translates between google.iam.v1.Policy and package iam's. What a caller may do is package guard's.
package policies

import (
	"context"
	"strconv"

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

// Resource is a kind of resource with policies.
type Resource struct {
	// Resolve returns the name that policies know a resource by, of one that a request names. It fails with
	// InvalidArgument, and with NotFound where there is no such project.
	Resolve func(ctx context.Context, name string) (string, error)
	// Exists fails with NotFound where the resource that Resolve named isn't there. It may be nil: Resolve knows.
	Exists func(ctx context.Context, name string) error
}

// existing returns the name of a resource that is there.
func (r Resource) existing(ctx context.Context, name string) (string, error) {
	name, err := r.Resolve(ctx, name)
	if err == nil && r.Exists != nil {
		err = r.Exists(ctx, name)
	}
	return name, err
}

// Routes says where the three RPCs are.
type Routes struct {
	Resource
	Pattern string // path template whose variable is {resource}
	RPC     string // the RPCs are RPC.getIamPolicy and so on
	GetVerb string // HTTP method of getIamPolicy; "" is GET
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
	Location    string `json:"location,omitempty"`
}

// Register adds the routes for one kind of resource.
func Register(m *rest.Mux, policies Policies, at Routes) {
	get := at.GetVerb
	if get == "" {
		get = "GET"
	}
	m.HandleFunc(get, at.Pattern+":getIamPolicy", at.RPC+".getIamPolicy",
		func(ctx context.Context, r *rest.Request) (any, error) {
			name, err := at.existing(ctx, r.Params["resource"])
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
	m.HandleFunc("POST", at.Pattern+":setIamPolicy", at.RPC+".setIamPolicy",
		func(ctx context.Context, r *rest.Request) (any, error) {
			name, err := at.existing(ctx, r.Params["resource"])
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
	m.HandleFunc("POST", at.Pattern+":testIamPermissions", at.RPC+".testIamPermissions",
		func(ctx context.Context, r *rest.Request) (any, error) {
			var body struct {
				Permissions []string `json:"permissions"`
			}
			if err := r.DecodeJSON(&body); err != nil {
				return nil, err
			}
			held, err := at.held(ctx, policies, r.Params["resource"], body.Permissions)
			return struct {
				Permissions []string `json:"permissions,omitempty"`
			}{held}, err
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
				Title:       c.Title,
				Description: c.Description,
				Expression:  c.Expression,
				Location:    c.Location,
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
			Expression:  b.Condition.Expression,
			Title:       b.Condition.Title,
			Description: b.Condition.Description,
			Location:    b.Condition.Location,
		}})
	}
	return w
}
