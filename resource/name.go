// Package resource holds the rules that every API shares: resource names, regions, etags, page tokens, label
// selectors.
//
// Products and wire packages parse with it and print with it, so that a name has one parser. It keeps no state and
// knows no API.
package resource

import (
	"strconv"
	"strings"

	"giggle/fault"
)

// MaxName is the most bytes of a full resource name that is looked at.
const MaxName = 1024

// match takes name apart by a pattern such as "projects/*/locations/*"; each * is one non-empty segment.
func match(pattern, name string) ([]string, bool) {
	if len(name) > MaxName {
		return nil, false
	}
	want, have := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(want) != len(have) {
		return nil, false
	}
	var out []string
	for i, w := range want {
		switch {
		case w == "*" && plain(have[i]):
			out = append(out, have[i])
		case w != have[i]:
			return nil, false
		}
	}
	return out, true
}

// plain reports whether a segment is made of characters that no name, path or log line can be confused by.
func plain(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~@:%+", c) >= 0:
		default:
			return false
		}
	}
	return true
}

func badName(pattern, name string) error {
	if len(name) > 100 {
		name = name[:100] + "…"
	}
	return fault.New(fault.InvalidArgument, "%q is not a resource name of the form %q.", name, pattern)
}

// Location is "projects/PROJECT/locations/LOCATION".
type Location struct{ Project, Location string }

// String returns the full name.
func (n Location) String() string { return "projects/" + n.Project + "/locations/" + n.Location }

// ParseLocation reads "projects/PROJECT/locations/LOCATION". It fails with InvalidArgument.
func ParseLocation(s string) (Location, error) {
	const p = "projects/*/locations/*"
	if m, ok := match(p, s); ok {
		return Location{m[0], m[1]}, nil
	}
	return Location{}, badName(p, s)
}

// ParseProject reads "projects/PROJECT" and returns PROJECT, an id or a number. It fails with InvalidArgument.
func ParseProject(s string) (string, error) {
	const p = "projects/*"
	if m, ok := match(p, s); ok {
		return m[0], nil
	}
	return "", badName(p, s)
}

// Child is a resource one level below a location: "projects/P/locations/L/COLLECTION/ID".
type Child struct {
	Location
	Collection string // "services", "repositories", "builds", "operations"
	ID         string
}

// String returns the full name.
func (n Child) String() string { return n.Location.String() + "/" + n.Collection + "/" + n.ID }

// Service returns the name of a Cloud Run service.
func Service(project, location, id string) Child {
	return Child{Location{project, location}, "services", id}
}

// Repository returns the name of an Artifact Registry repository.
func Repository(project, location, id string) Child {
	return Child{Location{project, location}, "repositories", id}
}

// Build returns the name of a Cloud Build build.
func Build(project, location, id string) Child {
	return Child{Location{project, location}, "builds", id}
}

// Operation returns the name of a long-running operation.
func Operation(project, location, id string) Child {
	return Child{Location{project, location}, "operations", id}
}

// ParseChild reads "projects/P/locations/L/COLLECTION/ID" for the given collection. It fails with InvalidArgument.
func ParseChild(collection, s string) (Child, error) {
	p := "projects/*/locations/*/" + collection + "/*"
	if m, ok := match(p, s); ok {
		return Child{Location{m[0], m[1]}, collection, m[2]}, nil
	}
	return Child{}, badName(p, s)
}

// Revision is "projects/P/locations/L/services/S/revisions/ID".
type Revision struct {
	Service Child
	ID      string
}

// String returns the full name.
func (n Revision) String() string { return n.Service.String() + "/revisions/" + n.ID }

// ParseRevision reads the full name of a Cloud Run revision. It fails with InvalidArgument.
func ParseRevision(s string) (Revision, error) {
	const p = "projects/*/locations/*/services/*/revisions/*"
	if m, ok := match(p, s); ok {
		return Revision{Service(m[0], m[1], m[2]), m[3]}, nil
	}
	return Revision{}, badName(p, s)
}

// IsProjectNumber reports whether a project reference is a number, not an id. Numbers have 12 digits here.
func IsProjectNumber(ref string) bool {
	n, err := strconv.ParseInt(ref, 10, 64)
	return err == nil && n > 0
}

// Label reports whether s is a lower-case RFC 1035 label of at most max bytes: it starts with a letter, has letters,
// digits and hyphens, and does not end in a hyphen. Service, revision, repository and project ids have this form.
func Label(s string, max int) bool {
	if s == "" || len(s) > max || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ProjectID reports whether s may be a project's id: 6 to 30 characters, as Resource Manager says.
func ProjectID(s string) bool { return len(s) >= 6 && Label(s, 30) }

// Global is a resource right below a project, which is in no location: "projects/P/COLLECTION/ID".
type Global struct {
	Project    string
	Collection string // "repos", "services", "secrets", "triggers"
	ID         string
}

// String returns the full name.
func (n Global) String() string { return "projects/" + n.Project + "/" + n.Collection + "/" + n.ID }

// ParseGlobal reads "projects/P/COLLECTION/ID" for the given collection. It fails with InvalidArgument.
func ParseGlobal(collection, s string) (Global, error) {
	p := "projects/*/" + collection + "/*"
	if m, ok := match(p, s); ok {
		return Global{m[0], collection, m[1]}, nil
	}
	return Global{}, badName(p, s)
}

// Account is a service account as a request names it.
type Account struct {
	Project string // id or number, "-" for any, "" where only the address was given
	ID      string // e-mail address, or unique id
}

// String returns the full name.
func (a Account) String() string { return "projects/" + a.Project + "/serviceAccounts/" + a.ID }

// In reports whether an account that is named so may be one that a request in a project means: one with that project in
// its name, or with none.
func (a Account) In(p Project) bool {
	return a.Project == "" || a.Project == "-" || a.Project == p.ID || a.Project == p.Number
}

// ParseAccount reads "projects/PROJECT/serviceAccounts/EMAIL_OR_UNIQUE_ID". It fails with InvalidArgument.
func ParseAccount(s string) (Account, error) {
	const p = "projects/*/serviceAccounts/*"
	if m, ok := match(p, s); ok {
		return Account{m[0], m[1]}, nil
	}
	return Account{}, badName(p, s)
}

// ParseAccountOrEmail reads what ParseAccount does, or an e-mail address alone.
func ParseAccountOrEmail(s string) (Account, error) {
	if len(s) <= MaxName && plain(s) {
		return Account{ID: s}, nil
	}
	return ParseAccount(s)
}

// ParseFull reads a full resource name, "//SERVICE.googleapis.com/NAME", and returns SERVICE and NAME. It fails with
// InvalidArgument for the field.
func ParseFull(field, s string) (service, name string, err error) {
	host, name, ok := strings.Cut(strings.TrimPrefix(s, "//"), "/")
	service, found := strings.CutSuffix(host, ".googleapis.com")
	if !ok || !found || !strings.HasPrefix(s, "//") {
		return "", "", fault.Invalid(field, "%.100q is not of the form //SERVICE.googleapis.com/RESOURCE", s)
	}
	return service, name, nil
}
