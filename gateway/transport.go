package gateway

import (
	"context"
	"net"
	"net/http"

	"giggle/gateway/upstream"
	"giggle/run/scale"
)

// Transport is the Transport of scale.Config: what makes the leases' transports, which roundTripper takes back.
func Transport(dial func(ctx context.Context) (net.Conn, error), h2c bool, concurrency int) scale.Transport {
	return upstream.New(dial, h2c, concurrency)
}

// roundTripper is what sends requests to a lease's instance.
func roundTripper(l *scale.Lease) http.RoundTripper { return l.Transport.(http.RoundTripper) }
