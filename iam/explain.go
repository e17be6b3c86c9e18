package iam

import (
	"context"
	"fmt"
	"strings"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Explanation says why the evaluator gave or refused a permission.
type Explanation struct {
	Principal  Principal
	Permission string
	Resource   string
	Allowed    bool
	Path       []string     // the resources whose policies were asked, from the one in question upwards
	By         *Considered  // the binding that gives it; nil where none does
	Missed     []Considered // the bindings of the principal that did not give it, in the order asked
	NoTokens   bool         // the principal is a service account that is disabled or deleted, whatever the policies say
	Grant      *fault.Link  // what would give it; nil where it is given
}

// Considered is one binding that names the principal, and what came of it.
type Considered struct {
	On         string      // the resource whose policy has it
	Role       string      // "roles/run.invoker"
	Member     string      // as the policy names the principal: "allUsers", "domain:giggle.test"
	Has        bool        // the role has the permission
	Condition  *Condition  // nil: it always counts
	Attributes *Attributes // what the condition was evaluated on, where it was
	Met        bool        // the permission is given
	Err        error       // why the condition could not be evaluated
}

// Explain says whether a principal has a permission on a resource, and why. It asks the evaluator that Allowed asks.
func (m *IAM) Explain(p Principal, permission, name string) Explanation {
	e := Explanation{Principal: p, Permission: permission, Resource: name}
	e.Allowed = m.decide(p, permission, name, &e)
	e.NoTokens = p != Anonymous && !m.usable(p, "")
	if !e.Allowed {
		if grant, ok := m.Grant(p, permission, name); ok {
			e.Grant = &grant
		}
	}
	return e
}

// note writes down what came of one binding.
func (e *Explanation) note(c Considered) {
	if c.Condition == nil || !c.Has {
		c.Attributes = nil // it was not evaluated
	}
	if c.Met {
		e.By = &c
	} else {
		e.Missed = append(e.Missed, c)
	}
}

// String is the explanation for a person to read, in lines.
func (e Explanation) String() string {
	var b strings.Builder
	verdict := "DENIED"
	if e.Allowed {
		verdict = "ALLOWED"
	}
	fmt.Fprintf(&b, "%s: %s for %s on %s\n", verdict, e.Permission, e.Principal, e.Resource)
	if e.By != nil {
		fmt.Fprintf(&b, "  by %s\n", e.By)
	}
	if e.NoTokens {
		fmt.Fprintf(&b, "  but the account is disabled or deleted: it gets no tokens, and those it has are refused\n")
	}
	fmt.Fprintf(&b, "  policies asked: %s\n", strings.Join(e.Path, ", "))
	if !e.Allowed && len(e.Missed) == 0 {
		fmt.Fprintf(&b, "  no binding in them names %s\n", e.Principal)
	}
	for _, c := range e.Missed {
		fmt.Fprintf(&b, "  not by %s\n", c)
	}
	if e.Grant != nil {
		fmt.Fprintf(&b, "  %s\n", e.Grant.Description)
	}
	return b.String()
}

// String is one binding and what came of it, for a person to read.
func (c Considered) String() string {
	s := fmt.Sprintf("%s, given to %s on %s", c.Role, c.Member, c.On)
	switch {
	case !c.Has:
		return s + ": the role does not have the permission"
	case c.Condition == nil:
		return s
	case c.Err != nil:
		s += fmt.Sprintf(", whose condition failed (%v)", c.Err)
	case c.Met:
		s += ", whose condition is true"
	default:
		s += ", whose condition is false"
	}
	s += fmt.Sprintf(": %q is %s", c.Condition.Title, c.Condition.Expression)
	if a := c.Attributes; a != nil {
		s += fmt.Sprintf("; resource.name=%q resource.type=%q resource.service=%q request.time=%s", a.Name, a.Type,
			a.Service, a.Time.UTC().Format(time.RFC3339))
	}
	return s
}

// Grant says how a principal gets a permission: the smallest predefined role that has it, and the one gcloud line that
// grants it on the narrowest resource whose policy counts for name, as far as that is there.
func (m *IAM) Grant(p Principal, permission, name string) (fault.Link, bool) {
	missing := false
	if narrow := governing(name); narrow != "" {
		err := m.store.View(context.Background(), func(tx *store.Tx) error { return m.exists(tx, narrow) })
		missing = err != nil
	}
	return m.grant(p, permission, name, !missing)
}

// hint is Grant for who was refused, and may not learn from it whether the resource is there: the line is the project's
// where a narrower one would only work with one that is there.
func (m *IAM) hint(p Principal, permission, name string) []fault.Link {
	if link, ok := m.grant(p, permission, name, false); ok {
		return []fault.Link{link}
	}
	return nil
}

func (m *IAM) grant(p Principal, permission, name string, narrow bool) (fault.Link, bool) {
	role := Role{Name: ownerRole, Title: "Owner"}
	if r, ok := (*m.roles.Load()).suggested(permission); ok {
		role = *r
	}
	const url = "https://cloud.google.com/iam/docs/roles-permissions"
	if name == Platform {
		return fault.Link{
			Description: fmt.Sprintf("The owner may, and who is named with `giggle up --project-creators=%s`.",
				p.Member),
			URL: url,
		}, true
	}
	command := grantCommand(name, narrow)
	return fault.Link{
		Description: fmt.Sprintf("%s (%s) has %s. To grant it: %s --member=%s --role=%s",
			role.Name, role.Title, permission, command, p.Member, role.Name),
		URL: url,
	}, command != ""
}

// governing is the name of the resource at or above name, below the project, that has a policy of its own; "" for none.
func governing(name string) string {
	part := strings.Split(name, "/")
	switch {
	case len(part) < 4 || part[0] != "projects":
	case len(part) >= 6 && part[2] == "locations" && (part[4] == "services" || part[4] == "repositories"):
		return strings.Join(part[:6], "/")
	case part[2] == "serviceAccounts" || part[2] == "buckets":
		return strings.Join(part[:4], "/")
	}
	return ""
}

// grantCommand is the gcloud command that binds roles on a resource: on itself where it has a policy of its own and
// narrow is asked for, else on its project. It is "" where the project isn't known.
func grantCommand(name string, narrow bool) string {
	part := strings.Split(name, "/")
	if part[0] != "projects" || len(part) < 2 {
		return ""
	}
	project := part[1]
	switch {
	case len(part) >= 4 && part[2] == "buckets": // of one that isn't there nobody is refused anything
		return "gcloud storage buckets add-iam-policy-binding gs://" + part[3]
	case len(part) >= 4 && part[2] == "serviceAccounts":
		if project = accountProject(part[3]); narrow && project != "" {
			return fmt.Sprintf("gcloud iam service-accounts add-iam-policy-binding %s --project=%s", part[3], project)
		}
	case !narrow || governing(name) == "":
	case part[4] == "services":
		return fmt.Sprintf("gcloud run services add-iam-policy-binding %s --region=%s --project=%s", part[5], part[3],
			project)
	case part[4] == "repositories":
		return fmt.Sprintf("gcloud artifacts repositories add-iam-policy-binding %s --location=%s --project=%s",
			part[5], part[3], project)
	}
	if project == "" || project == "-" || project == "_" {
		return ""
	}
	return "gcloud projects add-iam-policy-binding " + project
}
