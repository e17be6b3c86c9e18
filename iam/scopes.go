package iam

import (
	"slices"
	"strings"

	"giggle/catalog"
	"giggle/fault"
)

// Credential is who called and what the token that said so is good for.
type Credential struct {
	Principal
	// Scopes of the token; none means that it is not limited: a JWT for one API, or a token that was asked for without.
	Scopes []string
}

// CheckScope fails with PermissionDenied, in Google's words, when the credential's scopes don't open a method of a
// service. What it does to the resource is told by reads, and by setIamPolicy in its name.
func (c Credential) CheckScope(service, method string, reads bool) error {
	need := catalog.Write
	switch {
	case reads:
		need = catalog.Read
	case strings.Contains(strings.ToLower(method), "setiampolicy"):
		need = catalog.Full
	}
	if len(c.Scopes) == 0 || slices.ContainsFunc(c.Scopes, func(s string) bool {
		return catalog.Opens(s, service) >= need
	}) {
		return nil
	}
	e := fault.New(fault.PermissionDenied, "Request had insufficient authentication scopes.")
	e.Reason, e.Domain = "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com"
	e.Metadata = map[string]string{"service": service, "method": method}
	return e
}
