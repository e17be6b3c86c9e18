package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// proxy sends requests to instances: HTTP/1.1 and h2c, streams both ways, trailers, upgrades.
type proxy struct {
	rp      *httputil.ReverseProxy // for upgrades, HTTP/2 and whatever else is out of the ordinary
	log     *slog.Logger
	buffers buffers
}

// visitKey is the context key of a request's visit.
type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

func newProxy(log *slog.Logger) *proxy {
	p := &proxy{log: log}
	p.rp = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     viaLease{},
		FlushInterval: -1, // whatever the app has written is for the client now
		BufferPool:    &p.buffers,
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode < 100 {
				return fmt.Errorf("an answer of status %d", res.StatusCode)
			}
			if v := visitOf(res.Request.Context()); v != nil {
				v.out.whole = res.ContentLength == 0
				if passResponse(v, res) != nil {
					return errResponseTooLarge
				}
			}
			return nil
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			if v := visitOf(r.Context()); v != nil {
				p.failed(r.Context(), v, err)
			}
		},
	}
	return p
}

// lastWords is how long a client has for the answer that its time is over.
const lastWords = 2 * time.Second

// pastDeadline is a deadline that ends a read at once.
var pastDeadline = time.Unix(1, 0)

// serve sends a visit's request to the instance that it has a lease on, and the answer to the client. The context has
// the request's deadline.
func (p *proxy) serve(ctx context.Context, v *visit) {
	r := v.request
	to := http.NewResponseController(v.out.ResponseWriter)
	if !v.in.ended.Load() && r.ProtoMajor == 1 {
		_ = to.EnableFullDuplex() // the app may answer before it has read all
	}
	// A client that does not send what it announced, or does not take what it is sent, must not hold the request, and
	// the instance's slot, beyond the deadline.
	done := make(chan struct{})
	cut := context.AfterFunc(ctx, func() {
		_ = to.SetReadDeadline(pastDeadline)
		_ = to.SetWriteDeadline(time.Now().Add(lastWords))
		close(done)
	})
	defer func() {
		if !cut() {
			<-done // it may touch the response only as long as this is not over
			_ = to.SetWriteDeadline(time.Time{})
		} else if !v.in.ended.Load() && v.out.status != http.StatusSwitchingProtocols {
			_ = to.SetReadDeadline(pastDeadline)
		}
	}()
	if v.to.rev.Template.Containers[0].PortName != "h2c" && plain(r) {
		p.forward(ctx, v)
		return
	}
	p.rp.ServeHTTP(&v.out, r.WithContext(context.WithValue(ctx, visitKey{}, v)))
}

// failed answers a request that an instance did not answer.
func (p *proxy) failed(ctx context.Context, v *visit, err error) {
	switch {
	case errors.Is(err, errResponseTooLarge):
		v.refuse(responseTooLarge)
	case errors.Is(err, errTooLarge):
		v.refuse(tooLarge)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		v.refuse(timedOut)
	case v.request.Context().Err() != nil || v.in.failed.Load():
		v.refuse(clientLeft)
	default:
		p.log.Warn("request failed at the instance", "revision", v.to.rev.Name.ID, "instance", v.lease.Instance, "err",
			err)
		v.refuse(malformed)
	}
}

var errResponseTooLarge = errors.New("gateway: the answer is too large")

// viaLease sends a request to the instance that it has a lease on.
type viaLease struct{}

func (viaLease) RoundTrip(r *http.Request) (*http.Response, error) {
	v := visitOf(r.Context())
	if v == nil {
		return nil, errors.New("gateway: a request without a lease")
	}
	return roundTripper(v.lease).RoundTrip(r)
}

// rewrite makes the request that the instance sees, with the headers that Cloud Run sets.
func rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	// the lease's transport dials its instance, whatever the name
	out.URL.Scheme, out.URL.Host, out.URL.Opaque = "http", "instance", opaque(in)
	// as it came, also what Go would not parse
	out.URL.RawQuery, out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery
	out.Host = in.Host
	out.Trailer = in.Trailer // the same map: its values come with the end of the body
	setForwarded(out.Header, in.Header, host(in.RemoteAddr), in.TLS != nil)
	if v := visitOf(in.Context()); v != nil {
		v.trace.set(out.Header)
	}
}

// buffers lends copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
