package gateway

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
)

// plain reports whether a request is one that forward knows all about; the rest is for httputil.ReverseProxy.
func plain(r *http.Request) bool {
	h := r.Header
	return len(h["Upgrade"]) == 0 && len(h["Expect"]) == 0 && len(r.Trailer) == 0 && r.Method != http.MethodConnect
}

// forward sends a plain HTTP/1 request to its instance, and the answer to the client. It does what ReverseProxy does
// without copying the request and its headers, which are nobody else's any more.
func (p *proxy) forward(ctx context.Context, v *visit) {
	r, w := v.request, &v.out
	h := r.Header
	removeHopByHop(h)
	setForwarded(h, h, v.asked.RemoteIP, r.TLS != nil)
	v.trace.set(h)
	out := (&http.Request{
		Method:        r.Method,
		Header:        h,
		Host:          r.Host,
		Body:          r.Body,
		ContentLength: r.ContentLength,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		URL: &url.URL{
			Scheme:     "http",
			Host:       "instance",
			Opaque:     opaque(r),
			Path:       r.URL.Path,
			RawPath:    r.URL.RawPath,
			RawQuery:   r.URL.RawQuery,
			ForceQuery: r.URL.ForceQuery,
		},
	}).WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			if status == http.StatusContinue {
				return nil // the client did not ask
			}
			to := w.Header()
			for name, values := range header {
				to[name] = values
			}
			w.WriteHeader(status)
			clear(to)
			return nil
		},
	}))
	if r.ContentLength == 0 {
		out.Body = nil
	}
	res, err := roundTripper(v.lease).RoundTrip(out)
	if err != nil {
		p.failed(ctx, v, err)
		return
	}
	defer func() { _ = res.Body.Close() }()
	if refused := passResponse(v, res); refused != nil {
		v.refuse(refused)
		return
	}
	to := w.Header()
	removeHopByHop(res.Header)
	for name, values := range res.Header {
		to[name] = values
	}
	announced := len(res.Trailer)
	for name := range res.Trailer {
		to.Add("Trailer", name)
	}
	w.WriteHeader(res.StatusCode)
	if b, ok := res.Body.(interface{ Buffered() int }); res.Body != http.NoBody && res.ContentLength != 0 &&
		(!ok || b.Buffered() == 0) {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the app may take its time for the first byte
	}
	if !p.stream(w, res.Body) {
		panic(http.ErrAbortHandler) // the client must see that it isn't all
	}
	if len(res.Trailer) > 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // in chunks: a trailer needs them
		for name := range res.Trailer {
			delete(to, name) // it was said in the head too, and isn't twice in the trailer
		}
	}
	for name, values := range res.Trailer {
		if len(res.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		to[name] = values
	}
}

// stream copies an answer's body to the client, each part as it comes, and reports whether that was all.
func (p *proxy) stream(w *response, body io.Reader) bool {
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	flush := http.NewResponseController(w.ResponseWriter)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return false
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // Read returns io.EOF itself
			return true // net/http writes what is left when the handler returns
		case err != nil:
			return false
		case n > 0:
			_ = flush.Flush()
		}
	}
}
