// Package query is the Logging query language: which entries are wanted
// (https://cloud.google.com/logging/docs/view/logging-query-language).
//
// Parse reads a query into a tree of comparisons whose fields are resolved and whose values are converted, so that
// Match only compares. Bounds are what a log can leave out without looking at entries.
package query

import (
	"time"

	"giggle/fault"
	"giggle/logging"
)

// MaxLength is how many characters a query may have.
const MaxLength = 20_000

// Query is a query that has been read. The zero Query wants everything.
type Query struct {
	text string
	root node // nil wants everything
}

// Parse reads a query. It fails with InvalidArgument, which shows the place, and with Unimplemented for what the
// language has and Giggle doesn't.
func Parse(text string) (Query, error) {
	if n := len([]rune(text)); n > MaxLength {
		return Query{}, fault.Invalid("filter", "has %d characters; at most %d are allowed", n, MaxLength)
	}
	p := &parser{text: text}
	root, err := p.query()
	if err != nil {
		return Query{}, err
	}
	return Query{text: text, root: root}, nil
}

// String is the query as it was written.
func (q Query) String() string { return q.text }

// Match reports whether an entry is wanted.
func (q Query) Match(e *logging.Entry) bool {
	return q.root == nil || q.root.match(&entry{Entry: e})
}

// node is a part of a query.
type node interface {
	match(e *entry) bool
	bound(b *Bounds)
}

type all []node // of them

func (n all) match(e *entry) bool {
	for _, x := range n {
		if !x.match(e) {
			return false
		}
	}
	return true
}

func (n all) bound(b *Bounds) {
	for _, x := range n {
		x.bound(b)
	}
}

type some []node // one of them at least

func (n some) match(e *entry) bool {
	for _, x := range n {
		if x.match(e) {
			return true
		}
	}
	return false
}

func (some) bound(*Bounds) {}

type not struct{ of node }

func (n not) match(e *entry) bool { return !n.of.match(e) }
func (not) bound(*Bounds)         {}

// Bounds are what every entry that a query wants has. Empty fields bound nothing.
type Bounds struct {
	From, To     time.Time // both included
	Severity     logging.Severity
	ResourceType string
	Log          string // without the project
}

// Bounds returns those of the query. They are only narrower where the query says so with AND.
func (q Query) Bounds() Bounds {
	var b Bounds
	if q.root != nil {
		q.root.bound(&b)
	}
	return b
}
