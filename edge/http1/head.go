package http1

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxFields is how many header fields a plain request has.
const maxFields = 64

// methods are those of plain requests.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodPatch: true,
	http.MethodDelete:  true,
	http.MethodOptions: true,
}

// special are the header fields, in canonical form, that a plain request doesn't have: they change how the message is
// read or answered, or net/http treats them in a way of its own.
var special = map[string]bool{
	"Transfer-Encoding": true, "Expect": true, "Upgrade": true, "Trailer": true, "Pragma": true, "Http2-Settings": true,
	"Te": true, "Proxy-Connection": true,
}

// parseHead reads the head of a request, the empty line at its end included, or returns nil where it isn't plain.
func parseHead(head string) *http.Request {
	line, fields, ok := strings.Cut(head, "\r\n")
	if !ok {
		return nil
	}
	method, line, ok := strings.Cut(line, " ")
	if !ok || !methods[method] {
		return nil
	}
	target, ok := strings.CutSuffix(line, " HTTP/1.1")
	if !ok || target == "" || target[0] != '/' || !visible(target) {
		return nil
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	r := &http.Request{
		Method:     method,
		URL:        u,
		RequestURI: target,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Body:       http.NoBody,
	}
	if !readFields(r, fields) {
		return nil
	}
	return r
}

// readFields reads the header fields of a request, and reports whether they are those of a plain one.
func readFields(r *http.Request, fields string) bool {
	n := strings.Count(fields, "\r\n") - 1
	if n < 1 || n > maxFields {
		return false
	}
	r.Header = make(http.Header, n)
	values := make([]string, n) // for the fields that occur once: one allocation for all
	for {
		line, rest, ok := strings.Cut(fields, "\r\n")
		if !ok {
			return false
		}
		if line == "" {
			return rest == "" && r.Host != ""
		}
		fields = rest
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		if value = strings.Trim(value, " \t"); !httpguts.ValidHeaderFieldValue(value) {
			return false
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if !readField(r, name, value) {
			return false
		}
		if name == "Host" {
			continue
		}
		if had := r.Header[name]; had != nil {
			r.Header[name] = append(had, value)
			continue
		}
		values[0] = value
		r.Header[name], values = values[:1:1], values[1:]
	}
}

// readField does what a field means for the connection or the body, and reports whether a plain request may have it.
func readField(r *http.Request, name, value string) bool {
	switch name {
	case "Host":
		if r.Host != "" || !hostLike(value) {
			return false
		}
		r.Host = value
	case "Content-Length":
		if r.Header[name] != nil || len(value) == 0 || len(value) > 15 || strings.Trim(value, "0123456789") != "" {
			return false
		}
		r.ContentLength, _ = strconv.ParseInt(value, 10, 64) // it is a number
	case "Connection":
		if r.Header[name] != nil {
			return false
		}
		if r.Close = strings.EqualFold(value, "close"); !r.Close {
			return strings.EqualFold(value, "keep-alive")
		}
	}
	return !special[name]
}

// hostLike reports whether s is what Config.Takes is asked about.
func hostLike(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' &&
			c != ':' {
			return false
		}
	}
	return s != ""
}

// visible reports whether s has no space and nothing beside ASCII.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
