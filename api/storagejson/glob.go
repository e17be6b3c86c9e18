package storagejson

import (
	"regexp"
	"strings"

	"giggle/fault"
)

// maxGlob bounds a pattern: it becomes a regular expression.
const maxGlob = 1024

// parseGlob reads a pattern (https://cloud.google.com/storage/docs/json_api/v1/objects/list, its section about globs):
// * and ? stand for anything in a segment, ** also for slashes, [a-z] for a set, {a,b} for alternatives, and \ takes
// the meaning from what follows.
func parseGlob(glob string) (func(name string) bool, error) {
	bad := func(why string) (func(string) bool, error) {
		return nil, fault.Invalid("matchGlob", "Invalid value %.100q: %s.", glob, why)
	}
	if len(glob) > maxGlob {
		return bad("it is too long")
	}
	var b strings.Builder
	depth := 0
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString("(?s:.*)")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '[':
			end := strings.IndexByte(glob[i+1:], ']')
			if end < 1 {
				return bad("a set has no end, or nothing in it")
			}
			set := glob[i+1 : i+1+end]
			if rest, not := strings.CutPrefix(set, "!"); not {
				set = "^" + rest
			}
			b.WriteString("[" + strings.NewReplacer(`\`, `\\`, "[", `\[`, "&", `\&`).Replace(set) + "]")
			i += end + 1
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '\\' && i+1 < len(glob):
			i++
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		default:
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		}
	}
	if depth > 0 {
		return bad("a { has no }")
	}
	re, err := regexp.Compile("^(?:" + b.String() + ")$")
	if err != nil {
		return bad("it is not a pattern")
	}
	return re.MatchString, nil
}
