package local_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"giggle/gateway"
	"giggle/run"
	"giggle/run/scale"
)

// BenchmarkWake100: a hundred services at zero are asked at once, none prepared, each until its answer, with so many
// starts at once.
func BenchmarkWake100(b *testing.B) {
	for _, starts := range []int{2, 3, 4, 6, 8, 12, 100} {
		b.Run(fmt.Sprint(starts), func(b *testing.B) {
			w := newWorld(b)
			var took []time.Duration
			var cpu time.Duration
			image := w.serving(b, "serve", func(t *run.Template) { t.StartupCPUBoost = true })
			for b.Loop() {
				b.StopTimer()
				s := scale.New(scale.Config{
					Backend:   w.Backend,
					Max:       3,
					Idle:      time.Hour,
					Starts:    starts,
					Transport: gateway.Transport,
					Now:       time.Now,
					Log:       slog.New(slog.DiscardHandler),
				})
				var revs []run.Revision
				for k := range 100 {
					rev := image
					rev.Name.ID = fmt.Sprintf("jokes-%05d-abc", k)
					revs = append(revs, rev)
				}
				go func() { // nobody else asks who calls
					for range 100 {
						<-w.callers
					}
				}()
				before := spent()
				b.StartTimer()
				var mu sync.Mutex
				var wg sync.WaitGroup
				begin := time.Now()
				for _, rev := range revs {
					wg.Go(func() {
						l, err := s.Acquire(b.Context(), rev)
						if err != nil {
							b.Error(err)
							return
						}
						defer l.Release()
						if _, err := send(b.Context(), l, "/"); err != nil {
							b.Error(err)
						}
						mu.Lock()
						defer mu.Unlock()
						took = append(took, time.Since(begin))
					})
				}
				wg.Wait()
				b.StopTimer()
				if err := s.Close(context.Background()); err != nil {
					b.Error(err)
				}
				cpu += spent() - before // of the containers as well: they are reaped by now
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(len(took)), "cpu-ms/start")
			slices.Sort(took)
			for _, q := range []float64{0.5, 0.95, 1} {
				b.ReportMetric(float64(took[int(q*float64(len(took)-1))].Microseconds())/1000,
					fmt.Sprintf("p%g-ms", 100*q))
			}
		})
	}
}

// spent is the CPU time of this process and of the children that it has waited for.
func spent() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
