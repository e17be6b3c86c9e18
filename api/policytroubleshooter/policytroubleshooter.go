// Package policytroubleshooter is the wire form of Policy Troubleshooter v3: why a principal has a permission on a
// resource, or has not.
//
// It translates package iam's explanations, which come from the evaluator that every call is decided by. There are no
// deny policies, tags and groups here, and conditions are evaluated with the attributes that a request has now: another
// context answers UNIMPLEMENTED.
package policytroubleshooter

import (
	"context"
	"strings"

	"cloud.google.com/go/policytroubleshooter/iam/apiv3/iampb"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/genproto/googleapis/type/expr"
	"google.golang.org/protobuf/types/known/structpb"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/catalog"
	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
	"giggle/rest"
)

// Identity is the identity side: *iam.IAM.
type Identity interface {
	policies.Policies
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
	Explain(p iam.Principal, permission, resource string) iam.Explanation
}

// Config is what a Server needs.
type Config struct {
	Identity Identity
	// Canonical returns the name that policies know a resource by. It fails with InvalidArgument and NotFound.
	Canonical func(ctx context.Context, name string) (string, error)
}

// Server serves the API.
type Server struct {
	Config
	absent
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself.
type absent struct {
	iampb.UnimplementedPolicyTroubleshooterServer
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

// Rules says what each RPC needs. Who may see the policies of the resource's project may: the handler asks, since a
// full resource name has its host in front.
var Rules = guard.Rules{
	"/google.cloud.policytroubleshooter.iam.v3.PolicyTroubleshooter/TroubleshootIamPolicy": {
		Authenticated: true,
		Reads:         true,
	},
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) { iampb.RegisterPolicyTroubleshooterServer(m, s) }

// TroubleshootIamPolicy explains a decision.
func (s *Server) TroubleshootIamPolicy(
	ctx context.Context, r *iampb.TroubleshootIamPolicyRequest,
) (*iampb.TroubleshootIamPolicyResponse, error) {
	t := r.GetAccessTuple()
	if said(t.GetConditionContext()) {
		return nil, fault.NotImplemented("accessTuple.conditionContext",
			"conditions are evaluated with what a request of now has; another context is not implemented")
	}
	if t.GetPermission() == "" {
		return nil, fault.Invalid("accessTuple.permission", "is missing")
	}
	_, name, err := resource.ParseFull("accessTuple.fullResourceName", t.GetFullResourceName())
	if err != nil {
		return nil, err
	}
	if name, err = s.Canonical(ctx, name); err != nil {
		return nil, err
	}
	who, err := iam.ParsePrincipal(t.GetPrincipal())
	if err != nil {
		return nil, err
	}
	if err := s.maySee(ctx, name); err != nil {
		return nil, err
	}
	e := s.Identity.Explain(who, t.GetPermission(), name)
	out := &iampb.TroubleshootIamPolicyResponse{
		OverallAccessState:     iampb.TroubleshootIamPolicyResponse_CANNOT_ACCESS,
		AccessTuple:            t,
		AllowPolicyExplanation: &iampb.AllowPolicyExplanation{AllowAccessState: state(e.Allowed)},
		DenyPolicyExplanation: &iampb.DenyPolicyExplanation{
			DenyAccessState: iampb.DenyAccessState_DENY_ACCESS_STATE_NOT_DENIED,
		},
	}
	if e.Allowed && !e.NoTokens {
		out.OverallAccessState = iampb.TroubleshootIamPolicyResponse_CAN_ACCESS
	}
	for _, on := range e.Path {
		p, err := s.explained(&e, on)
		if err != nil {
			return nil, err
		}
		out.AllowPolicyExplanation.ExplainedPolicies = append(out.AllowPolicyExplanation.ExplainedPolicies, p)
	}
	return out, nil
}

// said reports whether a context says anything: gcloud 528 always sends one, with empty parts.
func said(c *iampb.ConditionContext) bool {
	r, to := c.GetResource(), c.GetDestination()
	return r.GetName() != "" || r.GetService() != "" || r.GetType() != "" || to.GetIp() != "" || to.GetPort() != 0 ||
		c.GetRequest().GetReceiveTime() != nil || len(c.GetEffectiveTags()) > 0
}

// maySee fails when the caller may not see the policies that an explanation quotes.
func (s *Server) maySee(ctx context.Context, name string) error {
	project := name
	if p, ok := strings.CutPrefix(name, "projects/"); ok {
		id, _, _ := strings.Cut(p, "/")
		project = "projects/" + id
	}
	return s.Identity.Authorize(ctx, guard.Caller(ctx), "resourcemanager.projects.getIamPolicy", project)
}

// explained is one policy of those that were asked, with what came of its bindings that name the principal.
func (s *Server) explained(e *iam.Explanation, on string) (*iampb.ExplainedAllowPolicy, error) {
	policy, err := policies.ToProto(s.Identity.Policy(on))
	if err != nil {
		return nil, err
	}
	out := &iampb.ExplainedAllowPolicy{FullResourceName: fullName(on), Policy: policy, AllowAccessState: state(false)}
	add := func(c *iam.Considered) {
		if c.On != on {
			return
		}
		out.BindingExplanations = append(out.BindingExplanations, explainedBinding(c))
		if c.Met {
			out.AllowAccessState = state(true)
		}
	}
	if e.By != nil {
		add(e.By)
	}
	for i := range e.Missed {
		add(&e.Missed[i])
	}
	return out, nil
}

func explainedBinding(c *iam.Considered) *iampb.AllowBindingExplanation {
	member := &iampb.AllowBindingExplanation_AnnotatedAllowMembership{
		Membership: iampb.MembershipMatchingState_MEMBERSHIP_MATCHED,
		Relevance:  iampb.HeuristicRelevance_HEURISTIC_RELEVANCE_HIGH,
	}
	out := &iampb.AllowBindingExplanation{
		AllowAccessState:   state(c.Met),
		Role:               c.Role,
		RolePermission:     iampb.RolePermissionInclusionState_ROLE_PERMISSION_NOT_INCLUDED,
		CombinedMembership: member,
		Memberships:        map[string]*iampb.AllowBindingExplanation_AnnotatedAllowMembership{c.Member: member},
	}
	if c.Has {
		out.RolePermission = iampb.RolePermissionInclusionState_ROLE_PERMISSION_INCLUDED
	}
	if k := c.Condition; k != nil {
		out.Condition = &expr.Expr{Title: k.Title, Description: k.Description, Expression: k.Expression}
		if c.Err != nil {
			out.ConditionExplanation = &iampb.ConditionExplanation{
				Errors: []*status.Status{{Code: int32(fault.InvalidArgument), Message: c.Err.Error()}},
			}
		} else if c.Has {
			out.ConditionExplanation = &iampb.ConditionExplanation{Value: structpb.NewBoolValue(c.Met)}
		}
	}
	return out
}

func state(granted bool) iampb.AllowAccessState {
	if granted {
		return iampb.AllowAccessState_ALLOW_ACCESS_STATE_GRANTED
	}
	return iampb.AllowAccessState_ALLOW_ACCESS_STATE_NOT_GRANTED
}

// fullName is the name of a resource with the host of its API.
func fullName(name string) string {
	if api, _, ok := catalog.TypeOf(name); ok {
		return "//" + api.Host + "/" + name
	}
	return name
}
