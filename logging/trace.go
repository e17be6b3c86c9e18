package logging

import (
	"net/url"
	"strings"
)

// TraceName is a trace's full name. What an application wrote may be one already.
func TraceName(project, trace string) string {
	if trace == "" || strings.Contains(trace, "/") {
		return trace
	}
	return "projects/" + project + "/traces/" + trace
}

// TraceID is the id in a trace's name, or what was written where it isn't such a name.
func TraceID(name string) string {
	if rest, ok := strings.CutPrefix(name, "projects/"); ok {
		if _, id, ok := strings.Cut(rest, "/traces/"); ok && !strings.Contains(id, "/") {
			return id
		}
	}
	return name
}

// splitLogName returns the project and the id of a log by its full name, or the name where it isn't one.
func splitLogName(name string) (project, log string) {
	parent, id, ok := strings.Cut(name, "/logs/")
	project, inProject := strings.CutPrefix(parent, "projects/")
	if !ok || !inProject {
		return "", name
	}
	if s, err := url.QueryUnescape(id); err == nil {
		id = s
	}
	return project, id
}
