package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"giggle/fault"
)

// Bodies is the budget of memory that request bodies, and the messages decoded from them, may take together. It counts
// what is held, not what is announced: a client that announces much and sends nothing takes nothing.
//
// Callers that are known share the whole budget, a quarter of it at most for each of them. Unauthenticated ones, whose
// bodies must be read before their secret or signature can be looked at, share a quarter in all.
type Bodies struct {
	limit, each int64
	free        func() // gives memory back to the system

	mu    sync.Mutex
	held  int64
	peak  int64 // since the last time that memory was given back
	by    map[string]int64
	freed chan struct{} // closed and made again whenever something is released
}

const (
	// DefaultBodies is the budget of a process, in bytes, unless it says otherwise.
	DefaultBodies = 256 << 20
	// bodyWait is how long a request waits for others to end before it is told that there are too many.
	bodyWait = 5 * time.Second
	// bodyPeak is how much must have been held before memory is given back: below it the collector's own pace will do.
	bodyPeak = 32 << 20
)

// NewBodies returns a budget of limit bytes.
func NewBodies(limit int64) *Bodies {
	return &Bodies{
		limit: limit,
		each:  limit / 4,
		free:  debug.FreeOSMemory,
		by:    make(map[string]int64),
		freed: make(chan struct{}),
	}
}

// Held returns how many bytes are held now.
func (b *Bodies) Held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// take waits until n bytes may be held on behalf of a caller, "" for an unauthenticated one.
func (b *Bodies) take(ctx context.Context, caller string, n int64) error {
	var timeout <-chan time.Time
	for {
		b.mu.Lock()
		if b.held+n <= b.limit && b.by[caller]+n <= b.each {
			b.held += n
			b.peak = max(b.peak, b.held)
			b.by[caller] += n
			b.mu.Unlock()
			return nil
		}
		freed := b.freed
		b.mu.Unlock()
		if timeout == nil {
			t := time.NewTimer(bodyWait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			e := fault.New(fault.ResourceExhausted, "Too many large requests at once; try again later.")
			e.RetryAfter = bodyWait
			return e
		}
	}
}

func (b *Bodies) release(caller string, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	if b.by[caller] -= n; b.by[caller] == 0 {
		delete(b.by, caller)
	}
	close(b.freed)
	b.freed = make(chan struct{})
	if b.peak >= bodyPeak && b.held < bodyPeak/8 {
		b.peak = b.held
		go b.free()
	}
}

// claim is what one request holds of the budget.
type claim struct {
	bodies *Bodies
	ctx    context.Context
	caller string
	n      int64
}

func (c *claim) grow(n int64) error {
	if c.n+n > c.bodies.each { // nobody else's end would help
		return fault.New(fault.ResourceExhausted,
			"The request takes more than the %d bytes of memory that one caller may have.", c.bodies.each)
	}
	if err := c.bodies.take(c.ctx, c.caller, n); err != nil {
		return err
	}
	c.n += n
	return nil
}

func (c *claim) end() {
	c.bodies.release(c.caller, c.n)
	c.n = 0
}

// elementSize is what an element of a message takes in memory at least, in bytes, whatever it took on the wire: the
// smallest has two there.
const elementSize = 128

// maxElements is how many elements (values, fields, members of lists and maps) a message may have.
const maxElements = 100_000

// decode claims the memory that a message of n elements takes.
func (c *claim) decode(n int) error {
	if n > maxElements {
		return fault.New(fault.InvalidArgument, "The request has more than %d values.", maxElements)
	}
	return c.grow(int64(n) * elementSize)
}

// readAll reads at most limit bytes and claims them as they come.
func (c *claim) readAll(r io.Reader, limit int64) ([]byte, error) {
	var buf []byte
	for {
		if len(buf) == cap(buf) {
			size := min(max(2*int64(cap(buf)), 4<<10), limit+1)
			if err := c.grow(size - int64(cap(buf))); err != nil {
				return nil, err
			}
			grown := make([]byte, len(buf), size)
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var tooLong *http.MaxBytesError
		switch {
		case int64(len(buf)) > limit, errors.As(err, &tooLong):
			return nil, tooLarge(limit)
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, unreadable(err)
		}
	}
}

func tooLarge(limit int64) error {
	return fault.New(fault.InvalidArgument, "Request payload size exceeds the limit: %d bytes.", limit)
}

// unreadable is the error of a body that ended early, or that came too slowly.
func unreadable(err error) error {
	e := &fault.Error{Code: fault.InvalidArgument, Message: "The request body could not be read.", Cause: err}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		e.Code = fault.DeadlineExceeded
		e.Message = fmt.Sprintf("The request body came too slowly: it has %v, and a second for each %d bytes.",
			bodyGrace, bodyPace)
	}
	return e
}

// The time that a body has to arrive.
const (
	bodyGrace = 30 * time.Second
	bodyPace  = 64 << 10 // bytes a second
)

// Paced returns r with a body that fails when it comes more slowly than 64 KiB a second, after a grace of 30 seconds:
// so that unfinished requests don't hold what a request holds. It keeps time with the connection's own read deadline.
func Paced(w http.ResponseWriter, r *http.Request) *http.Request {
	if _, done := r.Body.(*pacedBody); done || r.Body == nil || r.Body == http.NoBody {
		return r
	}
	out := new(http.Request)
	*out = *r
	out.Body = &pacedBody{ReadCloser: r.Body, control: http.NewResponseController(w)}
	return out
}

type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	start   time.Time
	n       int64
	ended   bool
	drained bool
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if !b.ended {
		if b.start.IsZero() {
			b.start = time.Now()
		}
		// A connection without deadlines (a test's recorder) has a body that is there already.
		_ = b.control.SetReadDeadline(b.start.Add(bodyGrace + time.Duration(b.n)*time.Second/bodyPace))
	}
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err != nil {
		b.end()
	}
	return n, err
}

// end takes the deadline away: what follows on the connection has its own.
func (b *pacedBody) end() {
	if !b.ended && !b.start.IsZero() {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.ended = true
}

func (b *pacedBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}
