package iam

import (
	"fmt"
	"strings"

	"giggle/fault"
)

// Grant says how a principal gets a permission: the smallest predefined role that has it, and the one gcloud line that
// grants it on the narrowest resource whose policy counts for name.
func (m *IAM) Grant(p Principal, permission, name string) fault.Link {
	role := Role{Name: ownerRole, Title: "Owner"}
	if r, ok := (*m.roles.Load()).smallest(permission); ok {
		role = *r
	}
	return fault.Link{
		Description: fmt.Sprintf("%s (%s) has %s. To grant it: %s --member=%s --role=%s",
			role.Name, role.Title, permission, grantCommand(name), p.Member, role.Name),
		URL: "https://cloud.google.com/iam/docs/roles-permissions",
	}
}

// grantCommand is the gcloud command that binds roles on a resource: on itself where it has a policy of its own, else on
// its project.
func grantCommand(name string) string {
	part := strings.Split(name, "/")
	if part[0] != "projects" || len(part) < 2 {
		return "gcloud projects add-iam-policy-binding PROJECT"
	}
	project := part[1]
	switch {
	case len(part) >= 6 && part[2] == "locations" && part[4] == "services":
		return fmt.Sprintf("gcloud run services add-iam-policy-binding %s --region=%s --project=%s", part[5], part[3], project)
	case len(part) >= 6 && part[2] == "locations" && part[4] == "repositories":
		return fmt.Sprintf("gcloud artifacts repositories add-iam-policy-binding %s --location=%s --project=%s", part[5], part[3], project)
	case len(part) >= 4 && part[2] == "serviceAccounts":
		return fmt.Sprintf("gcloud iam service-accounts add-iam-policy-binding %s --project=%s", part[3], project)
	case len(part) >= 4 && part[2] == "buckets":
		return fmt.Sprintf("gcloud storage buckets add-iam-policy-binding gs://%s", part[3])
	}
	return "gcloud projects add-iam-policy-binding " + project
}
