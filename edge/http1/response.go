package http1

import (
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// maxHeldBody is how much of a body waits for the handler's end, so that its length can be said.
const maxHeldBody = 2 << 10

// response is the answer to one request. Unlike net/http's it guesses no Content-Type.
type response struct {
	c      *conn
	r      *http.Request
	header http.Header

	status   int
	length   int64 // that the handler announced, or -1
	written  int64 // bytes of the body
	body     []byte
	headSent bool
	chunked  bool
	close    bool // the connection ends with the answer
	trailers []string
	err      error // of writing
}

// Header is what of the answer's head is sent with it.
func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

// WriteHeader sets the status. One below 200 is sent at once, with the header fields of now.
func (w *response) WriteHeader(status int) {
	switch {
	case w.status != 0:
		return
	case status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
		panic("http1: status " + strconv.Itoa(status))
	case status < 200:
		w.out(statusLine(status))
		w.fields(true)
		w.out("\r\n")
		w.send(nil)
		return
	}
	w.status = status
	h := w.Header()
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n >= 0 &&
		status != http.StatusNoContent {
		w.length = n
	} else {
		delete(h, "Content-Length")
	}
	for _, names := range h["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			switch name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); name {
			case "Transfer-Encoding", "Content-Length", "Trailer":
			default:
				w.trailers = append(w.trailers, name)
			}
		}
	}
}

// silent reports whether the answer has no body, whatever the handler writes.
func (w *response) silent() bool {
	return w.r.Method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
}

// Write writes a part of the body.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.r.Method == http.MethodHead {
		return len(p), nil
	}
	if !w.headSent {
		if len(w.body)+len(p) <= maxHeldBody {
			w.body = append(w.body, p...)
			return len(p), w.err
		}
		w.head(false)
	}
	w.part(p)
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// FlushError sends what was written so far, the head at least.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.headSent {
		w.head(false)
	}
	w.send(nil)
	return w.err
}

// Flush is for http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// SetReadDeadline is for http.ResponseController, as are the next two.
func (w *response) SetReadDeadline(t time.Time) error { return w.c.SetReadDeadline(t) }

// SetWriteDeadline sets the connection's.
func (w *response) SetWriteDeadline(t time.Time) error { return w.c.SetWriteDeadline(t) }

// EnableFullDuplex does nothing: a body can always be read after the answer has begun.
func (w *response) EnableFullDuplex() error { return nil }

// finish sends what is left of the answer.
func (w *response) finish() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.headSent {
		w.head(true)
	}
	if w.chunked {
		w.out("0\r\n")
		w.trailer()
		w.out("\r\n")
	}
	if w.length >= 0 && w.written != w.length && !w.silent() {
		w.close = true // the client must see that it isn't all
	}
	w.send(nil)
	return w.err
}

// head puts the head of the answer before what is there of the body. Last: that is all of it.
func (w *response) head(last bool) {
	w.headSent = true
	h := w.Header()
	if last && w.length < 0 && !w.silent() && len(w.trailers) == 0 && !hasTrailers(h) {
		w.length = w.written
	}
	if last && w.length < 0 && w.r.Method == http.MethodHead && w.written > 0 && w.written <= maxHeldBody {
		w.length = w.written // as for GET
	}
	w.chunked = w.length < 0 && !w.silent()
	for _, v := range h["Connection"] {
		w.close = w.close || httpguts.HeaderValuesContainsToken([]string{v}, "close")
	}
	w.out(statusLine(w.status))
	w.fields(false)
	if h["Date"] == nil {
		w.out(w.c.l.date())
	}
	if w.length >= 0 && w.status != http.StatusNoContent {
		w.c.out = append(w.c.out, "Content-Length: "...)
		w.c.out = strconv.AppendInt(w.c.out, w.length, 10)
		w.out("\r\n")
	}
	if w.chunked {
		w.out("Transfer-Encoding: chunked\r\n")
	}
	if w.close {
		w.out("Connection: close\r\n")
	}
	w.out("\r\n")
	if len(w.body) > 0 {
		w.part(w.body)
		w.body = w.body[:0]
	}
}

// part puts a part of the body behind what is to be sent. Much of it is sent at once.
func (w *response) part(p []byte) {
	if len(p) == 0 {
		return
	}
	if w.chunked {
		w.c.out = strconv.AppendUint(w.c.out, uint64(len(p)), 16)
		w.out("\r\n")
	}
	if len(p) > headSize {
		w.send(p)
	} else {
		w.c.out = append(w.c.out, p...)
	}
	if w.chunked {
		w.out("\r\n")
	}
	if len(w.c.out) > headSize {
		w.send(nil)
	}
}

// out puts s behind what is to be sent.
func (w *response) out(s string) { w.c.out = append(w.c.out, s...) }

// send sends what is to be sent, and p after it.
func (w *response) send(p []byte) {
	out := w.c.out
	w.c.out = out[:0]
	if cap(out) > 4*headSize {
		w.c.out = nil
	}
	if w.err != nil || len(out)+len(p) == 0 {
		return
	}
	if len(p) == 0 {
		_, w.err = w.c.Conn.Write(out)
		return
	}
	parts := net.Buffers{out, p} // one system call where the connection can do that
	_, w.err = parts.WriteTo(w.c.Conn)
}

// own are the fields that head writes itself.
var own = []string{"Connection", "Content-Length", "Transfer-Encoding"}

// fields writes the header's fields, in order of their names. Those of an interim answer have no meaning for the
// connection either.
func (w *response) fields(interim bool) {
	var room [32]string
	names := room[:0]
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(own, name) || strings.HasPrefix(name, http.TrailerPrefix) ||
			(interim && name == "Trailer") || (!interim && slices.Contains(w.trailers, name)) {
			continue
		}
		w.field(name, w.header[name])
	}
}

// field writes the values of a field. What is no name is left out, as in net/http.
func (w *response) field(name string, values []string) {
	if !httpguts.ValidHeaderFieldName(name) {
		return
	}
	for _, v := range values {
		w.out(name)
		w.out(": ")
		if strings.ContainsAny(v, "\r\n") {
			v = oneLine.Replace(v)
		}
		w.out(textproto.TrimString(v))
		w.out("\r\n")
	}
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ")

func hasTrailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// trailer writes the fields behind the body.
func (w *response) trailer() {
	for _, name := range w.trailers {
		w.field(name, w.header[name])
	}
	names := make([]string, 0, 8)
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		w.field(textproto.CanonicalMIMEHeaderKey(name[len(http.TrailerPrefix):]), w.header[name])
	}
}

// statusLine is the first line of an answer.
func statusLine(status int) string {
	if status == http.StatusOK {
		return "HTTP/1.1 200 OK\r\n"
	}
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	return "HTTP/1.1 " + strconv.Itoa(status) + " " + text + "\r\n"
}

// stamp is the Date field of one second.
type stamp struct {
	second int64
	field  string
}

// date is the Date field of now.
func (l *Listener) date() string {
	now := time.Now()
	if s := l.stamp.Load(); s != nil && s.second == now.Unix() {
		return s.field
	}
	s := &stamp{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
	l.stamp.Store(s)
	return s.field
}
