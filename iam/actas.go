package iam

import (
	"context"

	"giggle/fault"
	"giggle/resource"
)

// CheckActAs fails when a principal may not let something in a project run as a service account: with PermissionDenied,
// in Cloud Run's words, where there is none of that address too, and with FailedPrecondition when the account is
// disabled. An empty address is the account that services run as which name none.
func (m *IAM) CheckActAs(ctx context.Context, who Principal, p resource.Project, email string) error {
	email = RuntimeAccount(p, email)
	denied := fault.New(fault.PermissionDenied,
		"Permission 'iam.serviceaccounts.actAs' denied on service account %s (or it may not exist).", email)
	denied.Reason, denied.Domain = "IAM_PERMISSION_DENIED", "iam.googleapis.com"
	denied.Help = m.hint(who, "iam.serviceAccounts.actAs", Account{Project: p.ID, Email: email}.Name())
	a, err := m.Account(ctx, "-", email)
	if fault.Is(err, fault.NotFound) {
		return denied
	}
	if err != nil {
		return err
	}
	if !m.Allowed(who, "iam.serviceAccounts.actAs", a.Name()) {
		return denied
	}
	if a.Disabled {
		return fault.New(fault.FailedPrecondition, "The service account %s is disabled; nothing can run as it.", email)
	}
	return nil
}

// RuntimeAccount returns the account that a revision runs as which names that one, or none.
func RuntimeAccount(p resource.Project, email string) string {
	if email == "" {
		return ComputeAccount(p.Number)
	}
	return email
}

// DefaultBuildAccount returns the account that a project's builds run as which name none.
func DefaultBuildAccount(p resource.Project) string { return BuildAccount(p.Number) }
