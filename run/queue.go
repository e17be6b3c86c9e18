package run

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A key whose work failed is tried again after a second, then after twice as long each time, up to half a minute.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// queue runs a function for keys: each key by one worker at a time, and once more if it was added meanwhile or failed.
type queue struct {
	ctx   context.Context
	fn    func(ctx context.Context, key string) error
	log   *slog.Logger
	slots chan struct{} // one for each that may run at once

	mu      sync.Mutex
	pending map[string]bool // the keys being worked on; true: added again meanwhile
	workers sync.WaitGroup
}

func newQueue(ctx context.Context, workers int, log *slog.Logger, fn func(context.Context, string) error) *queue {
	return &queue{
		ctx:     ctx,
		fn:      fn,
		log:     log,
		slots:   make(chan struct{}, workers),
		pending: make(map[string]bool),
	}
}

func (q *queue) add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, running := q.pending[key]; running {
		q.pending[key] = true
		return
	}
	q.pending[key] = false
	q.workers.Go(func() { q.work(key) })
}

func (q *queue) work(key string) {
	retry := firstRetry
	for {
		select {
		case q.slots <- struct{}{}:
		case <-q.ctx.Done():
			return
		}
		err := q.fn(q.ctx, key)
		<-q.slots
		if q.ctx.Err() != nil {
			return
		}
		if err != nil {
			q.log.Error("reconcile failed; it will be tried again", "key", key, "in", retry, "err", err)
			select {
			case <-time.After(retry):
			case <-q.ctx.Done():
				return
			}
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		if q.done(key) {
			return
		}
	}
}

// done takes the key off the list, unless it was added again.
func (q *queue) done(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending[key] {
		q.pending[key] = false
		return false
	}
	delete(q.pending, key)
	return true
}

// wait returns once no worker is left. The context must have ended.
func (q *queue) wait() { q.workers.Wait() }
