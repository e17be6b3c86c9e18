package logging

import (
	"net/url"
	"strings"
)

// traceName is a trace's full name. What an application wrote may be one already.
func traceName(project, trace string) string {
	if trace == "" || strings.Contains(trace, "/") {
		return trace
	}
	return "projects/" + project + "/traces/" + trace
}

// traceID is the id in a trace's name, or what was written where it isn't such a name.
func traceID(name string) string {
	if rest, ok := strings.CutPrefix(name, "projects/"); ok {
		if _, id, ok := strings.Cut(rest, "/traces/"); ok && !strings.Contains(id, "/") {
			return id
		}
	}
	return name
}

// logOf is the id of a log in its full name, or the name where it isn't one.
func logOf(name string) string {
	_, id, ok := strings.Cut(name, "/logs/")
	if !ok {
		return name
	}
	if s, err := url.QueryUnescape(id); err == nil {
		return s
	}
	return id
}
