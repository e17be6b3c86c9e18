package http1

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// watch sees a client leave while its request is served: it reads ahead, once the request's body is read. Requests that
// are answered soon aren't watched, since to begin and end that costs more than all the rest of the reading.
type watch struct {
	c     *conn
	timer *time.Timer

	mu     sync.Mutex
	cancel context.CancelFunc // of the request
	armed  bool               // nothing more of the request is to be read, and it hasn't ended
	ended  chan struct{}      // closed when nobody reads ahead any more; nil when nobody did
}

func (w *watch) init(c *conn) {
	w.c = c
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
}

// begin is told of a request.
func (w *watch) begin(cancel context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = cancel
}

// arm is told that nothing more of the request is to be read.
func (w *watch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = true
	w.timer.Reset(watchAfter)
}

// look reads ahead until the client sends something or leaves, or the request ends.
func (w *watch) look() {
	w.mu.Lock()
	if !w.armed || w.ended != nil { // the timer was of a request before
		w.mu.Unlock()
		return
	}
	cancel := w.cancel
	ended := make(chan struct{})
	w.ended = ended
	_ = w.c.SetReadDeadline(time.Time{}) // before end can set one
	w.mu.Unlock()
	defer close(ended)
	if _, err := w.c.br.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		cancel()
	}
}

// end is told that the request has ended. After it nobody reads ahead.
func (w *watch) end() {
	w.mu.Lock()
	w.armed, w.cancel = false, nil
	w.timer.Stop()
	ended := w.ended
	w.ended = nil
	if ended != nil {
		_ = w.c.SetReadDeadline(pastDeadline)
	}
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}
