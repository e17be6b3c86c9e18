package artifactregistry

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/resource"
)

// columns are the values that a list can be ordered and filtered by, under the API's names. Times and numbers are
// written so that they order as text.
type columns map[string]string

func timeKey(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// order is a parsed order_by: one field, upwards or downwards.
type order struct {
	field string
	desc  bool
}

// fieldName brings the two spellings of a field to one: "create_time" and "createTime".
func fieldName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }

// parseOrder reads "FIELD", "FIELD asc" or "FIELD desc" for one of the fields; "" is by name.
func parseOrder(s string, fields ...string) (order, error) {
	bad := fault.Invalid("orderBy", "%.100q is none of %s, each with or without asc or desc", s,
		strings.Join(fields, ", "))
	words := strings.Fields(s)
	if len(words) == 0 {
		return order{field: "name"}, nil
	}
	o := order{field: fieldName(words[0])}
	switch {
	case len(words) > 2, !slices.ContainsFunc(fields, func(f string) bool { return fieldName(f) == o.field }):
		return o, bad
	case len(words) == 2 && strings.EqualFold(words[1], "desc"):
		o.desc = true
	case len(words) == 2 && !strings.EqualFold(words[1], "asc"):
		return o, bad
	}
	return o, nil
}

// filter is terms that must all hold.
type filter []term

type term struct{ field, pattern string }

// maxFilter bounds a filter; ours.
const maxFilter = 2048

// termForm is FIELD="VALUE", FIELD=VALUE, and both with :.
var termForm = regexp.MustCompile(`^\s*([A-Za-z_]+)\s*[=:]\s*(?:"([^"\\]*)"|([^\s"\\()]+))`)

// andForm is what stands between two terms.
var andForm = regexp.MustCompile(`^\s+(?i:and\s+)?`)

// parseFilter reads FIELD="VALUE" for the fields, with AND between several and with * in a value for anything. Other
// filters are InvalidArgument: gcloud then filters by itself.
func parseFilter(s string, fields ...string) (filter, error) {
	bad := fault.Invalid("filter",
		"%.200q is not understood: want FIELD=\"VALUE\", with AND between several, of the fields %s", s,
		strings.Join(fields, ", "))
	if len(s) > maxFilter {
		return nil, bad
	}
	var out filter
	for rest := s; strings.TrimSpace(rest) != ""; {
		if len(out) > 0 {
			between := andForm.FindString(rest)
			if between == "" {
				return nil, bad
			}
			rest = rest[len(between):]
		}
		m := termForm.FindStringSubmatch(rest)
		if m == nil || !slices.Contains(fields, strings.ToLower(m[1])) {
			return nil, bad
		}
		out = append(out, term{strings.ToLower(m[1]), strings.ToLower(m[2] + m[3])})
		rest = rest[len(m[0]):]
	}
	return out, nil
}

// matches reports whether all terms hold. "Filter rules are case insensitive" (ListVersionsRequest.filter).
func (f filter) matches(c columns) bool {
	for _, t := range f {
		if !wildcard(t.pattern, strings.ToLower(c[t.field])) {
			return false
		}
	}
	return true
}

// wildcard reports whether s is pattern, in which each * stands for anything.
func wildcard(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// listing is what a list request asks for.
type listing struct {
	parent  string
	filter  string
	orderBy string
	size    int32
	token   string
}

// arrange filters and orders all entries of a list and cuts out the page that is asked for.
func arrange[T any](
	pages *resource.Pages, l listing, all []T, of func(T) columns, filters, orders []string,
) ([]T, string, error) {
	f, err := parseFilter(l.filter, filters...)
	if err != nil {
		return nil, "", err
	}
	o, err := parseOrder(l.orderBy, orders...)
	if err != nil {
		return nil, "", err
	}
	query := path.Join(l.parent, "?") + l.filter + "&" + l.orderBy
	type entry struct {
		key   string
		value T
	}
	var entries []entry
	for _, v := range all {
		c := of(v)
		if !f.matches(c) {
			continue
		}
		entries = append(entries, entry{c[o.field] + "\x00" + c["name"], v})
	}
	order := strings.Compare
	if o.desc { // the keys go the other way, too, so that a page begins behind its token
		order = func(a, b string) int { return strings.Compare(b, a) }
	}
	slices.SortFunc(entries, func(a, b entry) int { return order(a.key, b.key) })
	list := resource.List{Query: query, Size: int(l.size), Most: maxPage, Token: l.token}
	page, next, err := resource.Page(pages, list, func(after string, limit int) ([]entry, error) {
		from := 0
		for after != "" && from < len(entries) && order(entries[from].key, after) <= 0 {
			from++
		}
		return entries[from:min(from+limit, len(entries))], nil
	}, func(e entry) string { return e.key })
	out := make([]T, len(page))
	for i, e := range page {
		out[i] = e.value
	}
	return out, next, err
}
