package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"

	"giggle/run/scale"
)

// proxy sends requests to instances: HTTP/1.1 and h2c, streams, trailers, WebSocket.
type proxy struct{ rp *httputil.ReverseProxy }

// leaseKey is the context key of a request's lease.
type leaseKey struct{}

func newProxy(log *slog.Logger) proxy {
	return proxy{&httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     viaLease{},
		FlushInterval: -1, // whatever the app has written is for the client now
		BufferPool:    &buffers{},
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				writePage(w, r, http.StatusGatewayTimeout)
			case r.Context().Err() != nil: // the client left
			default:
				log.Warn("request failed at the instance", "host", r.Host, "err", err)
				writeText(w, http.StatusServiceUnavailable,
					"The request failed because either the HTTP response was malformed or connection to the instance had an error.")
			}
		},
	}}
}

// serve proxies one request to the lease's instance.
func (p proxy) serve(w http.ResponseWriter, r *http.Request, lease *scale.Lease) {
	p.rp.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leaseKey{}, lease)))
}

// viaLease sends a request to the instance that it has a lease for.
type viaLease struct{}

func (viaLease) RoundTrip(r *http.Request) (*http.Response, error) {
	lease, ok := r.Context().Value(leaseKey{}).(*scale.Lease)
	if !ok {
		return nil, errors.New("gateway: a request without a lease")
	}
	return lease.Transport.RoundTrip(r)
}

// rewrite makes the request that the instance sees, with the headers that Cloud Run sets.
func rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	out.URL.Scheme, out.URL.Host = "http", "instance" // the lease's transport dials its instance, whatever the name
	out.Host = in.Host
	client, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		client = in.RemoteAddr
	}
	proto := "http"
	if in.TLS != nil {
		proto = "https"
	}
	forwarded := client
	if prior := in.Header.Get("X-Forwarded-For"); prior != "" {
		forwarded = prior + "," + client
	}
	out.Header.Set("X-Forwarded-For", forwarded)
	out.Header.Set("X-Forwarded-Proto", proto)
	out.Header.Set("Forwarded", fmt.Sprintf("for=%q;proto=%s", client, proto))
	trace(in.Header, out.Header)
}

// trace carries a caller's trace on, or starts one: traceparent (W3C) and X-Cloud-Trace-Context say the same.
func trace(in, out http.Header) {
	if parts := strings.Split(in.Get("Traceparent"), "-"); len(parts) == 4 && len(parts[1]) == 32 && len(parts[2]) == 16 {
		if in.Get("X-Cloud-Trace-Context") == "" {
			out.Set("X-Cloud-Trace-Context", parts[1]+"/"+spanNumber(parts[2])+";o=1")
		}
		return
	}
	if c := in.Get("X-Cloud-Trace-Context"); len(c) >= 32 {
		out.Set("Traceparent", fmt.Sprintf("00-%s-%016x-01", c[:32], rand.Uint64()))
		return
	}
	span := rand.Uint64()
	id := fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
	out.Set("Traceparent", fmt.Sprintf("00-%s-%016x-01", id, span))
	out.Set("X-Cloud-Trace-Context", fmt.Sprintf("%s/%d;o=1", id, span))
}

// spanNumber is a span id of 16 hexadecimal digits in decimal, as X-Cloud-Trace-Context has it.
func spanNumber(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		return "0"
	}
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return fmt.Sprint(n)
}

// pages are the texts of Cloud Run's front end, by status.
var pages = map[int]struct{ title, text string }{
	http.StatusNotFound:           {"Page not found", "The requested URL was not found on this server."},
	http.StatusForbidden:          {"Forbidden", "Your client does not have permission to get URL <code>%s</code> from this server."},
	http.StatusUnauthorized:       {"Unauthorized", "Your client does not have permission to the requested URL <code>%s</code>."},
	http.StatusServiceUnavailable: {"Server Error", "The service you requested is not available at this time."},
	http.StatusGatewayTimeout:     {"Server Error", "The request has been terminated because it has reached the maximum request timeout."},
}

// writePage answers with one of Cloud Run's error pages.
func writePage(w http.ResponseWriter, r *http.Request, status int) {
	p := pages[status]
	text := p.text
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, html.EscapeString(r.URL.Path))
	}
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_, _ = fmt.Fprintf(w, "<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n<title>%d %s</title>\n</head>\n"+
		"<body text=#000000 bgcolor=#ffffff>\n<h1>Error: %s</h1>\n<h2>%s</h2>\n<h2></h2>\n</body></html>\n", status, p.title, p.title, text)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// buffers lends the proxy its copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
