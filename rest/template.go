package rest

import (
	"fmt"
	"net/url"
	"strings"
)

// template is a parsed google.api.http path template. Its grammar (google/api/http.proto):
//
//	Template = "/" Segments [ ":" LITERAL ] ;
//	Segments = Segment { "/" Segment } ;
//	Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}" ;
type template struct {
	segs []string // literals, "*" and at most one "**"
	deep int      // index of "**", or -1
	verb string   // custom verb without its colon

	plain bool // no variable keeps an escaped slash
	vars  []variable
}

// variable is a field that takes the path segments [from, to) of the template.
type variable struct {
	path     string // of the field, dot-separated
	from, to int
	multi    bool // its value may hold slashes
}

func parseTemplate(s string) (template, error) {
	t := template{deep: -1}
	fail := func(why string) (template, error) { return template{}, fmt.Errorf("template %q: %s", s, why) }
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return fail("must start with a slash")
	}
	for {
		if strings.HasPrefix(rest, "{") {
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return fail("an open brace")
			}
			field, pattern, has := strings.Cut(rest[1:end], "=")
			if !has {
				pattern = "*"
			}
			if field == "" || pattern == "" || strings.ContainsAny(field, "{*/:") {
				return fail("a variable without a field path")
			}
			from := len(t.segs)
			t.segs = append(t.segs, strings.Split(pattern, "/")...)
			t.vars = append(t.vars, variable{path: field, from: from, to: len(t.segs), multi: pattern != "*"})
			rest = rest[end+1:]
		} else {
			end := strings.IndexAny(rest, "/:{")
			if end < 0 {
				end = len(rest)
			}
			t.segs = append(t.segs, rest[:end])
			rest = rest[end:]
		}
		if rest == "" {
			break
		}
		if rest[0] == ':' {
			t.verb = rest[1:]
			if t.verb == "" || strings.ContainsAny(t.verb, "/{}*:") {
				return fail("a malformed verb")
			}
			break
		}
		if rest[0] != '/' {
			return fail("a variable must fill whole segments")
		}
		rest = rest[1:]
	}
	for i, seg := range t.segs {
		switch {
		case seg == "**" && t.deep >= 0:
			return fail("more than one **")
		case seg == "**":
			t.deep = i
		case seg == "*":
		case seg == "" && len(t.segs) == 1: // the root path, "/"
		case seg == "" || strings.ContainsAny(seg, "{}*:="):
			return fail("a malformed segment")
		}
	}
	return t, nil
}

// at returns where index i of the template lies in a path of n segments that matches it.
func (t *template) at(i, n int) int {
	if t.deep >= 0 && i > t.deep {
		return i + n - len(t.segs)
	}
	return i
}

// params returns the variables of a path (escaped segments) that matches t. A variable that may hold slashes keeps
// "%2F", so that projects/p/packages/a%2Fb stays apart from projects/p/packages/a/b; all else is unescaped.
func (t *template) params(segs []string) (map[string]string, error) {
	if len(t.vars) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(t.vars))
	for _, v := range t.vars {
		raw := strings.Join(segs[t.at(v.from, len(segs)):t.at(v.to, len(segs))], "/")
		if v.multi && !t.plain {
			raw = strings.NewReplacer("%2F", "%252F", "%2f", "%252F").Replace(raw)
		}
		value, err := url.PathUnescape(raw)
		if err != nil {
			return nil, fmt.Errorf("path segment %q is not well escaped", raw)
		}
		out[v.path] = value
	}
	return out, nil
}
