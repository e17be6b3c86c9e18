package trigger

import (
	"regexp"
	"strings"

	"giggle/fault"
)

// Matches reports whether an event of a branch or a tag is meant; the other of the two is "".
func (p *Pattern) Matches(branch, tag string) bool {
	expression, value := p.Branch, branch
	if p.Tag != "" {
		expression, value = p.Tag, tag
	}
	if expression == "" || value == "" {
		return false
	}
	re, err := regexp.Compile(expression)
	return err == nil && re.MatchString(value) != p.Invert
}

// Touches reports whether a trigger cares about a change of these files: one is neither ignored nor left out by the
// included ones. (Documentation, "Creating and managing build triggers": "If you specify a file in both, changes to
// that file won't invoke a build.")
func (t *Trigger) Touches(files []string) bool {
	if len(t.Included) == 0 && len(t.Ignored) == 0 {
		return true
	}
	included, ignored := compile(t.Included), compile(t.Ignored)
	for _, f := range files {
		if !anyMatch(ignored, f) && (len(t.Included) == 0 || anyMatch(included, f)) {
			return true
		}
	}
	return false
}

func compile(globs []string) (out []*regexp.Regexp) {
	for _, g := range globs {
		if re, err := globExpression(g); err == nil {
			out = append(out, re)
		}
	}
	return out
}

func anyMatch(all []*regexp.Regexp, name string) bool {
	for _, re := range all {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

// CheckGlob fails with InvalidArgument on what is no glob.
func CheckGlob(glob string) error {
	_, err := globExpression(glob)
	return err
}

// globExpression writes a glob as a regular expression: Go's filepath.Match, and ** for any number of directories. A
// leading slash counts for nothing.
func globExpression(glob string) (*regexp.Regexp, error) {
	bad := fault.New(fault.InvalidArgument, "%.200q is not a glob", glob)
	if glob == "" || len(glob) > 1000 {
		return nil, bad
	}
	var out strings.Builder
	out.WriteString(`(?s)^`)
	for g := strings.TrimPrefix(glob, "/"); g != ""; {
		switch {
		case strings.HasPrefix(g, "**/"):
			out.WriteString(`(?:.*/)?`)
			g = g[3:]
		case strings.HasPrefix(g, "**"):
			out.WriteString(`.*`)
			g = g[2:]
		case g[0] == '*':
			out.WriteString(`[^/]*`)
			g = g[1:]
		case g[0] == '?':
			out.WriteString(`[^/]`)
			g = g[1:]
		case g[0] == '[':
			end := strings.IndexByte(g[1:], ']') + 1
			if end < 2 || strings.Contains(g[:end], "[") && strings.Count(g[:end], "[") > 1 {
				return nil, bad
			}
			set := strings.ReplaceAll(g[1:end], `\`, `\\`)
			if strings.HasPrefix(set, "!") {
				set = "^" + set[1:]
			}
			out.WriteString(`[` + set + `]`)
			g = g[end+1:]
		case g[0] == '\\' && len(g) > 1:
			out.WriteString(regexp.QuoteMeta(g[1:2]))
			g = g[2:]
		default:
			out.WriteString(regexp.QuoteMeta(g[:1]))
			g = g[1:]
		}
	}
	out.WriteString(`$`)
	re, err := regexp.Compile(out.String())
	if err != nil {
		return nil, bad
	}
	return re, nil
}
