package aiplatform

import (
	"context"
	"sync"
	"time"

	"giggle/vertex"
)

// sendInterval is how long text is gathered before it is sent: a message for each token would be mostly frame.
const sendInterval = 50 * time.Millisecond

// flow sends the first text at once and gathers what follows.
type flow struct {
	send func(candidate int, c vertex.Chunk) error
	done chan struct{}
	wait sync.WaitGroup

	mu        sync.Mutex
	candidate int
	text      string
	sent      bool
	err       error
}

func coalesce(ctx context.Context, send func(int, vertex.Chunk) error) *flow {
	f := &flow{send: send, done: make(chan struct{})}
	f.wait.Go(func() {
		tick := time.NewTicker(sendInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = f.flush() // the next add or the end has the error
			case <-f.done:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	return f
}

// add takes a piece of a candidate's answer.
func (f *flow) add(candidate int, c vertex.Chunk) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.candidate = candidate
	f.text += c.Text
	if len(c.Calls) == 0 && f.sent {
		return f.err
	}
	f.sent = true
	c.Text, f.text = f.text, ""
	if f.err == nil {
		f.err = f.send(candidate, c)
	}
	return f.err
}

// flush sends what was gathered.
func (f *flow) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text != "" && f.err == nil {
		f.err = f.send(f.candidate, vertex.Chunk{Text: f.text})
		f.text = ""
	}
	return f.err
}

func (f *flow) stop() {
	close(f.done)
	f.wait.Wait()
}
