package fault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Path names a field in a product's own words, by the steps that lead to it: template.containers[].image. A pair of
// brackets stands for a place in a list. A product that several APIs show, or that knows no wire format, names what is
// wrong so; an API has FieldNames for it.
type Path string

// At puts places in lists into the first pairs of brackets.
func (p Path) At(places ...int) Path {
	for _, i := range places {
		p = Path(strings.Replace(string(p), "[]", fmt.Sprintf("[%d]", i), 1))
	}
	return p
}

// pattern takes the places out of a path: traffic[3].tag is traffic[].tag and 3.
func (p Path) pattern() (Path, []int) {
	var b strings.Builder
	var places []int
	for rest := string(p); ; {
		before, after, found := strings.Cut(rest, "[")
		b.WriteString(before)
		if !found {
			return Path(b.String()), places
		}
		place, tail, _ := strings.Cut(after, "]")
		i, err := strconv.Atoi(place)
		if err != nil {
			return p, nil
		}
		places = append(places, i)
		b.WriteString("[]")
		rest = tail
	}
}

// FieldNames is what an API calls a product's fields. On both sides a pair of brackets stands for a place in a list.
type FieldNames map[Path]string

// Nest adds the fields of a message that is the field at: the name of each goes behind that of at.
func (n FieldNames) Nest(at Path, name string, fields FieldNames) {
	n[at] = name
	for field, last := range fields {
		n[at+field] = name + last
	}
}

// Translate has a product's fault name its fields as the API does, in the message that Invalid or NotImplemented made
// too. A field without a name keeps the product's.
func (n FieldNames) Translate(err error) error {
	var e *Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return err
	}
	out := *e
	out.Fields = make([]Field, len(e.Fields))
	for i, f := range e.Fields {
		out.Fields[i] = f
		field, places := Path(f.Path).pattern()
		if name, known := n[field]; known {
			out.Fields[i].Path = string(Path(name).At(places...))
		}
		if e.Message == f.text() {
			out.Message = out.Fields[i].text()
		}
	}
	return &out
}
