package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"giggle/fault"
)

// maxDepth bounds how deep parentheses and NOTs nest.
const maxDepth = 100

// parser reads a query from left to right. NOT binds tightest, then OR, then AND, which may be left out:
// `a OR NOT b AND NOT c OR d` is `(a OR (NOT b)) AND ((NOT c) OR d)`.
type parser struct {
	text  string
	at    int // bytes
	depth int
}

// query reads the whole of it.
func (p *parser) query() (node, error) {
	p.space()
	if p.at == len(p.text) {
		return nil, nil
	}
	n, err := p.conjunction(p.term)
	if err != nil {
		return nil, err
	}
	if p.at < len(p.text) {
		return nil, p.unexpected("")
	}
	return n, nil
}

// operand reads what boolean operators join: a term of a query, or a value on the right of a comparison.
type operand func() (node, error)

// conjunction is what AND joins, said or not.
func (p *parser) conjunction(of operand) (node, error) {
	var out all
	for {
		n, err := p.disjunction(of)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		and := p.keyword("AND")
		if p.at == len(p.text) || p.text[p.at] == ')' {
			if and {
				return nil, p.unexpected("a comparison after AND")
			}
			break
		}
		if !and && p.peek("OR") {
			return nil, p.unexpected("a comparison")
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return out, nil
}

func (p *parser) disjunction(of operand) (node, error) {
	var out some
	for {
		n, err := p.negation(of)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		if !p.keyword("OR") {
			break
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return out, nil
}

func (p *parser) negation(of operand) (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("is nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.keyword("NOT") || p.minus() {
		n, err := p.negation(of)
		return not{n}, err
	}
	if p.at < len(p.text) && p.text[p.at] == '(' {
		p.at++
		p.space()
		n, err := p.conjunction(of)
		if err != nil {
			return nil, err
		}
		if p.at == len(p.text) {
			return nil, p.unexpected(`")"`)
		}
		p.at++ // conjunction ends at the end and before a ")"
		p.space()
		return n, nil
	}
	return of()
}

// minus reads a "-" that stands for NOT: before a term, and not before a number.
func (p *parser) minus() bool {
	if p.at+1 < len(p.text) && p.text[p.at] == '-' && !digit(p.text[p.at+1]) {
		p.at++
		p.space()
		return true
	}
	return false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// term reads a comparison, a function, or a value that is looked for everywhere.
func (p *parser) term() (node, error) {
	start := p.at
	path, quoted, err := p.path()
	if err != nil {
		return nil, err
	}
	if p.at < len(p.text) && p.text[p.at] == '(' && !quoted && len(path) == 1 {
		return p.function(path[0], start)
	}
	p.space()
	opAt := p.at
	op := p.operator()
	if op == "" {
		return anywhere{newValue(strings.Join(path, "."), quoted)}, nil
	}
	f, err := resolve(path)
	if err != nil {
		return nil, p.failAt(start, "%v", err)
	}
	p.space()
	value := func() (node, error) { return p.value(f, op, opAt) }
	if p.at < len(p.text) && p.text[p.at] == '(' {
		p.at++
		p.space()
		n, err := p.conjunction(value)
		if err != nil {
			return nil, err
		}
		if p.at == len(p.text) {
			return nil, p.unexpected(`")"`)
		}
		p.at++
		p.space()
		return n, nil
	}
	return value()
}

// value reads what a field is compared with.
func (p *parser) value(f field, op string, opAt int) (node, error) {
	start := p.at
	var text string
	var err error
	quoted := p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'')
	if quoted {
		text, err = p.quoted()
	} else {
		text, err = p.word()
	}
	if err != nil {
		return nil, err
	}
	if !quoted && p.at < len(p.text) && strings.IndexByte(":=<>!~", p.text[p.at]) >= 0 {
		return nil, p.unexpected("quotes around a value with such characters")
	}
	p.space()
	c, err := compare(f, op, newValue(text, quoted))
	if err != nil {
		if fault.Is(err, fault.Unimplemented) {
			return nil, err
		}
		return nil, p.failAt(start, "%v", err)
	}
	return c, nil
}

// operators are those of comparisons, longest first.
var operators = []string{"=~", "!~", "!=", ">=", "<=", "=", ">", "<", ":"}

func (p *parser) operator() string {
	for _, op := range operators {
		if strings.HasPrefix(p.text[p.at:], op) {
			p.at += len(op)
			return op
		}
	}
	return ""
}

// path reads the name of a field, or a value that stands alone: words and quoted texts with dots between them.
func (p *parser) path() (path []string, quoted bool, err error) {
	for {
		if p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'') {
			s, err := p.quoted()
			if err != nil {
				return nil, false, err
			}
			path, quoted = append(path, s), quoted || len(path) == 0
			if p.at < len(p.text) && p.text[p.at] == '.' {
				p.at++
				continue
			}
			return path, quoted, nil
		}
		w, err := p.word()
		if err != nil {
			return nil, false, err
		}
		more := strings.HasSuffix(w, ".") && p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'')
		path = append(path, strings.Split(strings.TrimSuffix(w, "."), ".")...)
		if !more {
			return path, quoted, nil
		}
	}
}

// wordRune reports whether a character may be in a text without quotes.
func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.-/*+%@#$\\&;", r)
}

func (p *parser) word() (string, error) {
	start := p.at
	for p.at < len(p.text) {
		r, size := utf8.DecodeRuneInString(p.text[p.at:])
		if !wordRune(r) || strings.HasPrefix(p.text[p.at:], "--") && p.at > start && p.text[p.at-1] == ' ' {
			break
		}
		p.at += size
	}
	w := p.text[start:p.at]
	if w == "" || w == "AND" || w == "OR" || w == "NOT" {
		p.at = start
		return "", p.unexpected("")
	}
	return w, nil
}

// quoted reads a text in quotes, with the escapes that strings of most languages have.
func (p *parser) quoted() (string, error) {
	start, quote := p.at, p.text[p.at]
	var b strings.Builder
	for i := p.at + 1; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == quote:
			p.at = i + 1
			return b.String(), nil
		case c == '\\' && i+1 < len(p.text):
			n, size := unescape(&b, p.text[i+1:], quote)
			if !n {
				b.WriteByte('\\') // as it stands: a regular expression's
			}
			i += size
		default:
			b.WriteByte(c)
		}
	}
	return "", p.failAt(start, "has no end of this quote")
}

// escapes are those of one letter.
var escapes = map[byte]byte{
	'n': '\n', 't': '\t', 'r': '\r', 'a': '\a', 'f': '\f', 'v': '\v', '\\': '\\', '"': '"', '\'': '\'',
}

// unescape writes what an escape behind its backslash stands for, and how many bytes it has. One that is not known
// stands for itself, with its backslash.
func unescape(b *strings.Builder, s string, quote byte) (known bool, size int) {
	if c, ok := escapes[s[0]]; ok {
		b.WriteByte(c)
		return true, 1
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]
	if digits > 0 && len(s) > digits {
		var r rune
		if n, err := fmt.Sscanf(s[1:1+digits], fmt.Sprintf("%%%dx", digits), &r); n == 1 && err == nil && utf8.ValidRune(r) &&
			!strings.ContainsAny(s[1:1+digits], " \t\n") {
			b.WriteRune(r)
			return true, 1 + digits
		}
	}
	return false, 0
}

// space skips spaces and comments, which begin with "--" and go to the end of their line.
func (p *parser) space() {
	for p.at < len(p.text) {
		r, size := utf8.DecodeRuneInString(p.text[p.at:])
		switch {
		case strings.HasPrefix(p.text[p.at:], "--"):
			if i := strings.IndexByte(p.text[p.at:], '\n'); i >= 0 {
				p.at += i + 1
			} else {
				p.at = len(p.text)
			}
		case unicode.IsSpace(r):
			p.at += size
		default:
			return
		}
	}
}

// peek reports whether a boolean operator is next: a word of its own, in capitals.
func (p *parser) peek(word string) bool {
	rest, ok := strings.CutPrefix(p.text[p.at:], word)
	if !ok {
		return false
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || !wordRune(r) && strings.IndexByte(":=<>!~", rest[0]) < 0
}

func (p *parser) keyword(word string) bool {
	if !p.peek(word) {
		return false
	}
	p.at += len(word)
	p.space()
	return true
}

func (p *parser) unexpected(want string) error {
	what := "the end"
	if p.at < len(p.text) {
		r, _ := utf8.DecodeRuneInString(p.text[p.at:])
		what = fmt.Sprintf("%q", r)
	}
	if want != "" {
		return p.fail("%s is unexpected; %s is", what, want)
	}
	return p.fail("%s is unexpected", what)
}

func (p *parser) fail(format string, args ...any) error { return p.failAt(p.at, format, args...) }

// failAt is a refusal that shows the place.
func (p *parser) failAt(at int, format string, args ...any) error {
	before := p.text[:at]
	line := strings.Count(before, "\n") + 1
	before = before[strings.LastIndexByte(before, '\n')+1:]
	whole, _, _ := strings.Cut(p.text[at:], "\n")
	// A window of the line, so that a long one stays readable.
	const window = 60
	left := []rune(strings.ReplaceAll(before, "\t", " "))
	column := len(left) + 1
	left = left[max(0, len(left)-window):]
	right := []rune(strings.ReplaceAll(whole, "\t", " "))
	right = right[:min(len(right), window)]
	return fault.New(fault.InvalidArgument, "Unparseable filter: line %d, column %d: %s\n%s%s\n%s^", line, column,
		fmt.Sprintf(format, args...), string(left), string(right), strings.Repeat(" ", len(left)))
}
