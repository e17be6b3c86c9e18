package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"giggle/run"
)

// Probe makes one attempt of a probe by HTTP or gRPC, which has its defaults, at the port that dial connects to.
func Probe(ctx context.Context, dial func(ctx context.Context, port int) (net.Conn, error), pr run.Probe) error {
	if pr.Kind() == "GRPC" {
		return probeGRPC(ctx, dial, pr)
	}
	return probeHTTP(ctx, dial, pr)
}

// client sends one request to a port of an instance.
func client(dial func(ctx context.Context, port int) (net.Conn, error), port int, h2c bool) (*http.Client, func()) {
	t := &http.Transport{
		DisableKeepAlives: !h2c, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, port) },
	}
	if h2c {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, t.CloseIdleConnections
}

// probeHTTP succeeds with a status of 200 to 399.
func probeHTTP(ctx context.Context, dial func(ctx context.Context, port int) (net.Conn, error), pr run.Probe) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost", nil)
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(pr.HTTPPath, "?")
	if unescaped, err := url.PathUnescape(path); err == nil {
		req.URL.Path, req.URL.RawPath = unescaped, path
	} else {
		req.URL.Path = path
	}
	req.URL.RawQuery = query
	req.Header.Set("User-Agent", "GoogleHC/1.0")
	for _, h := range pr.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	c, done := client(dial, pr.HTTPPort, false)
	defer done()
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	return nil
}

// The health check of gRPC (https://github.com/grpc/grpc/blob/master/doc/health-checking.md), which is one field each
// way: HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}.
const (
	healthMethod = "/grpc.health.v1.Health/Check"
	healthField  = 1
	serving      = 1
)

// probeGRPC succeeds when the service says that it is SERVING.
func probeGRPC(ctx context.Context, dial func(ctx context.Context, port int) (net.Conn, error), pr run.Probe) error {
	var message []byte
	if pr.GRPCService != "" {
		message = protowire.AppendString(protowire.AppendTag(nil, healthField, protowire.BytesType), pr.GRPCService)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+healthMethod,
		bytes.NewReader(framed(message)))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"GoogleHC/1.0"}}
	c, done := client(dial, pr.GRPCPort, true)
	defer done()
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	code := res.Trailer.Get("Grpc-Status")
	if code == "" {
		code = res.Header.Get("Grpc-Status") // an answer of trailers only
	}
	if n, err := strconv.Atoi(code); res.StatusCode != http.StatusOK || err != nil || n != 0 {
		return fmt.Errorf("HTTP status %d, gRPC status %.20q", res.StatusCode, code)
	}
	if status := healthStatus(body); status != serving {
		return fmt.Errorf("the health status %d, which is not SERVING", status)
	}
	return nil
}

// framed makes a message one of gRPC's: not compressed, its length in four bytes.
func framed(message []byte) []byte {
	n := len(message)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}

// healthStatus reads the status out of a framed HealthCheckResponse; 0, UNKNOWN, when it is not one.
func healthStatus(body []byte) (status uint64) {
	if len(body) < 5 || body[0] != 0 {
		return 0
	}
	for b := body[5:]; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0
		}
		b = b[n:]
		if field == healthField && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return 0
			}
			status, b = v, b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return 0
		}
		b = b[n:]
	}
	return status
}
