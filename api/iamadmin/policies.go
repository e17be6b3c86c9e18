package iamadmin

import (
	"context"

	"cloud.google.com/go/iam/apiv1/iampb"

	"giggle/api/guard"
	"giggle/api/iampolicy"
	"giggle/fault"
)

// GetIamPolicy returns the policy on a service account: who may act as it, and who may make its tokens.
func (s *Server) GetIamPolicy(ctx context.Context, r *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	a, err := s.get(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	return iampolicy.ToProto(s.Identity.Policy(a.Name()))
}

// SetIamPolicy replaces the policy on a service account.
func (s *Server) SetIamPolicy(ctx context.Context, r *iampb.SetIamPolicyRequest) (*iampb.Policy, error) {
	a, err := s.get(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	want, err := iampolicy.FromProto(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	have, err := s.Identity.SetPolicy(ctx, a.Name(), want)
	if err != nil {
		return nil, err
	}
	return iampolicy.ToProto(have)
}

// TestIamPermissions returns those of the permissions that the caller has on a service account.
func (s *Server) TestIamPermissions(ctx context.Context, r *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	if len(r.GetPermissions()) > iampolicy.MaxPermissions {
		return nil, fault.Invalid("permissions", "more than %d", iampolicy.MaxPermissions)
	}
	a, err := s.get(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	return &iampb.TestIamPermissionsResponse{Permissions: iampolicy.Held(s.Identity, guard.Caller(ctx), r.GetPermissions(), a.Name())}, nil
}
