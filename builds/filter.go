package builds

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"

	"giggle/fault"
)

// Filter chooses builds: what "View build results" of the documentation has, and what gcloud sends for --ongoing.
//
//	filter     = term { "OR" term }
//	term       = factor { ["AND"] factor }
//	factor     = ["NOT" | "-"] ( "(" filter ")" | comparison )
//	comparison = field ("=" | "!=" | ":" | "<" | "<=" | ">" | ">=") value
type Filter func(b *Build) bool

// Limits of a filter.
const (
	maxFilter = 10_000 // bytes
	maxDepth  = 32     // of parentheses
)

// ParseFilter reads a filter; an empty one chooses all. It fails with InvalidArgument.
func ParseFilter(s string) (Filter, error) {
	if len(s) > maxFilter {
		return nil, fault.Invalid("filter", "is longer than %d bytes", maxFilter)
	}
	p := &filterParser{}
	if err := p.split(s); err != nil {
		return nil, err
	}
	if len(p.words) == 0 {
		return func(*Build) bool { return true }, nil
	}
	f, err := p.or(0)
	if err == nil && len(p.words) > 0 {
		err = fault.Invalid("filter", "%.50q is not expected there", p.words[0].text)
	}
	return f, err
}

type word struct {
	text   string
	quoted bool
}

type filterParser struct{ words []word }

// split cuts a filter into words and operators.
func (p *filterParser) split(s string) error {
	for s = strings.TrimLeft(s, " \t\n"); s != ""; s = strings.TrimLeft(s, " \t\n") {
		switch c := s[0]; {
		case c == '"' || c == '\'':
			var text strings.Builder
			i := 1
			for ; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				text.WriteByte(s[i])
			}
			if i >= len(s) {
				return fault.Invalid("filter", "a quote is not closed")
			}
			p.words, s = append(p.words, word{text.String(), true}), s[i+1:]
		case strings.HasPrefix(s, "!=") || strings.HasPrefix(s, "<=") || strings.HasPrefix(s, ">="):
			p.words, s = append(p.words, word{text: s[:2]}), s[2:]
		case strings.ContainsRune("()=:<>", rune(c)):
			p.words, s = append(p.words, word{text: s[:1]}), s[1:]
		default:
			n := strings.IndexAny(s, " \t\n()=<>\"'")
			// A colon ends the field, but belongs to the value: a time has colons. A dash begins a negation or a value.
			value := len(p.words) > 0 && isOperator(p.words[len(p.words)-1].text)
			if !value && s[0] == '-' {
				p.words, s = append(p.words, word{text: "-"}), s[1:]
				continue
			}
			if !value {
				n = strings.IndexAny(s, " \t\n()=:<>!\"'")
			}
			if n < 0 {
				n = len(s)
			}
			if n == 0 {
				return fault.Invalid("filter", "%.20q is not expected there", s)
			}
			p.words, s = append(p.words, word{text: s[:n]}), s[n:]
		}
	}
	return nil
}

func isOperator(s string) bool {
	return slices.Contains([]string{"=", "!=", ":", "<", "<=", ">", ">="}, s)
}

// next takes the next word if it is one of those, not quoted.
func (p *filterParser) next(texts ...string) bool {
	if len(p.words) > 0 && !p.words[0].quoted && slices.Contains(texts, p.words[0].text) {
		p.words = p.words[1:]
		return true
	}
	return false
}

func (p *filterParser) or(depth int) (Filter, error) {
	if depth > maxDepth {
		return nil, fault.Invalid("filter", "is nested too deep")
	}
	left, err := p.and(depth)
	for err == nil && p.next("OR") {
		var right Filter
		l := left
		right, err = p.and(depth)
		left = func(b *Build) bool { return l(b) || right(b) }
	}
	return left, err
}

func (p *filterParser) and(depth int) (Filter, error) {
	left, err := p.factor(depth)
	for err == nil && len(p.words) > 0 && (p.words[0].quoted || p.words[0].text != "OR" && p.words[0].text != ")") {
		p.next("AND")
		var right Filter
		l := left
		right, err = p.factor(depth)
		left = func(b *Build) bool { return l(b) && right(b) }
	}
	return left, err
}

func (p *filterParser) factor(depth int) (Filter, error) {
	if p.next("NOT", "-") {
		f, err := p.factor(depth + 1)
		if depth > maxDepth {
			return nil, fault.Invalid("filter", "is nested too deep")
		}
		return func(b *Build) bool { return !f(b) }, err
	}
	if p.next("(") {
		f, err := p.or(depth + 1)
		if err == nil && !p.next(")") {
			err = fault.Invalid("filter", "a parenthesis is not closed")
		}
		return f, err
	}
	if len(p.words) < 3 || !isOperator(p.words[1].text) || p.words[1].quoted {
		return nil, fault.Invalid("filter", "FIELD=VALUE is expected; several are joined by AND or OR")
	}
	field, op, value := p.words[0].text, p.words[1].text, p.words[2].text
	p.words = p.words[3:]
	return compare(field, op, value)
}

// compare is one comparison. A field with several values compares well if one of them does. Names are in either
// spelling.
func compare(field, op, value string) (Filter, error) {
	name := snake(field)
	if at, ok := times[name]; ok {
		want, err := parseTime(value)
		if err != nil {
			return nil, fault.Invalid("filter", "%.50q is not a time such as 2026-01-31T12:00:00Z", value)
		}
		return func(b *Build) bool {
			t := at(b)
			return !t.IsZero() && holds(t.Compare(want), op)
		}, nil
	}
	get, ok := texts[name]
	if key, is := strings.CutPrefix(field, "substitutions."); is {
		get, ok = func(b *Build) []string { return []string{b.Spec.Substitutions[key]} }, true
	}
	if !ok {
		return nil, fault.Invalid("filter", "%.50q is not a field that builds are chosen by", field)
	}
	if op == "!=" {
		return func(b *Build) bool { return !slices.Contains(get(b), value) }, nil
	}
	return func(b *Build) bool {
		return slices.ContainsFunc(get(b), func(v string) bool { return holds(strings.Compare(v, value), op) })
	}, nil
}

// holds reports whether an operator holds for two values that compare as c.
func holds(c int, op string) bool {
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "!=":
		return c != 0
	}
	return c == 0
}

// snake is a name in the spelling of the protos: "source.repo_source" of "source.repoSource".
func snake(name string) string {
	var out strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			out.WriteByte('_')
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	for _, form := range []string{"2006-01-02T15:04:05", "2006-01-02"} {
		if err != nil {
			t, err = time.Parse(form, s)
		}
	}
	return t, err
}

var times = map[string]func(*Build) time.Time{
	"create_time": func(b *Build) time.Time { return b.Created },
	"start_time":  func(b *Build) time.Time { return b.Started },
	"finish_time": func(b *Build) time.Time { return b.Finished },
}

// texts are the fields that gcloud 528 sends (filter_rewrite.py), and those of "View build results" in the
// documentation.
var texts = func() map[string]func(*Build) []string {
	one := func(get func(*Build) string) func(*Build) []string {
		return func(b *Build) []string { return []string{get(b)} }
	}
	repo := func(get func(*Repo) string) func(*Build) []string {
		return func(b *Build) []string {
			if b.Source.Repo == nil {
				return nil
			}
			return []string{get(b.Source.Repo)}
		}
	}
	pushed := func(get func(*Pushed) string) func(*Build) []string {
		return func(b *Build) (out []string) {
			for i := range b.Images {
				out = append(out, get(&b.Images[i]))
			}
			return out
		}
	}
	id := one(func(b *Build) string { return b.Name.ID })
	images := func(b *Build) []string { return b.Spec.Images }
	trigger := one(func(b *Build) string { return b.Trigger })
	commit := repo(func(r *Repo) string { return r.Commit })
	return map[string]func(*Build) []string{
		"status": one(func(b *Build) string { return string(b.Status) }),
		"tags":   func(b *Build) []string { return b.Tags },
		"id":     id, "build_id": id,
		"images": images, "image": images,
		"service_account": func(b *Build) []string {
			return []string{b.Account, "projects/" + b.Project + "/serviceAccounts/" + b.Account}
		},
		"project_id": one(func(b *Build) string { return b.Project }),
		"trigger_id": trigger, "build_trigger_id": trigger,
		"results.images.name":   pushed(func(p *Pushed) string { return p.Name }),
		"results.images.digest": pushed(func(p *Pushed) string { return p.Digest }),
		"options.requested_verify_option": func(b *Build) []string {
			return []string{cmp.Or(b.Spec.Options.Verify, "NOT_VERIFIED")}
		},
		"source.storage_source.bucket":                      one(func(b *Build) string { return b.Source.Bucket }),
		"source.storage_source.object":                      one(func(b *Build) string { return b.Source.Object }),
		"source.repo_source.repo_name":                      repo(func(r *Repo) string { return r.Name }),
		"source.repo_source.branch_name":                    repo(func(r *Repo) string { return r.Branch }),
		"source.repo_source.tag_name":                       repo(func(r *Repo) string { return r.Tag }),
		"source.repo_source.commit_sha":                     commit,
		"source_provenance.resolved_repo_source.commit_sha": commit,
	}
}()
