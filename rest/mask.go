package rest

import (
	"strings"

	"giggle/fault"
)

// mask is a parsed partial-response selection, the "fields" parameter:
//
//	Mask = Item { "," Item } ;   Item = Name { ("/" | ".") Name } [ "(" Mask ")" ] ;   Name = "*" | characters
//
// as in "nextPageToken,items(id,owner/name)". An empty mask below a name selects all of it.
type mask map[string]mask

const (
	maxMaskLength = 16 << 10
	maxMaskDepth  = 32
)

func parseMask(s string) (mask, error) {
	p := maskParser{s: s}
	if len(s) > maxMaskLength {
		return nil, p.fail()
	}
	m := mask{}
	if err := p.list(m, 0); err != nil {
		return nil, err
	}
	if p.at != len(s) {
		return nil, p.fail()
	}
	return m, nil
}

type maskParser struct {
	s  string
	at int
}

func (p *maskParser) fail() error {
	return fault.Invalid("fields", "Invalid field selection %s", clip(p.s))
}

func (p *maskParser) take(c byte) bool {
	if p.at < len(p.s) && p.s[p.at] == c {
		p.at++
		return true
	}
	return false
}

// list reads Item {"," Item} into m.
func (p *maskParser) list(m mask, depth int) error {
	for {
		if err := p.item(m, depth); err != nil {
			return err
		}
		if !p.take(',') {
			return nil
		}
	}
}

func (p *maskParser) item(m mask, depth int) error {
	if depth > maxMaskDepth {
		return p.fail()
	}
	start := p.at
	for p.at < len(p.s) && !strings.ContainsRune(",/.()", rune(p.s[p.at])) {
		p.at++
	}
	name := strings.TrimSpace(p.s[start:p.at])
	if name == "" {
		return p.fail()
	}
	old, seen := m[name]
	whole := seen && len(old) == 0 // "a,a/b" is all of a
	sub := old
	if sub == nil {
		sub = mask{}
		m[name] = sub
	}
	switch {
	case p.take('/') || p.take('.'):
		if whole {
			sub = mask{}
		}
		return p.item(sub, depth+1)
	case p.take('('):
		if whole {
			sub = mask{}
		}
		if err := p.list(sub, depth+1); err != nil {
			return err
		}
		if !p.take(')') {
			return p.fail()
		}
		return nil
	}
	m[name] = mask{}
	return nil
}

// apply returns what of a JSON tree the mask selects. Lists are transparent: items/id is the id of every item.
func (m mask) apply(tree any) any {
	if len(m) == 0 {
		return tree
	}
	switch t := tree.(type) {
	case []any:
		out := make([]any, 0, len(t))
		for _, v := range t {
			out = append(out, m.apply(v))
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for name, v := range t {
			if sub, ok := m.sub(name); ok {
				out[name] = sub.apply(v)
			}
		}
		return out
	}
	return tree
}

// sub returns the selection below a JSON name. A mask may use the proto name (snake_case) too.
func (m mask) sub(name string) (mask, bool) {
	for _, key := range []string{name, snake(name), "*"} {
		if s, ok := m[key]; ok {
			return s, true
		}
	}
	return nil, false
}
