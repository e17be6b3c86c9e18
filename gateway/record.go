package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"giggle/logging"
	"giggle/run/scale"
)

// Recorder keeps the log entries of requests: a logging.Log. It is called when a request ends, and must not block.
type Recorder interface {
	Append(e logging.Entry)
}

// visit is one request on its way through the gateway.
type visit struct {
	gateway     *Gateway
	start       time.Time
	request     *http.Request
	destination *destination
	to          *target
	lease       *scale.Lease
	trace       trace
	in          body
	out         response
	cell        *cell
	asked       logging.Request // what is known of it at its begin
	note        string          // why the gateway itself answered
}

// begin notes what of the request is changed later.
func (v *visit) begin() {
	r := v.request
	v.cell = v.to.stats.cell()
	v.cell.inFlight.Add(1)
	v.trace = traceOf(r.Header)
	size := int64(len(r.Method)+len(r.RequestURI)+len(r.Host)) + 22 // of the request line and Host
	v.asked = logging.Request{
		Method:      r.Method,
		RequestSize: size + headerSize(r.Header),
		UserAgent:   r.UserAgent(),
		Referer:     r.Referer(),
		RemoteIP:    host(r.RemoteAddr),
		Protocol:    r.Proto,
	}
	if r.ProtoMajor == 2 {
		v.asked.Protocol = "HTTP/2"
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &v.in
	} else {
		v.in.ended.Store(true)
	}
}

// end counts the request and makes its entry, also when the answer was cut off.
func (v *visit) end() {
	latency := v.gateway.cfg.Now().Sub(v.start)
	if v.out.status == 0 {
		v.out.status = http.StatusOK // net/http sends it for who says nothing
		if v.request.Context().Err() != nil {
			v.out.status = clientLeft.status
		}
	}
	v.cell.done(v.out.status, latency)
	if v.gateway.cfg.Recorder != nil {
		v.gateway.cfg.Recorder.Append(v.entry(latency))
	}
}

// entry is the log entry of a request that has ended, as Cloud Run writes it.
func (v *visit) entry(latency time.Duration) logging.Entry {
	r, asked := v.request, v.asked // a copy: the entry outlives the visit
	asked.URL = "http://" + r.Host + r.URL.RequestURI()
	if r.TLS != nil {
		asked.URL = "https://" + r.Host + r.URL.RequestURI()
	}
	asked.Status, asked.Latency = v.out.status, latency
	asked.RequestSize += v.in.read.Load()
	asked.ResponseSize = v.out.head + v.out.written.Load()
	return logging.Entry{
		Project:  v.destination.service.Project,
		Log:      logging.Requests,
		Time:     v.start,
		Severity: severity(v.out.status),
		Resource: v.to.stats.resource,
		Labels:   v.labels(),
		Text:     v.note,
		Request:  &asked,
		Trace:    v.trace.id,
		Span:     v.trace.span,
		Sampled:  v.trace.sampled,
	}
}

// severity is how bad a request is that has ended so.
func severity(status int) logging.Severity {
	switch {
	case status >= 500:
		return logging.Error
	case status >= 400:
		return logging.Warning
	}
	return logging.Info
}

// coldLabel is the label of a request that waited for its instance to start.
const coldLabel = "cold_start"

// labels say which instance a request reached, if it reached one.
func (v *visit) labels() map[string]string {
	switch l := v.lease; {
	case l == nil:
		return nil
	case l.Cold:
		return map[string]string{logging.InstanceLabel: l.Instance, coldLabel: "true"}
	default:
		return map[string]string{logging.InstanceLabel: l.Instance}
	}
}

// refuse answers with an answer of the gateway's own.
func (v *visit) refuse(f *refusal) {
	v.note = f.note
	if f == clientLeft {
		v.out.status = f.status
		return
	}
	f.write(&v.out, v.request)
}

// drain reads what a client sends that is refused before it has sent its body, for a while: it may look for the answer
// only when it has sent all, and would see a broken connection instead.
func (v *visit) drain() {
	if v.request.ProtoMajor != 1 || v.request.Header.Get("Expect") != "" {
		return
	}
	rc := http.NewResponseController(v.out.ResponseWriter)
	_ = rc.Flush()
	_ = rc.SetReadDeadline(time.Now().Add(5 * time.Second))
	v.in.limit = 0
	_, _ = io.CopyN(io.Discard, &v.in, 2*maxBody)
}

func headerSize(h http.Header) (n int64) {
	for name, values := range h {
		for _, v := range values {
			n += int64(len(name) + len(v) + 4) // ": " and the end of the line
		}
	}
	return n
}

// host is an address without its port.
func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

// maxBody is how large the body of a request may be where the instance speaks HTTP/1
// (https://cloud.google.com/run/quotas#request_limits).
const maxBody = 32 << 20

var errTooLarge = errors.New("the request's body is too large")

// body is a request's body: it is counted and, with a limit, bounded.
type body struct {
	io.ReadCloser
	limit  int64
	length int64 // as announced, or -1
	read   atomic.Int64
	ended  atomic.Bool // nothing is left to read
	failed atomic.Bool // the client did not send what it had announced
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	total := b.read.Add(int64(n))
	if b.limit > 0 && total > b.limit {
		return 0, errTooLarge
	}
	if err == io.EOF || total == b.length { //nolint:errorlint // Read returns io.EOF itself
		b.ended.Store(true)
	} else if err != nil {
		b.failed.Store(true)
	}
	return n, err
}

// Close leaves the body to net/http, which knows when the request is over.
func (b *body) Close() error { return nil }

// response is the way to the client: it notes the status and counts bytes.
type response struct {
	http.ResponseWriter
	status  int
	head    int64
	written atomic.Int64
	whole   bool // with the head all is said
}

func (w *response) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		h := w.Header()
		if _, ok := h["Content-Type"]; !ok {
			h["Content-Type"] = nil // what the app does not say is not guessed
		}
		w.status, w.head = status, headerSize(h)+17 // and the status line
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.written.Add(int64(n))
	return n, err
}

// FlushError sends what was written. A head that is all there is is not sent before its end is known: gRPC's clients
// take a status in the head of an answer only from one that ends with it.
func (w *response) FlushError() error {
	if w.whole {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands the connection to a protocol that it switches to, and goes on counting.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.status = http.StatusSwitchingProtocols
	return &countedConn{c, &w.written}, rw, nil
}

type countedConn struct {
	net.Conn
	written *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// CloseWrite passes the half-close through.
func (c *countedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}
