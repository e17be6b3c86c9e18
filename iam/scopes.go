package iam

import (
	"slices"
	"strings"

	"giggle/fault"
)

// Credential is who called and what the token that said so is good for.
type Credential struct {
	Principal
	// Scopes of the token; none means that it is not limited: a JWT for one API, or a token that was asked for without.
	Scopes []string
}

// reach is how much of an API a scope opens.
type reach int

const (
	readOnly  reach = iota + 1 // what changes nothing
	readWrite                  // and what changes something, but not who may
	whole
)

const scopeRoot = "https://www.googleapis.com/auth/"

// scopes are the OAuth scopes that open a part of one API, or all APIs under ""
// (https://developers.google.com/identity/protocols/oauth2/scopes).
var scopes = map[string]map[string]reach{
	"": {"cloud-platform": whole, "cloud-platform.read-only": readOnly},
	"storage.googleapis.com": {
		"devstorage.full_control": whole,
		"devstorage.read_write":   readWrite,
		"devstorage.read_only":    readOnly,
	},
	"run.googleapis.com":            {"run": whole, "run.readonly": readOnly},
	"iam.googleapis.com":            {"iam": whole, "iam.test": readOnly},
	"iamcredentials.googleapis.com": {"iam": whole},
	"sourcerepo.googleapis.com": {
		"source.full_control": whole,
		"source.read_write":   readWrite,
		"source.read_only":    readOnly,
	},
	"serviceusage.googleapis.com":         {"service.management": whole, "service.management.readonly": readOnly},
	"cloudresourcemanager.googleapis.com": {"cloudplatformprojects": whole, "cloudplatformprojects.readonly": readOnly},
	"cloudbilling.googleapis.com":         {"cloud-billing": whole, "cloud-billing.readonly": readOnly},
	// Container Registry's objects were in Cloud Storage, and its clients still ask for that.
	"artifactregistry.googleapis.com": {
		"devstorage.full_control": whole,
		"devstorage.read_write":   readWrite,
		"devstorage.read_only":    readOnly,
	},
}

// CheckScope fails with PermissionDenied, in Google's words, when the credential's scopes don't open a method of a
// service. What it does to the resource is told by reads, and by setIamPolicy in its name.
func (c Credential) CheckScope(service, method string, reads bool) error {
	need := readWrite
	switch {
	case reads:
		need = readOnly
	case strings.Contains(strings.ToLower(method), "setiampolicy"):
		need = whole
	}
	if len(c.Scopes) == 0 || slices.ContainsFunc(c.Scopes, func(s string) bool {
		name, ok := strings.CutPrefix(s, scopeRoot)
		return ok && max(scopes[""][name], scopes[service][name]) >= need
	}) {
		return nil
	}
	e := fault.New(fault.PermissionDenied, "Request had insufficient authentication scopes.")
	e.Reason, e.Domain = "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com"
	e.Metadata = map[string]string{"service": service, "method": method}
	return e
}
