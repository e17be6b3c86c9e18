package logging

import (
	"context"
	"iter"
	"slices"
	"sync"
)

// Readers are several logs that are read as one.
type Readers []Reader

var _ Reader = Readers(nil)

// Read yields the newest entries of all of them, in the order of time.
func (rs Readers) Read(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var out []Entry
		for _, r := range rs {
			some, err := Collect(r.Read(ctx, f))
			if err != nil {
				yield(Entry{}, err)
				return
			}
			out = append(out, some...)
		}
		slices.SortStableFunc(out, func(a, b Entry) int { return a.Time.Compare(b.Time) })
		if f.Limit > 0 && len(out) > f.Limit {
			out = out[len(out)-f.Limit:]
		}
		for _, e := range out {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Follow yields what each of them yields, in the order in which it comes.
func (rs Readers) Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type item struct {
			entry Entry
			err   error
		}
		items := make(chan item)
		var all sync.WaitGroup
		for _, r := range rs {
			all.Go(func() {
				for e, err := range r.Follow(ctx, f) {
					select {
					case items <- item{e, err}:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		go func() {
			all.Wait()
			close(items)
		}()
		defer func() {
			cancel()
			for range items { // until all have ended
			}
		}()
		for i := range items {
			if !yield(i.entry, i.err) {
				return
			}
		}
	}
}
