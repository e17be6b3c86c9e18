package netns

import (
	"context"
	"sync"
)

// Pool keeps namespaces ready, so that an instance need not wait for one to be made.
type Pool struct {
	ready chan *Namespace
	want  chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
}

// NewPool returns a pool that keeps size namespaces ready, made in the background. report hears of those that can't be
// made; Get then tells its caller too.
func NewPool(size int, report func(error)) *Pool {
	p := &Pool{ready: make(chan *Namespace, size), want: make(chan struct{}, size), quit: make(chan struct{})}
	for range size {
		p.want <- struct{}{}
	}
	p.wg.Go(func() {
		for {
			select {
			case <-p.quit:
				return
			case <-p.want:
			}
			n, err := New()
			if err != nil {
				report(err)
				continue // Get asks again
			}
			p.ready <- n // never full: there are as many wishes as places
		}
	})
	return p
}

// Get returns a namespace, the caller's from then on: a ready one, or one made on the spot.
func (p *Pool) Get(ctx context.Context) (*Namespace, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case n := <-p.ready:
		p.want <- struct{}{}
		return n, nil
	default:
		return New()
	}
}

// Close ends the refilling and lets go of the namespaces that were ready.
func (p *Pool) Close() {
	close(p.quit)
	p.wg.Wait()
	for {
		select {
		case n := <-p.ready:
			n.Close()
		default:
			return
		}
	}
}
