package policies

import (
	"context"

	"cloud.google.com/go/iam/apiv1/iampb"

	"giggle/api/guard"
	"giggle/fault"
)

// IAMPolicy is the three methods of google.iam.v1.IAMPolicy over one kind of resource, for a server to embed. Google's
// Unimplemented…Server has them, too: it goes one level deeper into the server, so that these win.
type IAMPolicy struct {
	policies Policies
	of       Resource
}

// New returns the methods over one kind of resource.
func New(policies Policies, of Resource) IAMPolicy { return IAMPolicy{policies, of} }

// GetIamPolicy returns the policy on a resource, in the version that the request asks for.
func (m IAMPolicy) GetIamPolicy(ctx context.Context, r *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	name, err := m.of.existing(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	p, err := m.policies.Policy(name).AsVersion(r.GetOptions().GetRequestedPolicyVersion())
	if err != nil {
		return nil, err
	}
	return ToProto(p)
}

// SetIamPolicy replaces the policy on a resource.
func (m IAMPolicy) SetIamPolicy(ctx context.Context, r *iampb.SetIamPolicyRequest) (*iampb.Policy, error) {
	name, err := m.of.existing(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	want, err := FromProto(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	have, err := m.policies.SetPolicy(ctx, name, want)
	if err != nil {
		return nil, err
	}
	return ToProto(have)
}

// TestIamPermissions returns which of the permissions the caller has on a resource.
func (m IAMPolicy) TestIamPermissions(
	ctx context.Context, r *iampb.TestIamPermissionsRequest,
) (*iampb.TestIamPermissionsResponse, error) {
	held, err := m.of.held(ctx, m.policies, r.GetResource(), r.GetPermissions())
	if err != nil {
		return nil, err
	}
	return &iampb.TestIamPermissionsResponse{Permissions: held}, nil
}

// held returns which of the permissions the caller has on a resource, which need not be there: gcloud 528 tests them on
// what it is about to create, before a first deploy.
func (r Resource) held(ctx context.Context, policies Policies, name string, permissions []string) ([]string, error) {
	if len(permissions) > MaxPermissions {
		return nil, fault.Invalid("permissions", "more than %d", MaxPermissions)
	}
	name, err := r.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return Held(policies, guard.Caller(ctx), permissions, name), nil
}
