package filter_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/filter"
)

type thing map[string]string

func compare(c filter.Comparison) (func(thing) bool, error) {
	switch {
	case c.Field == "":
		return func(x thing) bool { return filter.Text(x["name"], c.Value) }, nil
	case c.Field == "bad":
		return nil, fault.Invalid("filter", "bad is no field")
	case c.Op == "!=":
		return func(x thing) bool { return !filter.Text(x[c.Field], c.Value) }, nil
	case c.Op == "<":
		return func(x thing) bool { return x[c.Field] < c.Value }, nil
	}
	return func(x thing) bool { return filter.Text(x[c.Field], c.Value) }, nil
}

// The grammar is that of https://google.aip.dev/160, and of `gcloud topic filters` where both are the same.
func TestParse(t *testing.T) {
	x := thing{"name": "Howl", "state": "ACTIVE", "labels.env": "prod", "at": "2026-01-31T12:00:00Z", "q": `a "b" (c)`}
	for s, want := range map[string]bool{
		"":                                     true,
		" \t":                                  true,
		"name:howl":                            true,
		"name=HOWL":                            true,
		"name:how*":                            true,
		"name:*":                               true,
		"none:*":                               false,
		"name:ow*":                             false,
		"howl":                                 true,
		"name!=howl":                           false,
		"state:ACTIVE AND (name:x OR howl)":    true,
		"state:ACTIVE AND (name:x OR name:y)":  false,
		"state:ACTIVE name:x":                  false,
		"NOT name:x":                           true,
		"-name:x AND -state:OFF":               true,
		"NOT (state:ACTIVE AND name:howl)":     false,
		"name:x OR state:ACTIVE AND name:howl": true,
		"(name:x OR state:ACTIVE) name:y":      false,
		"name:(x howl)":                        true,
		"name:(x OR y)":                        false,
		"name:(how* AND howl)":                 true,
		"name:(x AND howl)":                    false,
		"at<2026-02-01T00:00:00Z":              true,
		`at = "2026-01-31T12:00:00Z"`:          true,
		`q = "a \"b\" (c)"`:                    true,
		`name : 'howl'`:                        true,
		`"AND" OR howl`:                        true,
		"labels.env=prod":                      true,
		"labels.env:p-x":                       false,
	} {
		f, err := filter.Parse(s, compare)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if got := f(x); got != want {
			t.Errorf("%q = %v", s, got)
		}
	}
}

func TestBadFilters(t *testing.T) {
	for _, s := range []string{"name:", "=x", "name:x AND", "AND name:x", "(name:x", "name:x)", `name:"x`, "bad:x",
		"name:()", "name:(x", "name:(AND x)", "name:(x = y)", "NOT", "-(", "a = = b", "()", "OR", strings.Repeat("(", 40) + "a",
		strings.Repeat("NOT ", 40) + "a", strings.Repeat("a ", 6000)} {
		if _, err := filter.Parse(s, compare); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%.60q: %v, want InvalidArgument", s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a:b AND (c=d OR -e)", `x:("y" z)`, "NOT a", "name:(x AND y)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		match, err := filter.Parse(s, compare)
		if err != nil {
			if !fault.Is(err, fault.InvalidArgument) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		match(thing{})
	})
}
