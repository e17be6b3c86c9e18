package iam

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// customRole is a role of a project's own, by its full name.
type customRole struct {
	Role
	DeletedAt time.Time
}

var customRoles = store.NewTable[customRole]("iam.role", "Role")

// Limits of custom roles, from IAM's quotas page and reference.
const (
	maxRolePermissions = 3000
	maxRoleTitle       = 100                 // bytes
	maxRoleDescription = 300                 // bytes
	roleUndeleteAge    = 7 * 24 * time.Hour  // how long a deleted role can be brought back
	roleIDAge          = 37 * 24 * time.Hour // how long its id stays taken
)

var roleID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_.]{3,64}$`) })

// stages are the launch stages of google.iam.admin.v1.Role.
var stages = []string{"ALPHA", "BETA", "GA", "DEPRECATED", "DISABLED", "EAP"}

// loadRoles reads the custom roles into memory, beside the predefined ones.
func (m *IAM) loadRoles(ctx context.Context) error {
	all, err := parseRoles(predefinedRoles)
	if err != nil {
		return err
	}
	m.permissions = all.permissions()
	err = m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := customRoles.List(tx, "", "", 0)
		for _, r := range rows {
			role := r.Value.Role
			role.Etag = resource.Etag(r.Version)
			all[r.Name] = role.index()
		}
		return err
	})
	m.roles.Store(&all)
	return err
}

// Roles returns the predefined roles, or with a project's id the custom roles of it, deleted ones included, by name.
func (m *IAM) Roles(project string) []Role {
	prefix := "roles/"
	if project != "" {
		prefix = "projects/" + project + "/roles/"
	}
	var out []Role
	for name, r := range *m.roles.Load() {
		if strings.HasPrefix(name, prefix) {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b Role) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Permissions returns every permission that a role can have, sorted.
func (m *IAM) Permissions() []string { return m.permissions }

// check fails with InvalidArgument on a role that can't be.
func (m *IAM) checkRole(r *Role) error {
	switch {
	case len(r.Title) > maxRoleTitle:
		return fault.Invalid("role.title", "longer than %d bytes", maxRoleTitle)
	case len(r.Description) > maxRoleDescription:
		return fault.Invalid("role.description", "longer than %d bytes", maxRoleDescription)
	case len(r.Permissions) > maxRolePermissions:
		return fault.Invalid("role.included_permissions", "more than %d permissions", maxRolePermissions)
	case !slices.Contains(stages, r.Stage):
		return fault.Invalid("role.stage", "%.20q is no launch stage", r.Stage)
	}
	known := m.Permissions()
	for _, p := range r.Permissions {
		if _, ok := slices.BinarySearch(known, p); !ok {
			return fault.Invalid("role.included_permissions", "Permission %.100s is not valid.", p)
		}
	}
	r.Permissions = slices.Clone(r.Permissions)
	slices.Sort(r.Permissions)
	r.Permissions = slices.Compact(r.Permissions)
	return nil
}

// CreateRole makes a custom role of a project. Of r, all but the name counts.
func (m *IAM) CreateRole(ctx context.Context, project, id string, r Role) (_ Role, err error) {
	defer fault.Wrap(&err, "iam.CreateRole(%s)", id)
	if !roleID().MatchString(id) {
		return Role{}, fault.Invalid("role_id", "%.60q is not 3 to 64 letters, digits, underscores and full stops", id)
	}
	r.Name, r.Stage, r.Deleted = "projects/"+project+"/roles/"+id, cmp.Or(r.Stage, "ALPHA"), false
	if err := m.checkRole(&r); err != nil {
		return Role{}, err
	}
	return m.writeRole(ctx, func(tx *store.Tx) (store.Row[customRole], error) {
		have, err := customRoles.Count(tx, "projects/"+project+"/roles/")
		if err != nil {
			return store.Row[customRole]{}, err
		}
		if err := m.quotas.Admit(quota.Roles, "project "+project, have); err != nil {
			return store.Row[customRole]{}, err
		}
		row, err := customRoles.Create(tx, r.Name, customRole{Role: r})
		if fault.Is(err, fault.AlreadyExists) {
			return row, fault.New(fault.AlreadyExists,
				"A role named %s in projects/%s already exists, or was deleted in the last 37 days.", id, project)
		}
		return row, err
	})
}

// writeRole runs one change of a custom role; it is effective for the next request.
func (m *IAM) writeRole(ctx context.Context, change func(tx *store.Tx) (store.Row[customRole], error)) (Role, error) {
	m.write.Lock()
	defer m.write.Unlock()
	var row store.Row[customRole]
	err := m.store.Update(ctx, func(tx *store.Tx) (err error) {
		row, err = change(tx)
		return err
	})
	if err != nil {
		return Role{}, err
	}
	r := row.Value.Role
	r.Etag = resource.Etag(row.Version)
	next := maps.Clone(*m.roles.Load())
	next[r.Name] = r.index()
	m.roles.Store(&next)
	return r, nil
}

// UpdateRole changes a custom role as change says; change must leave the name alone. An etag, when it is not "", must
// be the present one, or the call fails with Aborted.
func (m *IAM) UpdateRole(ctx context.Context, name, etag string, change func(*Role) error) (_ Role, err error) {
	defer fault.Wrap(&err, "iam.UpdateRole(%s)", name)
	return m.changeRole(ctx, name, etag, func(c *customRole) error {
		if c.Deleted {
			return fault.New(fault.FailedPrecondition, "The role %s is deleted; undelete it first.", name)
		}
		if err := change(&c.Role); err != nil {
			return err
		}
		return m.checkRole(&c.Role)
	})
}

// DeleteRole deletes a custom role: its bindings stay and grant nothing.
func (m *IAM) DeleteRole(ctx context.Context, name, etag string) (_ Role, err error) {
	defer fault.Wrap(&err, "iam.DeleteRole(%s)", name)
	return m.changeRole(ctx, name, etag, func(c *customRole) error {
		if c.Deleted {
			return fault.New(fault.FailedPrecondition, "The role %s is deleted already.", name)
		}
		c.Deleted, c.DeletedAt = true, m.now()
		return nil
	})
}

// UndeleteRole brings back a custom role that was deleted in the last seven days.
func (m *IAM) UndeleteRole(ctx context.Context, name, etag string) (_ Role, err error) {
	defer fault.Wrap(&err, "iam.UndeleteRole(%s)", name)
	return m.changeRole(ctx, name, etag, func(c *customRole) error {
		if !c.Deleted || m.now().Sub(c.DeletedAt) >= roleUndeleteAge {
			return fault.New(fault.FailedPrecondition, "The role %s is not deleted, or was more than 7 days ago.", name)
		}
		c.Deleted, c.DeletedAt = false, time.Time{}
		return nil
	})
}

func (m *IAM) changeRole(ctx context.Context, name, etag string, change func(*customRole) error) (Role, error) {
	return m.writeRole(ctx, func(tx *store.Tx) (store.Row[customRole], error) {
		row, err := customRoles.Get(tx, name)
		if fault.Is(err, fault.NotFound) {
			return row, fault.New(fault.NotFound, "The role named %.100s was not found.", name)
		}
		if err != nil {
			return row, err
		}
		if etag != "" && etag != resource.Etag(row.Version) {
			return row, fault.New(fault.Aborted,
				"There were concurrent changes of the role. Read it again and repeat the change.")
		}
		if err := change(&row.Value); err != nil {
			return row, err
		}
		return customRoles.Update(tx, row)
	})
}

// expireRoles forgets the ids of roles that were deleted long ago.
func (m *IAM) expireRoles(ctx context.Context) error {
	m.write.Lock()
	defer m.write.Unlock()
	var gone []string
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		rows, err := customRoles.List(tx, "", "", 0)
		for _, r := range rows {
			if err == nil && r.Value.Deleted && m.now().Sub(r.Value.DeletedAt) >= roleIDAge {
				gone = append(gone, r.Name)
				err = customRoles.Delete(tx, r.Name)
			}
		}
		return err
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	next := maps.Clone(*m.roles.Load())
	for _, name := range gone {
		delete(next, name)
	}
	m.roles.Store(&next)
	return nil
}
