// Package catalog is what the whole platform knows of each API: one row, from which every table that names APIs is
// made: Service Usage's services, the predefined roles that are known, service agents, OAuth scopes, what conditions
// call a resource, which policy a resource inherits, the audit log's services, the list of what is served.
//
// It is data with look-ups. It knows no handlers (cloud has a row for those) and keeps no state.
package catalog

import (
	"slices"
	"strings"
)

// API is one API of Google Cloud that Giggle serves.
type API struct {
	// Host that serves it: "run.googleapis.com". It is its name in Service Usage and in the audit log, too.
	Host string
	// Title is what people call it, as `gcloud services list` shows it.
	Title string
	// Parts are names in Service Usage that have no methods and are on and off with the API: gcloud 528 wants
	// sql-component.googleapis.com before it deploys a service with Cloud SQL.
	Parts []string
	// Always means that no project can be without it: it can't be disabled.
	Always bool
	// Roles are how the names of its predefined roles begin, behind "roles/": "run." stands for all of them. One that
	// begins so and isn't in iam/roles.txt is refused in policies.
	Roles []string
	// Agents are its service agents' part of an address: "serverless-robot-prod" of
	// service-NUMBER@serverless-robot-prod.iam.gserviceaccount.com (https://cloud.google.com/iam/docs/service-agents).
	Agents []string
	// Scopes are the OAuth scopes that open it beside cloud-platform, behind ScopeRoot
	// (https://developers.google.com/identity/protocols/oauth2/scopes).
	Scopes map[string]Access
	// Resources are the kinds that it has.
	Resources []Resource
}

// Access is how much of an API a scope opens.
type Access int

// What a scope opens: what changes nothing, what changes something but not who may, and everything.
const (
	Read Access = iota + 1
	Write
	Full
)

// ScopeRoot is how OAuth scopes of Google begin.
const ScopeRoot = "https://www.googleapis.com/auth/"

// everyAPI are the scopes that open all APIs.
var everyAPI = map[string]Access{"cloud-platform": Full, "cloud-platform.read-only": Read}

// Resource is a kind of resource.
type Resource struct {
	// Name is the pattern of its names below the project: "locations/*/services/*". A * is one part, ** the rest of the
	// name with its slashes. "" is the project.
	Name string
	// Type is what conditions call it, behind the host: "Service"
	// (https://cloud.google.com/iam/docs/conditions-resource-attributes; built the same way for the kinds left out
	// there).
	Type string
	// Policy means that it can have a policy of its own, which everything below it inherits.
	Policy bool
	// Global means that its names are unique among all projects: conditions see "_" as its project.
	Global bool
}

// All returns every API, by host.
func All() []API { return slices.Clone(apis) }

// Find returns the API that a host serves.
func Find(host string) (API, bool) {
	i, ok := slices.BinarySearchFunc(apis, host, func(a API, host string) int { return strings.Compare(a.Host, host) })
	if !ok {
		return API{}, false
	}
	return apis[i], true
}

// Switch returns the API that a name in Service Usage turns on and off: its host, or one of its parts.
func Switch(name string) (API, bool) {
	if i := slices.IndexFunc(apis, func(a API) bool { return slices.Contains(a.Parts, name) }); i >= 0 {
		return apis[i], true
	}
	return Find(name)
}

// Hosts returns the names of all APIs, sorted.
func Hosts() []string {
	out := make([]string, len(apis))
	for i, a := range apis {
		out[i] = a.Host
	}
	return out
}

// KnowsRole reports whether a role with that name, "roles/run.invoker", would be a predefined one of an API here, all
// of whose roles are known.
func KnowsRole(name string) bool {
	name, ok := strings.CutPrefix(name, "roles/")
	return ok && slices.ContainsFunc(apis, func(a API) bool {
		return slices.ContainsFunc(a.Roles, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
}

// AgentDomains returns what follows the project's number in the addresses of service agents:
// "@serverless-robot-prod.iam.gserviceaccount.com".
func AgentDomains() []string {
	var out []string
	for _, a := range apis {
		for _, agent := range a.Agents {
			out = append(out, "@"+agent+".iam.gserviceaccount.com")
		}
	}
	return out
}

// Opens returns how much of an API an OAuth scope opens; 0 for nothing.
func Opens(scope, host string) Access {
	name, ok := strings.CutPrefix(scope, ScopeRoot)
	if !ok {
		return 0
	}
	a, _ := Find(host)
	return max(everyAPI[name], a.Scopes[name])
}
