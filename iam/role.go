package iam

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"giggle/fault"
)

// Role is a named set of permissions.
type Role struct {
	Name        string // "roles/run.invoker"
	Title       string
	Description string
	Stage       string   // ALPHA, BETA, GA, DEPRECATED, DISABLED or EAP
	Permissions []string // sorted
	Deleted     bool     // of a custom role that can still be undeleted
	Etag        string   `json:"-"` // base64; of a custom role

	set map[string]bool // of Permissions
	off bool            // deleted or disabled: it grants nothing
}

// grants reports whether the role has the permission.
func (r *Role) grants(permission string) bool {
	return r != nil && !r.off && r.set[permission]
}

func (r *Role) index() *Role {
	r.off = r.Deleted || r.Stage == "DISABLED"
	r.set = make(map[string]bool, len(r.Permissions))
	for _, p := range r.Permissions {
		r.set[p] = true
	}
	return r
}

//go:embed roles.txt
var predefinedRoles string

// ownerRole is the owner's, who has no tokens and signatures of service accounts, as in Google Cloud.
const ownerRole = "roles/owner"

// roleSet is every role that there is at one moment, by name.
type roleSet map[string]*Role

// parseRoles reads roles.txt; its head says the form.
func parseRoles(text string) (roleSet, error) {
	roles := make(roleSet)
	var r *Role
	for i, line := range strings.Split(text, "\n") {
		first, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || first == "#" || line[0] == '#':
		case strings.HasPrefix(first, "roles/"):
			stage, title, ok := strings.Cut(rest, " ")
			if !ok || roles[first] != nil {
				return nil, fmt.Errorf("roles.txt:%d: want a new role, its stage and its title", i+1)
			}
			r = &Role{Name: first, Stage: stage, Title: title}
			roles[first] = r
		case r == nil || rest == "":
			return nil, fmt.Errorf("roles.txt:%d: want a role, a description or permissions", i+1)
		case first == ">":
			r.Description = rest
		default:
			for _, verb := range strings.Fields(rest) {
				r.Permissions = append(r.Permissions, first+"."+verb)
			}
		}
	}
	for _, r := range roles {
		slices.Sort(r.Permissions)
		r.index()
	}
	if roles[ownerRole] == nil {
		return nil, fmt.Errorf("roles.txt has no %s", ownerRole)
	}
	return roles, nil
}

// permissions returns every permission that one of the roles has, sorted.
func (s roleSet) permissions() []string {
	every := make(map[string]bool)
	for _, r := range s {
		maps.Copy(every, r.set)
	}
	return slices.Sorted(maps.Keys(every))
}

// Role returns a predefined or custom role by its name, or NotFound.
func (m *IAM) Role(name string) (Role, error) {
	if r := (*m.roles.Load())[name]; r != nil {
		return *r, nil
	}
	return Role{}, fault.New(fault.NotFound, "The role named %.100s was not found.", name)
}

// isBasic reports whether a role is one of the three that reach over every API.
func isBasic(name string) bool {
	return name == ownerRole || name == "roles/editor" || name == "roles/viewer"
}

// suggested returns the predefined role that a person would grant for a permission: one of the API itself before a
// basic one and before one of another API, one that does least (viewers before users before editors before admins), and
// of those the one with the fewest permissions. Roles of service agents, of Cloud Storage's old ACLs and for migrations
// are left for the case that nothing else has it. It is false where only the owner has it.
func (s roleSet) suggested(permission string) (*Role, bool) {
	var best *Role
	var least suggestion
	for _, r := range s {
		if !strings.HasPrefix(r.Name, "roles/") || r.Name == ownerRole || !r.set[permission] || r.off {
			continue
		}
		if x := suggestionOf(r, permission); best == nil || x.less(least) {
			best, least = r, x
		}
	}
	return best, best != nil
}

// suggestion is how near a role is to what a person would grant, the least first.
type suggestion struct {
	distance int // 0 of the API of the permission, 1 basic, 2 of another API
	rank     int // of what it lets its members do
	// 0 for a role that is named by the kind of its members alone: "run.invoker", not "run.servicesInvoker"
	part    int
	preview int // 1 for one that isn't GA
	size    int
	name    string
}

func (a suggestion) less(b suggestion) bool {
	return cmp.Or(
		cmp.Compare(a.distance, b.distance),
		cmp.Compare(a.rank, b.rank),
		cmp.Compare(a.part, b.part),
		cmp.Compare(a.preview, b.preview),
		cmp.Compare(a.size, b.size),
		cmp.Compare(a.name, b.name),
	) < 0
}

const (
	otherMembers = 1 // rank of those whose kind isn't in members, such as creators and approvers
	notForPeople = 9
)

// members are the kinds of members that names of roles end with, with a rank by what these may do.
var members = map[string]int{
	"viewer":    0,
	"reader":    0,
	"browser":   0,
	"user":      otherMembers,
	"invoker":   otherMembers,
	"developer": 2,
	"writer":    2,
	"editor":    3,
	"admin":     4,
	"owner":     4,
}

// notPeoples are parts of the names of roles that nobody grants by hand.
var notPeoples = []string{"Agent", "legacy", "Migration", "expressMode", "CollectorService", "GeneratorService",
	"builder"}

func suggestionOf(r *Role, permission string) suggestion {
	name := strings.TrimPrefix(r.Name, "roles/")
	api, _, _ := strings.Cut(permission, ".")
	x := suggestion{
		distance: 2,
		rank:     otherMembers,
		part:     1,
		size:     len(r.Permissions),
		name:     name,
	}
	switch {
	case strings.HasPrefix(name, api+"."), name == "browser" && api == "resourcemanager":
		x.distance = 0
	case isBasic(r.Name):
		x.distance = 1
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	for kind, rank := range members {
		if whole := last == kind; whole || strings.HasSuffix(last, strings.ToUpper(kind[:1])+kind[1:]) {
			x.rank = rank
			if whole {
				x.part = 0
			}
		}
	}
	if slices.ContainsFunc(notPeoples, func(part string) bool { return strings.Contains(last, part) }) {
		x.rank = notForPeople
	}
	if r.Stage != "GA" {
		x.preview = 1
	}
	return x
}
