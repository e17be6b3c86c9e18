package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	maxLine   = 256 << 10 // bytes; a longer line is cut into several
	maxQueued = 1 << 20   // bytes of lines that wait for Spec.Output
)

// The streams of lines: those that a process writes, and the platform's own words about it.
const (
	Stdout         = "stdout"
	Stderr         = "stderr"
	Platform       = "giggle"
	PlatformErrors = "giggle-error" // what tells of a failure
	// PlatformWarnings is for what goes on, and may not be as it was meant.
	PlatformWarnings = "giggle-warning"
)

// output carries a process's lines to Spec.Output. The pipes are read as fast as the process writes; between them and
// the receiver stands a bounded queue, and what does not fit is dropped and counted.
type output struct {
	now     func() time.Time
	deliver func(Line)
	readers sync.WaitGroup
	done    chan struct{} // closed once every line was delivered

	mu      sync.Mutex
	wake    sync.Cond
	queue   []Line
	bytes   int
	dropped int
	ended   bool
}

// newOutput starts to deliver; a nil deliver throws lines away.
func newOutput(deliver func(Line), now func() time.Time) *output {
	o := &output{now: now, deliver: deliver, done: make(chan struct{})}
	o.wake.L = &o.mu
	if deliver == nil {
		o.deliver = func(Line) {}
	}
	return o
}

// start reads the streams until they end, and closes them.
func (o *output) start(streams map[string]*os.File) {
	for name, f := range streams {
		o.readers.Go(func() {
			defer f.Close()
			frame(f, func(text []byte) { o.add(Line{o.now(), name, string(text)}) })
		})
	}
	go func() {
		o.readers.Wait()
		o.mu.Lock()
		o.ended = true
		o.mu.Unlock()
		o.wake.Signal()
	}()
	go o.pump()
}

// frame calls emit for each line of r, without its end (LF or CRLF), until r ends in whatever way.
func frame(r io.Reader, emit func([]byte)) {
	br := bufio.NewReaderSize(r, 4<<10)
	var long []byte // a line that outgrew the reader's buffer
	for {
		part, err := br.ReadSlice('\n')
		if len(part) > 0 {
			whole := err == nil
			if !whole || long != nil {
				long = append(long, part...)
				part = long
			}
			switch {
			case whole && len(part) == 1 && long != nil: // the end of a line that was cut just there
				long = nil
			case whole:
				emit(bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r")))
				long = nil
			case len(long) >= maxLine:
				emit(long)
				long = long[:0]
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > 0 {
				emit(long)
			}
			return
		}
	}
}

func (o *output) add(l Line) {
	o.mu.Lock()
	// An empty line counts as well: it takes memory too.
	if size := len(l.Text) + 64; o.bytes+size > maxQueued {
		o.dropped++
	} else {
		o.queue = append(o.queue, l)
		o.bytes += size
	}
	o.mu.Unlock()
	o.wake.Signal()
}

func (o *output) pump() {
	defer close(o.done)
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && o.dropped == 0 && !o.ended {
			o.wake.Wait()
		}
		queue, dropped := o.queue, o.dropped
		o.queue, o.dropped = nil, 0
		ended := o.ended && len(queue) == 0 && dropped == 0
		o.mu.Unlock()
		if ended {
			return
		}
		for _, l := range queue {
			o.deliver(l)
			o.mu.Lock()
			o.bytes -= len(l.Text) + 64
			o.mu.Unlock()
		}
		if dropped > 0 {
			o.deliver(Line{o.now(), Platform,
				fmt.Sprintf("%d lines were dropped: the log could not keep up.", dropped)})
		}
	}
}
