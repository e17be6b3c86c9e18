package resource

import (
	"strings"

	"giggle/fault"
)

// Selector is a Kubernetes label selector: every requirement must hold.
type Selector []requirement

type requirement struct {
	key    string
	values []string // nil: the key must be there (or, negated, must not)
	negate bool
}

// ParseSelector reads the equality and set forms of a label selector: "a=b", "a == b", "a != b", "a in (b, c)",
// "a notin (b)", "a", "!a", comma-separated. gcloud 528 writes "serving.knative.dev/service = NAME", with spaces.
// It fails with InvalidArgument.
func ParseSelector(s string) (Selector, error) {
	if len(s) > 4096 {
		return nil, fault.Invalid("labelSelector", "longer than 4096 bytes")
	}
	var out Selector
	for _, term := range splitTop(s) {
		term = strings.TrimSpace(term)
		if term == "" {
			continue
		}
		r, ok := parseRequirement(term)
		if !ok {
			return nil, fault.Invalid("labelSelector",
				"%q is not a requirement; write key=value, key!=value, key in (a,b) or key", term)
		}
		out = append(out, r)
	}
	return out, nil
}

// splitTop splits at the commas that are not inside parentheses.
func splitTop(s string) []string {
	var out []string
	depth, start := 0, 0
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, s[start:i])
				start = i + 1
			}
		}
	}
	return append(out, s[start:])
}

func parseRequirement(term string) (requirement, bool) {
	for _, op := range []struct {
		text   string
		negate bool
	}{{"!=", true}, {"==", false}, {"=", false}} {
		if k, v, ok := strings.Cut(term, op.text); ok {
			r := requirement{strings.TrimSpace(k), []string{strings.TrimSpace(v)}, op.negate}
			return r, labelKey(r.key) && !strings.ContainsAny(r.values[0], "=!() ,")
		}
	}
	if open := strings.IndexByte(term, '('); open > 0 && strings.HasSuffix(term, ")") {
		words := strings.Fields(term[:open])
		if len(words) != 2 || (words[1] != "in" && words[1] != "notin") || !labelKey(words[0]) {
			return requirement{}, false
		}
		r := requirement{key: words[0], negate: words[1] == "notin", values: []string{}}
		for _, v := range strings.Split(term[open+1:len(term)-1], ",") {
			r.values = append(r.values, strings.TrimSpace(v))
		}
		return r, true
	}
	r := requirement{key: strings.TrimSpace(strings.TrimPrefix(term, "!")), negate: strings.HasPrefix(term, "!")}
	return r, labelKey(r.key)
}

func labelKey(s string) bool { return s != "" && len(s) <= 317 && !strings.ContainsAny(s, " =!(),") }

// Matches reports whether labels meet every requirement. As in Kubernetes, a negated one holds when the key is absent.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s {
		v, ok := labels[r.key]
		if ok && r.values != nil {
			ok = false
			for _, w := range r.values {
				ok = ok || v == w
			}
		}
		if ok == r.negate {
			return false
		}
	}
	return true
}
