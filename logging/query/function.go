package query

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"giggle/fault"
)

// function reads the arguments of a function, whose name has been read
// (https://cloud.google.com/logging/docs/view/logging-query-language#functions).
func (p *parser) function(name string, start int) (node, error) {
	p.at++ // "("
	p.space()
	var args []argument
	for p.at < len(p.text) && p.text[p.at] != ')' {
		if len(args) > 0 {
			if p.text[p.at] != ',' {
				return nil, p.unexpected(`"," or ")"`)
			}
			p.at++
			p.space()
		}
		path, quoted, err := p.path()
		if err != nil {
			return nil, err
		}
		args = append(args, argument{path, quoted})
		p.space()
	}
	if p.at == len(p.text) {
		return nil, p.unexpected(`")"`)
	}
	p.at++
	p.space()
	n, err := call(name, args)
	if err != nil && !fault.Is(err, fault.Unimplemented) {
		return nil, p.failAt(start, "%v", err)
	}
	return n, err
}

// argument is one of a function: a field's path or a value.
type argument struct {
	path   []string
	quoted bool
}

func (a argument) text() string { return strings.Join(a.path, ".") }

func call(name string, args []argument) (node, error) {
	takes := func(n int, what string) error {
		if len(args) != n {
			return fmt.Errorf("%s takes %s", name, what)
		}
		return nil
	}
	switch strings.ToLower(name) {
	case "log_id":
		if err := takes(1, `the id of a log: log_id("run.googleapis.com/requests")`); err != nil {
			return nil, err
		}
		id, err := url.QueryUnescape(args[0].text())
		if err != nil {
			return nil, fmt.Errorf("not the id of a log: %v", err)
		}
		return logID(id), nil
	case "sample":
		if err := takes(2, "a field and a fraction: sample(insertId, 0.25)"); err != nil {
			return nil, err
		}
		f, err := resolve(args[0].path)
		if err != nil {
			return nil, err
		}
		v := newValue(args[1].text(), false)
		if !v.numeric || v.number < 0 || v.number > 1 {
			return nil, fmt.Errorf("the fraction of sample is 0 to 1")
		}
		return sample{f, v.number}, nil
	case "ip_in_net":
		if err := takes(2, `a field and a network: ip_in_net(httpRequest.remoteIp, "10.0.0.0/8")`); err != nil {
			return nil, err
		}
		f, err := resolve(args[0].path)
		if err != nil {
			return nil, err
		}
		text := args[1].text()
		net, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%.60q is not an address or a network", text)
			}
			net = netip.PrefixFrom(ip, ip.BitLen())
		}
		return inNet{f, net.Masked()}, nil
	case "search":
		s := search{}
		switch {
		case len(args) == 2 && !args[0].quoted:
			f, err := resolve(args[0].path)
			if err != nil {
				return nil, err
			}
			s.field = &f
		case len(args) != 1:
			return nil, fmt.Errorf(`SEARCH takes a text, or a field and a text: SEARCH(textPayload, "hello world")`)
		}
		if s.words = searched(args[len(args)-1].text()); len(s.words) == 0 {
			return nil, fmt.Errorf("SEARCH needs a word")
		}
		return s, nil
	case "source", "cast", "regexp_extract":
		return nil, fault.New(fault.Unimplemented, "The function %s of the Logging query language is not implemented.", name)
	}
	return nil, fmt.Errorf("there is no function %.40q; log_id, sample, ip_in_net and SEARCH are", name)
}

// logID is of which log an entry is, whatever the project.
type logID string

func (l logID) match(e *entry) bool { return e.Log == string(l) }
func (l logID) bound(b *Bounds)     { b.Log = string(l) }

// sample is a part of the entries, the same each time: by a hash of a field's value.
type sample struct {
	field    field
	fraction float64
}

func (s sample) match(e *entry) bool {
	return s.field.values(e, func(v any) bool {
		h := fnv.New64a()
		_, _ = h.Write([]byte(written(v)))
		x := h.Sum64()
		x ^= x >> 33 // FNV alone mixes the upper bits of short texts badly
		x *= 0xff51afd7ed558ccd
		x ^= x >> 33
		return float64(x>>11)/(1<<53) < s.fraction || s.fraction == 1
	})
}

func (sample) bound(*Bounds) {}

// inNet is whether a field has an address of a network.
type inNet struct {
	field field
	net   netip.Prefix
}

func (n inNet) match(e *entry) bool {
	return n.field.values(e, func(v any) bool {
		s, _ := v.(string)
		ip, err := netip.ParseAddr(s)
		return err == nil && n.net.Contains(ip.Unmap())
	})
}

func (inNet) bound(*Bounds) {}

// search is whether a field, or an entry, has all words: whole, in any case and order.
type search struct {
	field *field // nil for all
	words []string
}

// searched are the words of a search. What stands in backquotes is one, with what is in it.
func searched(s string) []string {
	var out []string
	for i, part := range strings.Split(s, "`") {
		if i%2 == 1 {
			out = append(out, strings.ToLower(part))
		} else {
			out = append(out, tokens(part)...)
		}
	}
	return out
}

// tokens are the words of a text in lower case.
func tokens(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !inWord(r) })
}

func (s search) match(e *entry) bool {
	left := make(map[string]bool, len(s.words))
	for _, w := range s.words {
		left[w] = true
	}
	look := func(v any) bool {
		text := strings.ToLower(written(v))
		for w := range left {
			if hasWord(text, w) {
				delete(left, w)
			}
		}
		return len(left) == 0
	}
	if s.field != nil {
		return s.field.values(e, func(v any) bool { return leaves(v, look) })
	}
	for _, name := range everything {
		if v := known[name].get(e); v != nil && leaves(v, look) {
			return true
		}
	}
	return false
}

func (search) bound(*Bounds) {}

func inWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }

// hasWord reports whether a text has a word that is not a part of a longer one.
func hasWord(text, word string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 || word == "" {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(word):])
		if !inWord(before) && !inWord(after) {
			return true
		}
		from = i + 1
	}
}
