package iam

import (
	"strings"

	"giggle/fault"
)

// ParsePrincipal reads a principal as people write one: an e-mail address, a member, or "anonymous" or
// "allUsers" for an unauthenticated caller. It fails with InvalidArgument.
func ParsePrincipal(s string) (Principal, error) {
	switch {
	case s == "" || s == "anonymous" || s == "allUsers":
		return Anonymous, nil
	case strings.Contains(s, ":"):
	case strings.HasSuffix(s, ".gserviceaccount.com"):
		s = "serviceAccount:" + s
	default:
		s = "user:" + s
	}
	if kind, _, _ := strings.Cut(s, ":"); kind != "user" && kind != "serviceAccount" {
		return Anonymous, fault.Invalid("principal",
			"%.100q is no caller: write user:EMAIL, serviceAccount:EMAIL or anonymous", s)
	}
	return Principal{Member: s}, CheckMember(s)
}
