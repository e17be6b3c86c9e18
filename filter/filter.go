// Package filter reads the filters of Google's list methods (https://google.aip.dev/160, and what gcloud 528 makes of
// --filter for the servers that take one).
//
//	filter     = and { "OR" and }
//	and        = factor { ["AND"] factor }
//	factor     = ["NOT" | "-"] ( "(" filter ")" | comparison )
//	comparison = value | field op value | field op "(" value { ["OR" | "AND"] value } ")"
//	op         = "=" | "!=" | ":" | "<" | "<=" | ">" | ">="
//
// What a comparison means is for each kind of resource to say.
package filter

import (
	"slices"
	"strings"

	"giggle/fault"
)

// Comparison is one comparison of a filter.
type Comparison struct {
	Field string // as written: "labels.env"; "" for a value that stands alone
	Op    string
	Value string
}

// Limits of a filter.
const (
	maxLength = 10_000 // bytes
	maxDepth  = 32     // of parentheses and negations
)

// Parse reads a filter, whose comparisons compare makes; an empty filter chooses all. It fails with InvalidArgument, as
// compare should.
func Parse[T any](s string, compare func(Comparison) (func(T) bool, error)) (func(T) bool, error) {
	if len(s) > maxLength {
		return nil, fault.Invalid("filter", "is longer than %d bytes", maxLength)
	}
	p := &parser[T]{compare: compare}
	if err := p.split(s); err != nil {
		return nil, err
	}
	if len(p.words) == 0 {
		return func(T) bool { return true }, nil
	}
	f, err := p.or(0)
	if err == nil && len(p.words) > 0 {
		err = fault.Invalid("filter", "%.50q is not expected there", p.words[0].text)
	}
	return f, err
}

// Holds reports whether an operator (<, <=, >, >=, !=; = and : are any other) holds for two values that compare as c.
func Holds(c int, op string) bool {
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

// Text reports whether a text is what a comparison by = or : wants: the same but for case, or with the same beginning
// where the value ends in *. Any text but an empty one is what * wants.
func Text(have, want string) bool {
	have, want = strings.ToLower(have), strings.ToLower(want)
	if prefix, wild := strings.CutSuffix(want, "*"); wild {
		return have != "" && strings.HasPrefix(have, prefix)
	}
	return have == want
}

type word struct {
	text   string
	quoted bool
}

func (w word) is(texts ...string) bool { return !w.quoted && slices.Contains(texts, w.text) }

var operators = []string{"=", "!=", ":", "<", "<=", ">", ">="}

type parser[T any] struct {
	words   []word
	compare func(Comparison) (func(T) bool, error)
}

// split cuts a filter into words and operators.
func (p *parser[T]) split(s string) error {
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
		case c == '-' && len(s) > 1 && !p.valueNext():
			p.words, s = append(p.words, word{text: "-"}), s[1:]
		default:
			n := strings.IndexAny(s, " \t\n()=:<>!\"'")
			if p.valueNext() {
				// A colon ends a field, but belongs to a value: a time has colons.
				n = strings.IndexAny(s, " \t\n()=<>\"'")
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

// valueNext reports whether the next word is a value: an operator stands before it, and maybe a parenthesis.
func (p *parser[T]) valueNext() bool {
	n := len(p.words)
	return n > 0 && p.words[n-1].is(operators...)
}

// next takes the next word if it is one of those.
func (p *parser[T]) next(texts ...string) bool {
	if len(p.words) > 0 && p.words[0].is(texts...) {
		p.words = p.words[1:]
		return true
	}
	return false
}

func (p *parser[T]) or(depth int) (func(T) bool, error) {
	if depth > maxDepth {
		return nil, fault.Invalid("filter", "is nested too deep")
	}
	left, err := p.and(depth)
	for err == nil && p.next("OR") {
		var right func(T) bool
		l := left
		right, err = p.and(depth)
		left = func(v T) bool { return l(v) || right(v) }
	}
	return left, err
}

func (p *parser[T]) and(depth int) (func(T) bool, error) {
	left, err := p.factor(depth)
	for err == nil && len(p.words) > 0 && !p.words[0].is("OR", ")") {
		p.next("AND")
		var right func(T) bool
		l := left
		right, err = p.factor(depth)
		left = func(v T) bool { return l(v) && right(v) }
	}
	return left, err
}

func (p *parser[T]) factor(depth int) (func(T) bool, error) {
	if p.next("NOT", "-") {
		if depth > maxDepth {
			return nil, fault.Invalid("filter", "is nested too deep")
		}
		f, err := p.factor(depth + 1)
		return func(v T) bool { return !f(v) }, err
	}
	if p.next("(") {
		f, err := p.or(depth + 1)
		if err == nil && !p.next(")") {
			err = fault.Invalid("filter", "a parenthesis is not closed")
		}
		return f, err
	}
	return p.comparison()
}

func (p *parser[T]) comparison() (func(T) bool, error) {
	expected := fault.Invalid("filter", "FIELD=VALUE is expected; several are joined by AND or OR")
	if len(p.words) == 0 || p.words[0].is(append(operators, ")", "AND", "OR")...) {
		return nil, expected
	}
	field := p.words[0]
	if len(p.words) == 1 || !p.words[1].is(operators...) {
		p.words = p.words[1:]
		return p.compare(Comparison{Value: field.text})
	}
	op := p.words[1].text
	p.words = p.words[2:]
	if p.next("(") {
		return p.values(field.text, op)
	}
	if len(p.words) == 0 || p.words[0].is(append(operators, ")")...) {
		return nil, expected
	}
	value := p.words[0].text
	p.words = p.words[1:]
	return p.compare(Comparison{field.text, op, value})
}

// values reads the rest of FIELD:(A B): one of them is enough unless AND stands between.
func (p *parser[T]) values(field, op string) (func(T) bool, error) {
	var out func(T) bool
	all := false
	for !p.next(")") {
		if out != nil && p.next("AND") {
			all = true
		} else if out != nil {
			p.next("OR")
		}
		if len(p.words) == 0 || p.words[0].is(append(operators, "(", "AND", "OR", ")")...) {
			return nil, fault.Invalid("filter", "%s%s(A B) is expected", field, op)
		}
		f, err := p.compare(Comparison{field, op, p.words[0].text})
		if err != nil {
			return nil, err
		}
		p.words = p.words[1:]
		switch before := out; {
		case before == nil:
			out = f
		case all:
			out = func(v T) bool { return before(v) && f(v) }
		default:
			out = func(v T) bool { return before(v) || f(v) }
		}
	}
	if out == nil {
		return nil, fault.Invalid("filter", "%s%s() has no value", field, op)
	}
	return out, nil
}
