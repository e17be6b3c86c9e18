package resourcemanager

import (
	"strings"

	"giggle/fault"
	"giggle/filter"
	"giggle/projects"
)

// parseFilter reads the filter of v1 and the query of v3: fields are compared but for case
// (https://cloud.google.com/resource-manager/reference/rest/v1/projects/list and …/v3/projects/search). A value that
// stands alone is looked for in the id and the name.
func parseFilter(s string) (func(projects.Project) bool, error) {
	return filter.Parse(s, func(c filter.Comparison) (func(projects.Project) bool, error) {
		get, ok := field(c.Field)
		switch {
		case !ok:
			return nil, fault.Invalid("filter", "%.60q is not one of id, name, projectNumber, lifecycleState, labels.KEY and parent",
				c.Field)
		case c.Field == "":
			word := strings.ToLower(c.Value)
			return func(p projects.Project) bool {
				return strings.Contains(p.ID, word) || strings.Contains(strings.ToLower(p.Name), word)
			}, nil
		case c.Op == "=" || c.Op == ":":
			return func(p projects.Project) bool { return filter.Text(get(p), c.Value) }, nil
		case c.Op == "!=":
			return func(p projects.Project) bool { return !filter.Text(get(p), c.Value) }, nil
		}
		return nil, fault.Invalid("filter", "%.60q can't be compared by %s", c.Field, c.Op)
	})
}

// field returns what a field of a filter stands for. Field names are read as gcloud and v3 write them, and as people
// do.
func field(name string) (func(projects.Project) string, bool) {
	key := strings.ReplaceAll(strings.ToLower(name), "_", "")
	if label, ok := strings.CutPrefix(key, "labels."); ok && label != "" {
		label = name[len("labels."):]
		return func(p projects.Project) string { return p.Labels[label] }, true
	}
	switch key {
	case "", "id", "projectid":
		return func(p projects.Project) string { return p.ID }, true
	case "name", "displayname":
		return func(p projects.Project) string { return p.Name }, true
	case "projectnumber", "project":
		return func(p projects.Project) string { return p.Number }, true
	case "lifecyclestate", "state":
		return state, true
	case "parent":
		return func(p projects.Project) string { return p.Parent }, true
	case "parent.id":
		return func(p projects.Project) string { _, id, _ := strings.Cut(p.Parent, "/"); return id }, true
	case "parent.type":
		return func(p projects.Project) string { kind, _, _ := strings.Cut(p.Parent, "s/"); return kind }, true
	}
	return nil, false
}

// state is a project's life cycle state, the same in both versions.
func state(p projects.Project) string {
	if p.Active() {
		return "ACTIVE"
	}
	return "DELETE_REQUESTED"
}
