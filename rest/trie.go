package rest

import (
	"fmt"
	"slices"
	"strings"
)

// route is one REST binding: of an RPC (method is set) or of a plain function (fn is set).
type route struct {
	http     string // HTTP method
	pattern  string
	template template
	rpc      string
	rule     HTTPRule
	method   *method
	fn       Func
	query    []string // parameters a function takes; nil: any
	maxBody  int64
	errors   ErrorWriter
}

// maxSegments bounds the work of matching a hostile path.
const maxSegments = 128

// node is a place in the trie of path segments. The trie is built once and then only read.
type node struct {
	literal map[string]*node
	star    *node // one segment
	deep    *node // any number of segments
	ends    []*route
}

func (n *node) add(r *route) error {
	at := n
	for _, seg := range r.template.segs {
		switch seg {
		case "*":
			if at.star == nil {
				at.star = &node{}
			}
			at = at.star
		case "**":
			if at.deep == nil {
				at.deep = &node{}
			}
			at = at.deep
		default:
			if at.literal == nil {
				at.literal = map[string]*node{}
			}
			if at.literal[seg] == nil {
				at.literal[seg] = &node{}
			}
			at = at.literal[seg]
		}
	}
	for _, other := range at.ends {
		if other.http == r.http && other.template.verb == r.template.verb {
			return fmt.Errorf("%s %s of %s and %s of %s match the same requests", r.http, r.pattern, r.rpc,
				other.pattern, other.rpc)
		}
	}
	at.ends = append(at.ends, r)
	return nil
}

// find is a search: what is asked for, and the methods that the path would take.
type find struct {
	method, verb string
	allowed      []string
}

// match returns the most specific route for an escaped path: literals before *, * before **, and a custom verb before
// a last segment that merely holds a colon (versions/sha256:…). It goes back when the method does not fit, so that
// PATCH files/* and GET files/** live side by side. Without a route it returns the methods that the path has.
func (n *node) match(method, path string) (r *route, segs, allowed []string) {
	path, ok := strings.CutPrefix(path, "/")
	if !ok || strings.Count(path, "/") >= maxSegments {
		return nil, nil, nil
	}
	segs = strings.Split(path, "/")
	last := len(segs) - 1
	f := find{method: method}
	if colon := strings.LastIndexByte(segs[last], ':'); colon >= 0 {
		whole := segs[last]
		f.verb, segs[last] = whole[colon+1:], whole[:colon]
		if f.verb != "" {
			if r := f.in(n, segs); r != nil {
				return r, segs, nil
			}
		}
		f.verb, segs[last] = "", whole
	}
	if r := f.in(n, segs); r != nil {
		return r, segs, nil
	}
	slices.Sort(f.allowed)
	return nil, nil, slices.Compact(f.allowed)
}

func (f *find) in(n *node, segs []string) *route {
	if len(segs) == 0 {
		for _, r := range n.ends {
			if r.template.verb != f.verb {
				continue
			}
			if r.http == f.method || r.http == "*" {
				return r
			}
			f.allowed = append(f.allowed, r.http)
		}
	} else {
		if next := n.literal[segs[0]]; next != nil {
			if r := f.in(next, segs[1:]); r != nil {
				return r
			}
		}
		if n.star != nil && segs[0] != "" {
			if r := f.in(n.star, segs[1:]); r != nil {
				return r
			}
		}
	}
	if n.deep != nil {
		for take := len(segs); take >= 0; take-- {
			if r := f.in(n.deep, segs[take:]); r != nil {
				return r
			}
		}
	}
	return nil
}
