package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"giggle/engine"
)

// quantiles reports the p50 and p95 of one phase.
func quantiles(b *testing.B, name string, d []time.Duration) {
	slices.Sort(d)
	ms := func(q float64) float64 { return float64(d[int(q*float64(len(d)-1))].Microseconds()) / 1000 }
	b.ReportMetric(ms(0.5), name+"-p50-ms")
	b.ReportMetric(ms(0.95), name+"-p95-ms")
}

// firstByte asks once, as soon as the app listens.
func firstByte(ctx context.Context, i *engine.Instance) error {
	c, err := dial(ctx, i, 8080)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// BenchmarkColdStart: preparing, and from start to the first byte of the answer, one instance after another.
func BenchmarkColdStart(b *testing.B) {
	for _, runtime := range []string{"crun", "runc"} {
		b.Run(runtime, func(b *testing.B) {
			e := openBench(b, runtime)
			var prepare, first, stop []time.Duration
			for n := 0; b.Loop(); n++ {
				s := serving(fmt.Sprint(n))
				s.Layers = []string{layer}
				t0 := time.Now()
				i, err := e.Prepare(b.Context(), s)
				if err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				go i.Start(b.Context())
				if err := firstByte(b.Context(), i); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				if err := i.Stop(b.Context(), 0); err != nil {
					b.Fatal(err)
				}
				prepare, first, stop = append(prepare, t1.Sub(t0)), append(first, t2.Sub(t1)), append(stop,
					time.Since(t2))
				time.Sleep(30 * time.Millisecond) // the background's share
			}
			quantiles(b, "prepare", prepare)
			quantiles(b, "first-byte", first)
			quantiles(b, "stop", stop)
		})
	}
}

// BenchmarkWake100: a hundred unprepared instances wanted at once, each until its first byte.
func BenchmarkWake100(b *testing.B) {
	for _, runtime := range []string{"crun", "runc"} {
		b.Run(runtime, func(b *testing.B) {
			e := openBench(b, runtime)
			var took []time.Duration
			for n := 0; b.Loop(); n++ {
				var mu sync.Mutex
				var wg sync.WaitGroup
				begin := time.Now()
				for k := range 100 {
					wg.Go(func() {
						s := serving(fmt.Sprint(n, "-", k))
						s.Layers = []string{layer}
						i, err := e.Prepare(b.Context(), s)
						if err != nil {
							b.Error(err)
							return
						}
						defer i.Stop(b.Context(), 0)
						go i.Start(b.Context())
						if err := firstByte(b.Context(), i); err != nil {
							b.Error(err)
						}
						mu.Lock()
						took = append(took, time.Since(begin))
						mu.Unlock()
					})
				}
				wg.Wait()
			}
			quantiles(b, "first-byte", took)
		})
	}
}

func openBench(b *testing.B, runtime string) *engine.Engine {
	b.Helper()
	e, err := engine.Open(b.Context(), engine.Config{Dir: b.TempDir(), Runtime: runtime, Log: slog.Default()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

// BenchmarkSetCPU: throttling a container and giving its CPU back, two writes of its quota.
func BenchmarkSetCPU(b *testing.B) {
	e := openBench(b, "")
	s := serving("throttled")
	s.Layers = []string{layer}
	i, err := e.Prepare(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { i.Stop(context.Background(), 0) })
	for b.Loop() {
		for _, m := range []int64{10, 1000} {
			if err := i.SetCPU(m); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkUsage: what one look at a container's use costs.
func BenchmarkUsage(b *testing.B) {
	e := openBench(b, "")
	s := serving("used")
	s.Layers = []string{layer}
	i, err := e.Prepare(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { i.Stop(context.Background(), 0) })
	for b.Loop() {
		if _, err := i.Usage(); err != nil {
			b.Fatal(err)
		}
	}
}
