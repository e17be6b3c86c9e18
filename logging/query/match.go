package query

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"giggle/filter"
	"giggle/logging"
)

// value is what a query compares with, and what it is as each kind.
type value struct {
	text    string
	lower   string
	quoted  bool
	number  float64
	numeric bool
}

func newValue(s string, quoted bool) value {
	v := value{text: s, lower: strings.ToLower(s), quoted: quoted}
	n, err := strconv.ParseFloat(s, 64)
	v.number, v.numeric = n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
	return v
}

// anything is the value of `field:*`: whether there is one.
func (v value) anything() bool { return v.text == "*" && !v.quoted }

// comparison is a field, an operator and a value.
type comparison struct {
	field field
	op    string
	value value
	test  func(v any) bool // of one value of the field
}

func (c *comparison) match(e *entry) bool {
	found := c.field.values(e, c.test)
	if c.op == "!=" || c.op == "!~" {
		// None of its values, of which there is one at least.
		return !found && c.field.values(e, func(any) bool { return true })
	}
	return found
}

// compare makes a comparison. It fails where the value can't be one of the field's kind.
func compare(f field, op string, v value) (node, error) {
	c := &comparison{field: f, op: op, value: v}
	switch {
	case op == "=~" || op == "!~":
		if f.kind != text && f.kind != dynamic {
			return nil, fmt.Errorf("%s is no text, so it can't be matched by a regular expression", f.name)
		}
		re, err := regexp.Compile(v.text)
		if err != nil {
			return nil, fmt.Errorf("not a regular expression: %v", err)
		}
		c.test = func(x any) bool { s, ok := x.(string); return ok && re.MatchString(s) }
		return c, nil
	case op == ":" && v.anything():
		c.test = func(x any) bool { return !isDefault(x, f) }
		return c, nil
	case f.kind == message && op != ":":
		return nil, fmt.Errorf("%s has fields: one of them can be compared", f.name)
	case op == "!=":
		same, err := tester(f, "=", v)
		c.test = same
		return c, err
	}
	var err error
	c.test, err = tester(f, op, v)
	return c, err
}

// isDefault reports whether a field of LogEntry has only its default value, which counts as none.
func isDefault(x any, f field) bool {
	if f.missing || f.kind == message {
		return false
	}
	switch v := x.(type) {
	case string:
		return v == ""
	case float64:
		return v == 0
	case bool:
		return !v
	case time.Duration:
		return v == 0
	}
	return false
}

// tester returns what compares one value of a field. op is one of = : < <= > >=.
func tester(f field, op string, v value) (func(x any) bool, error) {
	order := func(c int) bool { return filter.Holds(c, op) }
	switch f.kind {
	case instant:
		at, err := parseTime(v.text)
		if err != nil {
			return nil, err
		}
		return func(x any) bool { t, ok := x.(time.Time); return ok && order(t.Compare(at)) }, nil
	case severity:
		s, err := parseSeverity(v)
		if err != nil {
			return nil, err
		}
		return func(x any) bool { have, ok := x.(logging.Severity); return ok && order(int(have)-int(s)) }, nil
	case duration:
		d, err := parseDuration(v)
		if err != nil {
			return nil, err
		}
		return func(x any) bool { have, ok := x.(time.Duration); return ok && order(cmpInt(int64(have), int64(d))) }, nil
	case integer:
		if !v.numeric {
			return nil, fmt.Errorf("%s is a number, and %.60q is none", f.name, v.text)
		}
	case boolean:
		if v.lower != "true" && v.lower != "false" {
			return nil, fmt.Errorf("%s is true or false", f.name)
		}
	}
	return func(x any) bool { return v.is(x, op, order) }, nil
}

// is compares a value of JSON's.
func (v value) is(x any, op string, order func(c int) bool) bool {
	switch have := x.(type) {
	case nil:
		return v.text == "NULL_VALUE" && (op == "=" || op == ":")
	case string:
		if op == ":" {
			return containsFold(have, v.lower)
		}
		if op == "=" {
			return strings.EqualFold(have, v.text)
		}
		return order(strings.Compare(strings.ToLower(have), v.lower))
	case float64:
		switch {
		case !v.numeric:
			return false
		case have < v.number:
			return order(-1)
		case have > v.number:
			return order(1)
		}
		return order(0)
	case bool:
		return (op == "=" || op == ":") && strconv.FormatBool(have) == v.lower
	case map[string]any, map[string]string:
		// A text in some field of it.
		return op == ":" && leaves(have, v.isIn)
	}
	return false
}

// isIn reports whether a value has this one in it.
func (v value) isIn(x any) bool { return containsFold(written(x), v.lower) }

// containsFold reports whether a text has another one in it, which is in lower case, in any case.
func containsFold(s, lower string) bool {
	if len(lower) == 0 {
		return true
	}
	return strings.Contains(strings.ToLower(s), lower)
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// parseTime reads a time as RFC 3339 has it, or a day, or one without a zone, which is UTC.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00",
		"2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, strings.ToUpper(s)); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.60q is not a time such as \"2026-11-30T12:00:00Z\"", s)
}

// parseSeverity reads a severity by its name or its number.
func parseSeverity(v value) (logging.Severity, error) {
	if v.numeric && v.number >= 0 && v.number <= math.MaxInt16 && v.number == math.Trunc(v.number) {
		return logging.Severity(v.number), nil
	}
	s, err := logging.ParseSeverity(v.text)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not DEFAULT, DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL, ALERT or EMERGENCY", v.text)
	}
	return s, nil
}

// parseDuration reads seconds, with or without their s, or another of Go's durations.
func parseDuration(v value) (time.Duration, error) {
	if v.numeric && math.Abs(v.number) < math.MaxInt64/float64(time.Second) {
		return time.Duration(v.number * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(v.text)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a duration such as 1.5s", v.text)
	}
	return d, nil
}

func (c *comparison) bound(b *Bounds) {
	equal := c.op == "="
	switch name := strings.ToLower(strings.ReplaceAll(c.field.name, "_", "")); {
	case c.field.kind == instant:
		at, _ := parseTime(c.value.text) // it was read before
		if (equal || strings.HasPrefix(c.op, ">")) && at.After(b.From) {
			b.From = at
		}
		if (equal || strings.HasPrefix(c.op, "<")) && (b.To.IsZero() || at.Before(b.To)) {
			b.To = at
		}
	case c.field.kind == severity && (equal || strings.HasPrefix(c.op, ">")):
		s, _ := parseSeverity(c.value)
		b.Severity = max(b.Severity, s)
	case !equal:
	case name == "resource.type":
		b.ResourceType = c.value.lower // types are in lower case
	}
}

// anywhere is a value that stands alone: it is looked for in every field.
type anywhere struct{ value value }

func (a anywhere) match(e *entry) bool {
	for _, name := range everything {
		if v := known[name].get(e); v != nil && leaves(v, a.value.isIn) {
			return true
		}
	}
	return false
}

func (anywhere) bound(*Bounds) {}
