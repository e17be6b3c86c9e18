package scale_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"giggle/run"
	"giggle/run/scale"
)

// BenchmarkAcquireRelease: a slot taken and given back, where one is free, by revisions with so many ready instances.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, n := range []int{1, 4, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, rev := benchScaler(b, n)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				l, err := s.Acquire(ctx, rev)
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
		})
	}
}

// BenchmarkAcquireReleaseParallel: the same from all cores at once.
func BenchmarkAcquireReleaseParallel(b *testing.B) {
	s, rev := benchScaler(b, 4)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := s.Acquire(ctx, rev)
			if err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}

func benchScaler(b *testing.B, n int) (*scale.Scaler, run.Revision) {
	b.Helper()
	s := scale.New(scale.Config{
		Backend: &backend{},
		Max:     100,
		Idle:    time.Hour,
		Starts:  8,
		Now:     time.Now,
		Log:     slog.New(slog.DiscardHandler),
	})
	b.Cleanup(func() { _ = s.Close(context.Background()) })
	rev := revision("s-1", func(t *run.Template) { t.Concurrency = 1000 / n })
	var leases []*scale.Lease
	for range 1000/n*(n-1) + 1 {
		l, err := s.Acquire(b.Context(), rev)
		if err != nil {
			b.Fatal(err)
		}
		leases = append(leases, l)
	}
	for _, l := range leases {
		l.Release()
	}
	return s, rev
}
