package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"syscall"
	"testing"
	"time"

	"giggle/edge"
	"giggle/gateway"
	"giggle/gateway/upstream"
	"giggle/logging"
	"giggle/resource"
	"giggle/run"
)

// BenchmarkGateway is a request over one kept connection, plain HTTP: the gateway's own cost is the time beside
// "direct". cpu-us/op is of the whole process: client, gateway and app.
func BenchmarkGateway(b *testing.B) {
	app1 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Why did the chicken cross the road? To get to the other side.")
	}))
	defer app1.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", app1.Listener.Addr().String())
	}
	std := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 80,
		DisableCompression:  true,
	}
	for _, tt := range []struct {
		name string
		rt   upstream.RoundTripper
	}{{"direct", nil}, {"bare ReverseProxy", nil}, {"over http.Transport", std},
		{"lean", upstream.New(dial, false, 80)}, {"lean, edge in front", upstream.New(dial, false, 80)}} {
		b.Run(tt.name, func(b *testing.B) {
			address, rt := app1.Listener.Addr().String(), tt.rt
			if tt.name == "bare ReverseProxy" { // what it would cost without doing anything of ours
				front := httptest.NewServer(&httputil.ReverseProxy{
					Rewrite: func(r *httputil.ProxyRequest) {
						r.Out.URL.Scheme, r.Out.URL.Host = "http", "instance"
						r.SetXForwarded()
					}, Transport: std, FlushInterval: -1,
				})
				defer front.Close()
				address = front.Listener.Addr().String()
			}
			if rt != nil {
				g := gateway.New(gateway.Config{
					Instances: &app{transport: rt},
					Invoker:   invoker{true},
					Recorder:  logging.NewRing(20_000, 16<<20),
					Now:       time.Now,
					Log:       slog.New(slog.DiscardHandler),
				})
				g.Publish(route())
				front := httptest.NewServer(g)
				defer front.Close()
				address = front.Listener.Addr().String()
				if tt.name == "lean, edge in front" {
					ca, err := edge.OpenCA(b.TempDir(), time.Now)
					if err != nil {
						b.Fatal(err)
					}
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						b.Fatal(err)
					}
					s := edge.NewServer(edge.Config{CA: ca, Router: edge.NewRouter(edge.Routes{Service: g})})
					go func() { _ = s.ServePlain(l, nil) }()
					defer func() { _ = s.Shutdown(context.Background()) }()
					address = l.Addr().String()
				}
			}
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			b.SetParallelism(25)
			b.RunParallel(func(pb *testing.PB) {
				c, err := net.Dial("tcp", address)
				if err != nil {
					b.Error(err)
					return
				}
				defer func() { _ = c.Close() }()
				ask, answer := []byte("GET / HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: bench\r\n\r\n"), make([]byte,
					4096)
				for pb.Next() {
					if _, err := c.Write(ask); err != nil {
						b.Error(err)
						return
					}
					n := 0
					for !bytes.Contains(answer[:n], []byte("side.")) {
						more, err := c.Read(answer[n:])
						if err != nil {
							b.Errorf("%q %v", answer[:n], err)
							return
						}
						n += more
					}
				}
			})
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// BenchmarkPublish is a change of traffic of one service among a thousand.
func BenchmarkPublish(b *testing.B) {
	g := gateway.New(gateway.Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	routes := make([]run.Route, 1000)
	for i := range routes {
		id := fmt.Sprintf("jokes%d", i)
		routes[i] = route()
		routes[i].Service = resource.Service("giggle", "europe-north1", id)
		routes[i].Hosts = []string{id + "-abcdefghij-lz.a.run.app", id + "-123456789012.europe-north1.run.app"}
		g.Publish(routes[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		g.Publish(routes[i%1000])
	}
}
