package iamadmin

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
)

// roleToProto writes a role. The basic view leaves its permissions out.
func roleToProto(r iam.Role, view adminpb.RoleView) *adminpb.Role {
	out := &adminpb.Role{
		Name:        r.Name,
		Title:       r.Title,
		Description: r.Description,
		Deleted:     r.Deleted,
		Etag:        etag(r.Etag),
		Stage:       adminpb.Role_RoleLaunchStage(adminpb.Role_RoleLaunchStage_value[r.Stage]),
	}
	if view == adminpb.RoleView_FULL {
		out.IncludedPermissions = r.Permissions
	}
	return out
}

// ownRoles returns the id of a project whose custom roles the caller may see.
func (s *Server) ownRoles(ctx context.Context, parent, permission string) (string, error) {
	project, err := s.project(parent)
	if err != nil {
		// Callers without a role there aren't told whether there is such a project.
		project = strings.TrimPrefix(parent, "projects/")
	}
	if denied := s.Identity.Authorize(ctx, guard.Caller(ctx), permission, "projects/"+project); denied != nil {
		return "", denied
	}
	return project, err
}

// ListRoles lists the predefined roles, or the custom roles of a project.
func (s *Server) ListRoles(ctx context.Context, r *adminpb.ListRolesRequest) (*adminpb.ListRolesResponse, error) {
	project := ""
	if r.GetParent() != "" {
		var err error
		if project, err = s.ownRoles(ctx, r.GetParent(), "iam.roles.list"); err != nil {
			return nil, err
		}
	}
	roles := s.Identity.Roles(project)
	if !r.GetShowDeleted() {
		roles = slices.DeleteFunc(roles, func(r iam.Role) bool { return r.Deleted })
	}
	roles, next, err := page(s, resource.List{
		Query: "roles of " + project,
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}, roles, func(r iam.Role) string { return r.Name })
	if err != nil {
		return nil, err
	}
	out := &adminpb.ListRolesResponse{NextPageToken: next}
	for _, role := range roles {
		out.Roles = append(out.Roles, roleToProto(role, r.GetView()))
	}
	return out, nil
}

// role reads the name of a custom role and names its project by id.
func (s *Server) role(name string) (string, error) {
	parent, id, ok := strings.Cut(name, "/roles/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", fault.Invalid("name", "%.100q is not of the form projects/PROJECT/roles/ROLE", name)
	}
	project, err := s.project(parent)
	return "projects/" + project + "/roles/" + id, err
}

// GetRole returns a predefined role, or a custom role of a project.
func (s *Server) GetRole(ctx context.Context, r *adminpb.GetRoleRequest) (*adminpb.Role, error) {
	name := r.GetName()
	if !strings.HasPrefix(name, "roles/") {
		parent, _, _ := strings.Cut(name, "/roles/")
		if _, err := s.ownRoles(ctx, parent, "iam.roles.get"); err != nil {
			return nil, err
		}
		var err error
		if name, err = s.role(name); err != nil {
			return nil, err
		}
	}
	role, err := s.Identity.Role(name)
	if err != nil {
		return nil, err
	}
	return roleToProto(role, adminpb.RoleView_FULL), nil
}

// CreateRole makes a custom role of a project.
func (s *Server) CreateRole(ctx context.Context, r *adminpb.CreateRoleRequest) (*adminpb.Role, error) {
	project, err := s.project(r.GetParent())
	if err != nil {
		return nil, err
	}
	in := r.GetRole()
	role, err := s.Identity.CreateRole(ctx, project, r.GetRoleId(), iam.Role{
		Title:       in.GetTitle(),
		Description: in.GetDescription(),
		Permissions: in.GetIncludedPermissions(),
		Stage:       in.GetStage().String(),
	})
	if err != nil {
		return nil, err
	}
	return roleToProto(role, adminpb.RoleView_FULL), nil
}

// UpdateRole changes the fields of a custom role that the mask names, or all without a mask.
func (s *Server) UpdateRole(ctx context.Context, r *adminpb.UpdateRoleRequest) (*adminpb.Role, error) {
	name, err := s.role(r.GetName())
	if err != nil {
		return nil, err
	}
	in, paths := r.GetRole(), r.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = []string{"title", "description", "included_permissions", "stage"}
	}
	role, err := s.Identity.UpdateRole(ctx, name, base64.StdEncoding.EncodeToString(in.GetEtag()),
		func(role *iam.Role) error {
			for _, path := range paths {
				switch path {
				case "title":
					role.Title = in.GetTitle()
				case "description":
					role.Description = in.GetDescription()
				case "included_permissions":
					role.Permissions = in.GetIncludedPermissions()
				case "stage":
					role.Stage = in.GetStage().String()
				case "etag":
				default:
					return fault.Invalid("update_mask", "%.60q can't be changed", path)
				}
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	return roleToProto(role, adminpb.RoleView_FULL), nil
}

// DeleteRole deletes a custom role: its bindings grant nothing until it is undeleted.
func (s *Server) DeleteRole(ctx context.Context, r *adminpb.DeleteRoleRequest) (*adminpb.Role, error) {
	return s.changeRole(ctx, r.GetName(), r.GetEtag(), s.Identity.DeleteRole)
}

// UndeleteRole brings a deleted custom role back, for seven days.
func (s *Server) UndeleteRole(ctx context.Context, r *adminpb.UndeleteRoleRequest) (*adminpb.Role, error) {
	return s.changeRole(ctx, r.GetName(), r.GetEtag(), s.Identity.UndeleteRole)
}

func (s *Server) changeRole(
	ctx context.Context,
	name string,
	etag []byte,
	change func(ctx context.Context, name, etag string) (iam.Role, error),
) (*adminpb.Role, error) {
	name, err := s.role(name)
	if err != nil {
		return nil, err
	}
	role, err := change(ctx, name, base64.StdEncoding.EncodeToString(etag))
	if err != nil {
		return nil, err
	}
	return roleToProto(role, adminpb.RoleView_FULL), nil
}

// about reports whether a permission is one of a service: all are of a project's,
// //cloudresourcemanager.googleapis.com.
func about(service, permission string) bool {
	return service == "cloudresourcemanager" || strings.HasPrefix(permission, service+".")
}

// QueryGrantableRoles lists the roles that a binding on a resource may have: the predefined ones with a permission of
// its service, and the project's own where the caller may see them.
func (s *Server) QueryGrantableRoles(
	ctx context.Context, r *adminpb.QueryGrantableRolesRequest,
) (*adminpb.QueryGrantableRolesResponse, error) {
	service, name, err := resource.ParseFull("full_resource_name", r.GetFullResourceName())
	if err != nil {
		return nil, err
	}
	roles := s.Identity.Roles("")
	if ref, ok := strings.CutPrefix(name, "projects/"); ok {
		ref, _, _ = strings.Cut(ref, "/")
		if project, err := s.ownRoles(ctx, "projects/"+ref, "iam.roles.list"); err == nil {
			roles = append(s.Identity.Roles(project), roles...)
		}
	}
	roles = slices.DeleteFunc(roles, func(role iam.Role) bool {
		return role.Deleted || role.Stage == "DISABLED" ||
			!slices.ContainsFunc(role.Permissions, func(p string) bool { return about(service, p) })
	})
	roles, next, err := page(s, resource.List{
		Query: "grantable on " + r.GetFullResourceName(),
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}, roles, func(r iam.Role) string { return r.Name })
	if err != nil {
		return nil, err
	}
	out := &adminpb.QueryGrantableRolesResponse{NextPageToken: next}
	for _, role := range roles {
		out.Roles = append(out.Roles, roleToProto(role, r.GetView()))
	}
	return out, nil
}

// QueryTestablePermissions lists the permissions of a resource: those that a custom role may have.
func (s *Server) QueryTestablePermissions(
	_ context.Context, r *adminpb.QueryTestablePermissionsRequest,
) (*adminpb.QueryTestablePermissionsResponse, error) {
	service, _, err := resource.ParseFull("full_resource_name", r.GetFullResourceName())
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(slices.Clone(s.Identity.Permissions()), func(p string) bool { return !about(service, p) })
	all, next, err := page(s, resource.List{
		Query: "testable on " + r.GetFullResourceName(),
		Size:  int(r.GetPageSize()),
		Most:  maxPermissionPage,
		Token: r.GetPageToken(),
	}, all, func(p string) string { return p })
	if err != nil {
		return nil, err
	}
	out := &adminpb.QueryTestablePermissionsResponse{NextPageToken: next}
	for _, p := range all {
		out.Permissions = append(out.Permissions, &adminpb.Permission{
			Name:                    p,
			Stage:                   adminpb.Permission_GA,
			CustomRolesSupportLevel: adminpb.Permission_SUPPORTED,
		})
	}
	return out, nil
}
