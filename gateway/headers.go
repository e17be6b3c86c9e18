package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// hopByHop are the headers of one connection only (RFC 9110, 7.6.1).
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// removeHopByHop takes out of h what is for one connection only, and what Connection names.
func removeHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// setForwarded says in an app's request where it came from, as Cloud Run does: the client's address is put behind what
// was there, since a proxy before us may have told the truth; the rest is ours to say.
func setForwarded(out, in http.Header, address string, secure bool) {
	proto := "http"
	if secure {
		proto = "https"
	}
	forwarded := address
	if prior := in["X-Forwarded-For"]; len(prior) > 0 {
		forwarded = strings.Join(prior, ",") + "," + address
	}
	out["X-Forwarded-For"] = []string{forwarded}
	out["X-Forwarded-Proto"] = []string{proto}
	quoted := `"` + address + `"`
	if strings.Contains(address, ":") {
		quoted = `"[` + address + `]"` // IPv6 (RFC 7239, 6)
	}
	out["Forwarded"] = []string{"for=" + quoted + ";proto=" + proto}
}

// trace is the trace that a request belongs to.
type trace struct {
	id, span string // 32 and 16 hexadecimal digits
	sampled  bool
	parent   bool // the request has a valid traceparent
}

// traceOf reads the trace that a caller is in, from traceparent (W3C) or from X-Cloud-Trace-Context, or starts one.
// What is malformed is as if it were not there. What nobody has decided on is sampled: there is no bill for it here.
func traceOf(h http.Header) trace {
	if v := h["Traceparent"]; len(v) == 1 {
		if t, ok := parseTraceparent(v[0]); ok {
			return t
		}
	}
	if v := h["X-Cloud-Trace-Context"]; len(v) == 1 {
		if t, ok := parseCloudTrace(v[0]); ok {
			return t
		}
	}
	return trace{id: hex16(rand.Uint64()|1) + hex16(rand.Uint64()), span: hex16(rand.Uint64() | 1), sampled: true}
}

// parseTraceparent reads VERSION-TRACE-SPAN-FLAGS; versions after 00 may say more behind it
// (https://www.w3.org/TR/trace-context/).
func parseTraceparent(s string) (trace, bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || !isHex(s[:2]) || s[:2] == "ff" {
		return trace{}, false
	}
	if len(s) > 55 && (s[:2] == "00" || s[55] != '-') {
		return trace{}, false
	}
	flags, err := strconv.ParseUint(s[53:55], 16, 8)
	if err != nil || !isHex(s[53:55]) || !isID(s[3:35]) || !isID(s[36:52]) {
		return trace{}, false
	}
	return trace{id: s[3:35], span: s[36:52], sampled: flags&1 == 1, parent: true}, true
}

// parseCloudTrace reads TRACE[/SPAN][;o=OPTIONS], SPAN in decimal (https://cloud.google.com/trace/docs/trace-context).
func parseCloudTrace(s string) (trace, bool) {
	s, options, decided := strings.Cut(s, ";")
	id, span, _ := strings.Cut(s, "/")
	if id = strings.ToLower(id); len(id) != 32 || !isID(id) {
		return trace{}, false
	}
	n, err := strconv.ParseUint(span, 10, 64)
	if err != nil || n == 0 {
		n = rand.Uint64() | 1
	}
	return trace{id: id, span: hex16(n), sampled: !decided || options == "o=1" || options == "o=3"}, true
}

// set puts the trace into an app's request, in both forms.
func (t trace) set(h http.Header) {
	flags, option := "-00", ";o=0"
	if t.sampled {
		flags, option = "-01", ";o=1"
	}
	if !t.parent {
		h["Traceparent"] = []string{"00-" + t.id + "-" + t.span + flags}
		delete(h, "Tracestate") // of another trace, if of any
	}
	n, _ := strconv.ParseUint(t.span, 16, 64) // it is hexadecimal
	h["X-Cloud-Trace-Context"] = []string{t.id + "/" + strconv.FormatUint(n, 10) + option}
}

func hex16(n uint64) string {
	var raw [8]byte
	var out [16]byte
	binary.BigEndian.PutUint64(raw[:], n)
	hex.Encode(out[:], raw[:])
	return string(out[:])
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isID reports whether s is hexadecimal and not all zeros.
func isID(s string) bool { return isHex(s) && strings.Trim(s, "0") != "" }
