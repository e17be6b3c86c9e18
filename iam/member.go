package iam

import (
	"net/mail"
	"regexp"
	"strings"

	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// deletedForm is the form of members that were deleted, of IAM's reference.
var deletedForm = regexp.MustCompile(`^(user|serviceAccount|group):([^?]+)\?uid=([0-9]{1,32})$`)

// CheckMember fails with InvalidArgument on what is not a principal identifier of IAM's reference
// (https://cloud.google.com/iam/docs/principal-identifiers). A service account goes by its address; by its unique id it
// is no member, as in IAM.
func CheckMember(s string) error {
	if s == "allUsers" || s == "allAuthenticatedUsers" {
		return nil
	}
	kind, id, ok := strings.Cut(s, ":")
	switch {
	case !ok || id == "" || len(s) > 512:
	case kind == "user" || kind == "group" || kind == "serviceAccount":
		if isAddress(id) {
			return nil
		}
		if kind == "serviceAccount" {
			return fault.Invalid("policy.bindings.members", "Invalid service account (%.100s).", id)
		}
	case kind == "domain" && strings.Contains(id, ".") && !strings.ContainsAny(id, " @/"):
		return nil
	case kind == "projectOwner" || kind == "projectEditor" || kind == "projectViewer":
		if resource.ProjectID(id) {
			return nil
		}
	case kind == "deleted":
		if m := deletedForm.FindStringSubmatch(id); m != nil && isAddress(m[2]) {
			return nil
		}
		return fault.Invalid("policy.bindings.members",
			"The member %.100q is not of the form deleted:serviceAccount:EMAIL?uid=NUMBER", s)
	case strings.HasPrefix(s, "principal://") || strings.HasPrefix(s, "principalSet://"):
		return nil
	}
	return fault.Invalid("policy.bindings.members",
		"The member %.100q is of an unknown type or form; write user:EMAIL, serviceAccount:EMAIL, group:EMAIL, domain:NAME, allUsers or allAuthenticatedUsers", s)
}

func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s
}

// canonicalMember is a member with its address or domain in lower case, as IAM keeps it. What is so already is returned
// as it is.
func canonicalMember(s string) string {
	kind, id, _ := strings.Cut(s, ":")
	switch kind {
	case "user", "group", "serviceAccount", "domain":
		if lower := strings.ToLower(id); lower != id {
			return kind + ":" + lower
		}
	case "deleted": // deleted:KIND:EMAIL?uid=NUMBER
		if of := canonicalMember(id); of != id {
			return kind + ":" + of
		}
	}
	return s
}

// accountForm tells the addresses of service accounts apart: ID@PROJECT.iam.gserviceaccount.com, and those of the
// default accounts, which have the project's number.
var accountForm = regexp.MustCompile(`^(?:[^@]+@([a-z0-9-]+)\.iam|([0-9]+)-compute@developer|([0-9]+)@cloudbuild)\.gserviceaccount\.com$`)

// accountProject is the project's id or number in the address of a service account, "" for an address of another form.
func accountProject(email string) string {
	m := accountForm.FindStringSubmatch(email)
	if m == nil {
		return ""
	}
	return m[1] + m[2] + m[3]
}

// checkAccounts fails with InvalidArgument, in IAM's words, on a member that is a service account of a project of this
// platform and is not there. Those of other projects, which other platforms have, and what the policy had before may
// be.
func checkAccounts(tx *store.Tx, p, before Policy) error {
	const prefix = "serviceAccount:"
	had := make(map[string]bool)
	for b := range before.all() {
		for _, member := range b.Members {
			had[member] = true
		}
	}
	var asked []string
	for b := range p.all() {
		for _, member := range b.Members {
			if email, ok := strings.CutPrefix(member, prefix); ok && !had[member] && accountProject(email) != "" {
				asked = append(asked, email)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	rows, err := accounts.List(tx, "", "", 0)
	if err != nil {
		return err
	}
	gone, err := deletedAccounts.List(tx, "", "", 0)
	if err != nil {
		return err
	}
	there, ours := make(map[string]bool), make(map[string]bool)
	for _, r := range rows {
		there[r.Value.Email] = true
		ours[r.Value.Project], ours[accountProject(r.Value.Email)] = true, true
	}
	for _, r := range gone { // a project all of whose accounts were deleted is ours still
		ours[r.Value.Account.Project], ours[accountProject(r.Value.Account.Email)] = true, true
	}
	for _, email := range asked {
		if ours[accountProject(email)] && !there[email] {
			return fault.Invalid("policy.bindings.members", "Service account %.200s does not exist.", email)
		}
	}
	return nil
}
