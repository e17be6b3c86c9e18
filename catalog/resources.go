package catalog

import "strings"

// TypeOf returns the API and the kind of the resource with that name, "projects/…", or false where no API has it.
func TypeOf(name string) (API, Resource, bool) {
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return API{}, Resource{}, false
	}
	_, rest, _ = strings.Cut(rest, "/")
	for _, a := range apis {
		for _, r := range a.Resources {
			if matches(r.Name, rest) {
				return a, r, true
			}
		}
	}
	return API{}, Resource{}, false
}

// matches reports whether a name below a project is of a pattern.
func matches(pattern, name string) bool {
	n, ok := prefix(pattern, name)
	return ok && n == len(name)
}

// prefix returns how many bytes of a name a pattern takes, or false where it isn't of the pattern.
func prefix(pattern, name string) (int, bool) {
	rest := name
	for pattern != "" {
		want, more, _ := strings.Cut(pattern, "/")
		if want == "**" {
			return len(name), rest != ""
		}
		have, after, _ := strings.Cut(rest, "/")
		if have == "" || want != "*" && want != have {
			return 0, false
		}
		pattern = more
		if rest = after; pattern == "" {
			break
		}
	}
	n := len(name) - len(rest)
	if rest != "" {
		n-- // the slash before it
	}
	return n, true
}

// governed are the patterns of the kinds with policies of their own.
var governed = func() (out []string) {
	for _, a := range apis {
		for _, r := range a.Resources {
			if r.Policy && r.Name != "" {
				out = append(out, r.Name)
			}
		}
	}
	return out
}()

// Parent returns the resource whose policy a resource inherits: the nearest one above it that can have a policy, which
// is its project where there is no other; or false for a project. It takes no memory: each request to a service comes
// by here.
func Parent(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return "", false
	}
	project, rest, ok := strings.Cut(rest, "/")
	nearest := -1
	for _, pattern := range governed {
		if n, ok := prefix(pattern, rest); ok && n < len(rest) {
			nearest = max(nearest, n)
		}
	}
	if nearest > 0 {
		return name[:len(name)-len(rest)+nearest], true
	}
	return name[:len("projects/")+len(project)], ok
}
