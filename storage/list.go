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
	After       string // Page.Next of the page before
	Limit       int    // objects and prefixes together; at least 1
}

// Page is a part of a listing, in name order.
type Page struct {
	Objects  []Object
	Prefixes []string
	Next     string // "" at the end
}

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

func (q *Query) walk(tx *store.Tx, page *Page) error {
	after := q.After
	root := q.Bucket + "/"
	const batch = 256
	for {
		from := ""
		if after != "" {
			from = root + after
		}
		rows, err := objects.List(tx, root+q.Prefix, from, batch)
		if err != nil {
			return err
		}
		jumped := false
		for _, r := range rows {
			name := r.Value.Name
			if q.EndOffset != "" && name >= q.EndOffset {
				return nil
			}
			if name < q.StartOffset {
				after = name
				continue
			}
			prefix, folded := q.fold(name)
			if len(page.Objects)+len(page.Prefixes) >= q.Limit {
				page.Next = after
				return nil
			}
			if folded {
				page.Prefixes = append(page.Prefixes, prefix)
				if q.Trailing && name == prefix {
					page.Objects = append(page.Objects, r.Value)
				}
				after, jumped = pastPrefix(prefix), true
				break
			}
			page.Objects = append(page.Objects, r.Value)
			after = name
		}
		if !jumped && len(rows) < batch {
			return nil
		}
	}
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
