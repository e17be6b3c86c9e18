package storage

import (
	"context"
	"os"
	"strings"

	"giggle/fault"
	"giggle/store"
)

// Query selects objects of a bucket.
type Query struct {
	Bucket      string
	Prefix      string
	Delimiter   string // names that have it behind the prefix are folded into one prefix each; "" folds nothing
	StartOffset string // names from here on
	EndOffset   string // names before this; "" is no end
	Trailing    bool   // objects whose name ends at the delimiter are listed beside their prefix
	Versions    bool   // noncurrent objects beside the live ones
	SoftDeleted bool   // soft-deleted objects in place of the others
	Match       func(name string) bool
	After       string // Page.Next of the page before
	Limit       int    // objects and prefixes together; at least 1
}

// Page is a part of a listing, in the order of names and generations.
type Page struct {
	Objects  []Object
	Prefixes []string
	Next     string // "" at the end
}

// mostSeen is how many objects are looked at for one page: one whose names don't match is short, and has a next.
const mostSeen = 20_000

// List returns a page of objects and prefixes. A folded prefix costs one step, however many names it stands for.
func (s *Storage) List(ctx context.Context, q Query) (page Page, err error) {
	defer fault.Wrap(&err, "storage.List(%.64s)", q.Bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getBucket(tx, q.Bucket); err != nil {
			return err
		}
		return q.walk(tx, &page)
	})
	for i := range page.Objects {
		if o := &page.Objects[i]; o.Log != "" {
			if st, e := os.Stat(s.logFile(o.Log)); e == nil {
				o.Size = st.Size()
			}
		}
	}
	return page, err
}

// pastPrefix sorts behind every name with the prefix.
func pastPrefix(prefix string) string { return prefix + "\xff" }

// cursor goes through the rows of a table that a query may want, in the order of their positions.
type cursor struct {
	table  store.Table[Object]
	query  *Query
	after  string // the row name that the next batch follows
	rows   []store.Row[Object]
	ended  bool
	places func(Object) string
}

const batch = 256

// peek returns the first object that is left, false at the end.
func (c *cursor) peek(tx *store.Tx) (o Object, at string, ok bool, err error) {
	if len(c.rows) == 0 && !c.ended {
		if c.rows, err = c.table.List(tx, c.query.Bucket+"/"+c.query.Prefix, c.after, batch); err != nil {
			return o, "", false, err
		}
		c.ended = len(c.rows) < batch
		if n := len(c.rows); n > 0 {
			c.after = c.rows[n-1].Name
		}
	}
	if len(c.rows) == 0 {
		return o, "", false, nil
	}
	return c.rows[0].Value, c.places(c.rows[0].Value), true, nil
}

// skip goes on behind a position.
func (c *cursor) skip(past string) {
	for len(c.rows) > 0 && c.places(c.rows[0].Value) <= past {
		c.rows = c.rows[1:]
	}
	if row := c.query.Bucket + "/" + past; len(c.rows) == 0 && row > c.after {
		c.after = row
	}
}

// cursors are what a query looks through: with versions two tables, whose positions have the generation.
func (q *Query) cursors(tx *store.Tx) ([]*cursor, error) {
	name := func(o Object) string { return o.Name }
	full := func(o Object) string { return position(o.Name, o.Generation) }
	after := ""
	if q.After != "" {
		after = q.Bucket + "/" + q.After
	}
	live := &cursor{table: objects, query: q, after: after, places: name}
	old := &cursor{table: versions, query: q, after: after, places: full}
	switch {
	case q.SoftDeleted:
		return []*cursor{old}, nil
	case !q.Versions:
		return []*cursor{live}, nil
	}
	live.places = full
	// A page may end between the noncurrent objects of a name and the live one, whose row comes before theirs.
	if of, _, ok := strings.Cut(q.After, "\x00"); ok {
		row, err := objects.Get(tx, key(q.Bucket, of))
		if err == nil && full(row.Value) > q.After {
			live.rows = []store.Row[Object]{row}
		} else if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	return []*cursor{old, live}, nil
}

func (q *Query) walk(tx *store.Tx, page *Page) error {
	all, err := q.cursors(tx)
	if err != nil {
		return err
	}
	after := q.After
	for seen := 0; ; seen++ {
		var first *cursor
		var o Object
		var at string
		for _, c := range all {
			next, place, ok, err := c.peek(tx)
			if err != nil {
				return err
			}
			if ok && (first == nil || place < at) {
				first, o, at = c, next, place
			}
		}
		if first == nil || q.EndOffset != "" && o.Name >= q.EndOffset {
			return nil
		}
		if len(page.Objects)+len(page.Prefixes) >= q.Limit || seen >= mostSeen {
			page.Next = after
			return nil
		}
		if !q.wants(tx, o) {
			first.skip(at)
			after = at
			continue
		}
		prefix, folded := q.fold(o.Name)
		if !folded {
			page.Objects = append(page.Objects, o)
			first.skip(at)
			after = at
			continue
		}
		page.Prefixes = append(page.Prefixes, prefix)
		if q.Trailing && o.Name == prefix {
			page.Objects = append(page.Objects, o)
		}
		after = pastPrefix(prefix)
		for _, c := range all {
			c.skip(after)
		}
	}
}

// wants reports whether an object of a cursor is one that the query selects.
func (q *Query) wants(tx *store.Tx, o Object) bool {
	if o.SoftDeleted.IsZero() == q.SoftDeleted || q.SoftDeleted && !o.HardDelete.After(tx.Now()) {
		return false
	}
	return o.Name >= q.StartOffset && (q.Match == nil || q.Match(o.Name))
}

// fold returns the prefix that stands for a name, if the delimiter comes behind the query's prefix.
func (q *Query) fold(name string) (string, bool) {
	if q.Delimiter == "" {
		return "", false
	}
	rest := name[len(q.Prefix):]
	i := strings.Index(rest, q.Delimiter)
	if i < 0 {
		return "", false
	}
	return q.Prefix + rest[:i+len(q.Delimiter)], true
}
