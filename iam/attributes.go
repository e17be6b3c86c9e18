package iam

import (
	"strings"
	"time"

	"github.com/google/cel-go/cel"
)

// Attributes are what a condition can ask about one request.
type Attributes struct {
	Name    string    // resource.name, in the form that Google's conditions have
	Type    string    // resource.type
	Service string    // resource.service
	Time    time.Time // request.time
}

var _ cel.Activation = (*Attributes)(nil)

// ResolveName returns the value of an attribute.
func (a *Attributes) ResolveName(name string) (any, bool) {
	switch name {
	case "resource.name":
		return a.Name, true
	case "resource.type":
		return a.Type, true
	case "resource.service":
		return a.Service, true
	case "request.time":
		return a.Time, true
	}
	return nil, false
}

// Parent is nil: there is nothing but these.
func (a *Attributes) Parent() cel.Activation { return nil }

// resourceKinds is what the attributes of a resource are, by its name below the project: the first pattern that matches
// counts, * is one part and ** the rest, slashes included. Names and types are those of
// https://cloud.google.com/iam/docs/conditions-resource-attributes where that has them, and built the same way for the
// kinds that it leaves out. A resource of no kind has its name, and "" as type and service.
var resourceKinds = []struct{ pattern, service, kind string }{
	{"", "cloudresourcemanager.googleapis.com", "Project"},
	{"buckets/*", "storage.googleapis.com", "Bucket"},
	{"buckets/*/objects/**", "storage.googleapis.com", "Object"},
	{"locations/*/services/*", "run.googleapis.com", "Service"},
	{"locations/*/services/*/revisions/*", "run.googleapis.com", "Revision"},
	{"locations/*/jobs/*", "run.googleapis.com", "Job"},
	{"locations/*/jobs/*/executions/*", "run.googleapis.com", "Execution"},
	{"locations/*/builds/*", "cloudbuild.googleapis.com", "Build"},
	{"builds/*", "cloudbuild.googleapis.com", "Build"},
	{"locations/*/repositories/*", "artifactregistry.googleapis.com", "Repository"},
	{"locations/*/repositories/*/packages/*", "artifactregistry.googleapis.com", "Package"},
	{"serviceAccounts/*", "iam.googleapis.com", "ServiceAccount"},
	{"serviceAccounts/*/keys/*", "iam.googleapis.com", "ServiceAccountKey"},
	{"roles/*", "iam.googleapis.com", "Role"},
	{"services/*", "serviceusage.googleapis.com", "Service"},
}

// attributesOf returns the attributes of a request at a time for the resource that policies know under name.
func attributesOf(name string, now time.Time) *Attributes {
	a := &Attributes{Name: name, Time: now}
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return a
	}
	_, rest, _ = strings.Cut(rest, "/")
	for _, k := range resourceKinds {
		if !matches(k.pattern, rest) {
			continue
		}
		a.Service, a.Type = k.service, k.service+"/"+k.kind
		if k.service == "storage.googleapis.com" { // buckets have one name space for all projects
			a.Name = "projects/_/" + rest
		}
		break
	}
	return a
}

// matches reports whether a name is of a pattern of resourceKinds.
func matches(pattern, name string) bool {
	for pattern != "" && name != "" {
		p, morePattern, _ := strings.Cut(pattern, "/")
		if p == "**" {
			return true
		}
		n, moreName, _ := strings.Cut(name, "/")
		if n == "" || p != "*" && p != n {
			return false
		}
		pattern, name = morePattern, moreName
	}
	return pattern == name
}
