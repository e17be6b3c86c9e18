package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"giggle/resource"
	"giggle/run/scale"
)

// Record is what is kept of one request to a service.
type Record struct {
	Start         time.Time
	Latency       time.Duration // until the last byte
	Method, URL   string        // URL: absolute
	Protocol      string        // "HTTP/1.1", "HTTP/2"
	Status        int           // 499: the client left before an answer
	RequestBytes  int64         // head and body, about: as HTTP/1.1 would have written them
	ResponseBytes int64
	UserAgent     string
	Referer       string
	RemoteIP      string
	Service       resource.Child
	Revision      string
	Instance      string // id, "" when it reached none
	Cold          bool   // it waited for the instance to start
	Trace, Span   string // hexadecimal ids
	Sampled       bool
	Note          string // why the gateway itself answered
}

// Recorder keeps the records of requests. It is called when a request ends, must not block, and keeps what it needs of the
// record, not the record.
type Recorder interface {
	Record(r *Record)
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
	record      Record
}

// begin notes what of the request is changed later.
func (v *visit) begin() {
	r := v.request
	v.cell = v.to.stats.cell()
	v.cell.inFlight.Add(1)
	v.trace = traceOf(r.Header)
	size := int64(len(r.Method)+len(r.RequestURI)+len(r.Host)) + 22 // of the request line and Host
	v.record = Record{
		Start: v.start, Method: r.Method, Protocol: r.Proto, UserAgent: r.UserAgent(), Referer: r.Referer(), RemoteIP: host(r.RemoteAddr),
		RequestBytes: size + headerSize(r.Header), Service: v.destination.service, Revision: v.to.rev.Name.ID, Trace: v.trace.id, Span: v.trace.span, Sampled: v.trace.sampled,
	}
	if r.ProtoMajor == 2 {
		v.record.Protocol = "HTTP/2"
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &v.in
	} else {
		v.in.ended.Store(true)
	}
}

// end makes the record, also when the answer was cut off.
func (v *visit) end() {
	latency := v.gateway.cfg.Now().Sub(v.start)
	if v.out.status == 0 {
		v.out.status = http.StatusOK // net/http sends it for who says nothing
		if v.request.Context().Err() != nil {
			v.out.status = clientLeft.status
		}
	}
	v.cell.done(v.out.status, latency)
	if v.gateway.cfg.Recorder == nil {
		return
	}
	r, rec := v.request, &v.record
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	rec.URL, rec.Latency, rec.Status = scheme+r.Host+r.URL.RequestURI(), latency, v.out.status
	rec.RequestBytes += v.in.read.Load()
	rec.ResponseBytes = v.out.head + v.out.written.Load()
	if v.lease != nil {
		rec.Instance, rec.Cold = v.lease.Instance, v.lease.Cold
	}
	v.gateway.cfg.Recorder.Record(rec)
}

// refuse answers with an answer of the gateway's own.
func (v *visit) refuse(f *refusal) {
	v.record.Note = f.note
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

// FlushError sends what was written. A head that is all there is is not sent before its end is known: gRPC's clients take
// a status in the head of an answer only from one that ends with it.
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
