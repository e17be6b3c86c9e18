package iam

import (
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
	all bool            // the owner's role: a permission that no list knows is granted, too
}

// grants reports whether the role has the permission.
func (r *Role) grants(permission string) bool {
	return r != nil && !r.off && (r.all || r.set[permission])
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

// ownerRole has every permission there is.
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
	every := make(map[string]bool)
	for _, r := range roles {
		slices.Sort(r.Permissions)
		r.index()
		maps.Copy(every, r.set)
	}
	owner := roles[ownerRole]
	if owner == nil {
		return nil, fmt.Errorf("roles.txt has no %s", ownerRole)
	}
	owner.Permissions = slices.Sorted(maps.Keys(every))
	owner.index().all = true
	return roles, nil
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

// smallest returns the predefined role with the fewest permissions that has the permission: one of the API itself
// before a basic one. It is false where only the owner has it.
func (s roleSet) smallest(permission string) (*Role, bool) {
	var best *Role
	less := func(a, b *Role) bool {
		if isBasic(a.Name) != isBasic(b.Name) {
			return isBasic(b.Name)
		}
		if len(a.Permissions) != len(b.Permissions) {
			return len(a.Permissions) < len(b.Permissions)
		}
		return a.Name < b.Name
	}
	for _, r := range s {
		if strings.HasPrefix(r.Name, "roles/") && r.set[permission] && r.Stage == "GA" && (best == nil || less(r, best)) {
			best = r
		}
	}
	return best, best != nil
}
