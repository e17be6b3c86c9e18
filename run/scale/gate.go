package scale

import (
	"context"
	"sync"
)

// gate admits starts, so many at once: more would only make all of them late. A revision's first instance goes before
// further ones of revisions that serve already, but every fourth place is for those, so that none starves.
type gate struct {
	mu     sync.Mutex
	free   int
	turns  int
	queues [2][]chan struct{} // first instances, further ones
}

func newGate(places int) *gate { return &gate{free: max(places, 1)} }

// enter waits for a place.
func (g *gate) enter(ctx context.Context, first bool) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	k := 1
	if first {
		k = 0
	}
	turn := make(chan struct{})
	g.queues[k] = append(g.queues[k], turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, t := range g.queues[k] {
		if t == turn {
			g.queues[k] = append(g.queues[k][:i:i], g.queues[k][i+1:]...)
			return ctx.Err()
		}
	}
	g.passLocked() // it came meanwhile
	return ctx.Err()
}

// leave gives the place to the next.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passLocked()
}

// passLocked gives a place to who waits, or to nobody.
func (g *gate) passLocked() {
	k := 0
	if g.turns++; g.turns%4 == 0 || len(g.queues[0]) == 0 {
		k = 1
	}
	if len(g.queues[k]) == 0 {
		k = 1 - k
	}
	if len(g.queues[k]) == 0 {
		g.free++
		return
	}
	close(g.queues[k][0])
	g.queues[k] = g.queues[k][1:]
}

// busy reports whether starts wait.
func (g *gate) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queues[0])+len(g.queues[1]) > 0
}
