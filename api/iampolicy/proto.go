package iampolicy

import (
	"encoding/base64"

	"cloud.google.com/go/iam/apiv1/iampb"

	"giggle/fault"
	"giggle/iam"
)

// ToProto writes a policy as google.iam.v1.Policy, for the APIs that have protos.
func ToProto(p iam.Policy) (*iampb.Policy, error) {
	etag, err := base64.StdEncoding.DecodeString(p.Etag)
	if err != nil {
		return nil, err
	}
	out := &iampb.Policy{Version: max(p.Version, 1), Etag: etag}
	for _, b := range p.Bindings {
		out.Bindings = append(out.Bindings, &iampb.Binding{Role: b.Role, Members: b.Members})
	}
	return out, nil
}

// FromProto reads a google.iam.v1.Policy. What is not implemented is refused by its path.
func FromProto(w *iampb.Policy) (iam.Policy, error) {
	if w == nil {
		return iam.Policy{}, fault.Invalid("policy", "is missing")
	}
	p := iam.Policy{Version: w.GetVersion()}
	if len(w.GetEtag()) > 0 {
		p.Etag = base64.StdEncoding.EncodeToString(w.GetEtag())
	}
	if len(w.GetAuditConfigs()) > 0 {
		return p, fault.NotImplemented("policy.auditConfigs", "audit configurations are not implemented")
	}
	for _, b := range w.GetBindings() {
		if b.GetCondition() != nil {
			return p, fault.NotImplemented("policy.bindings.condition", "conditions are not implemented yet")
		}
		if len(b.GetMembers()) > 0 {
			p.Bindings = append(p.Bindings, iam.Binding{Role: b.GetRole(), Members: b.GetMembers()})
		}
	}
	return p, nil
}

// Held returns those of the permissions that a principal has on a resource.
func Held(policies Policies, who iam.Principal, permissions []string, resource string) []string {
	var out []string
	for _, p := range permissions {
		if policies.Allowed(who, p, resource) {
			out = append(out, p)
		}
	}
	return out
}
