package builds

import (
	"slices"
	"strings"
	"time"

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
			// A colon ends the field, but belongs to the value: a time has colons.
			if value := len(p.words) > 0 && isOperator(p.words[len(p.words)-1].text); !value {
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

// compare is one comparison. A field with several values compares well if one of them does.
func compare(field, op, value string) (Filter, error) {
	if at, ok := times[field]; ok {
		want, err := parseTime(value)
		if err != nil {
			return nil, fault.Invalid("filter", "%.50q is not a time such as 2026-01-31T12:00:00Z", value)
		}
		return func(b *Build) bool {
			t := at(b)
			if t.IsZero() {
				return false
			}
			c := t.Compare(want)
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
		}, nil
	}
	get, ok := texts[field]
	if key, is := strings.CutPrefix(field, "substitutions."); is {
		get, ok = func(b *Build) []string { return []string{b.Spec.Substitutions[key]} }, true
	}
	if !ok {
		return nil, fault.Invalid("filter", "%.50q is not a field that builds are chosen by", field)
	}
	switch op {
	case "=", ":":
		return func(b *Build) bool { return slices.Contains(get(b), value) }, nil
	case "!=":
		return func(b *Build) bool { return !slices.Contains(get(b), value) }, nil
	}
	return nil, fault.Invalid("filter", "%q can't be compared by %q", field, op)
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
	"createTime":  func(b *Build) time.Time { return b.Created },
	"start_time":  func(b *Build) time.Time { return b.Started },
	"startTime":   func(b *Build) time.Time { return b.Started },
	"finish_time": func(b *Build) time.Time { return b.Finished },
	"finishTime":  func(b *Build) time.Time { return b.Finished },
}

var texts = func() map[string]func(*Build) []string {
	id := func(b *Build) []string { return []string{b.Name.ID} }
	images := func(b *Build) []string { return b.Spec.Images }
	account := func(b *Build) []string {
		return []string{b.Account, "projects/" + b.Project + "/serviceAccounts/" + b.Account}
	}
	source := func(get func(*Build) string) func(*Build) []string {
		return func(b *Build) []string { return []string{get(b)} }
	}
	trigger := func(b *Build) []string { return []string{b.Trigger} }
	bucket := source(func(b *Build) string { return b.Source.Bucket })
	object := source(func(b *Build) string { return b.Source.Object })
	return map[string]func(*Build) []string{
		"status": func(b *Build) []string { return []string{string(b.Status)} },
		"tags":   func(b *Build) []string { return b.Tags },
		"id":     id, "build_id": id, "buildId": id,
		"images": images, "image": images, "results.images.name": images,
		"service_account": account, "serviceAccount": account,
		"project_id": func(b *Build) []string { return []string{b.Project} },
		"projectId":  func(b *Build) []string { return []string{b.Project} },
		"trigger_id": trigger, "build_trigger_id": trigger, "buildTriggerId": trigger,
		"source.storage_source.bucket": bucket, "source.storageSource.bucket": bucket,
		"source.storage_source.object": object, "source.storageSource.object": object,
	}
}()
