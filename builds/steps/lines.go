package steps

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	maxLog    = 512 << 20 // bytes of one build's log
	flushSize = 64 << 10  // bytes that are written at once
	flushTime = 50 * time.Millisecond
)

// lines writes whole lines of many steps to one log. Lines that come fast are gathered for a moment.
type lines struct {
	mu     sync.Mutex
	out    io.Writer
	buffer bytes.Buffer
	due    bool // a flush is on its way
	room   int64
	failed error
}

func newLines(out io.Writer) *lines { return &lines{out: out, room: maxLog} }

func (l *lines) say(prefix, format string, args ...any) {
	for text := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		l.line(prefix, text)
	}
}

func (l *lines) line(prefix, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := int64(len(prefix) + len(text) + 1)
	if l.room < 0 {
		return
	}
	if l.room -= size; l.room < 0 {
		prefix, text = "", fmt.Sprintf("The log is longer than %d MiB: what follows is left out.", maxLog>>20)
	}
	l.buffer.WriteString(prefix)
	l.buffer.WriteString(text)
	l.buffer.WriteByte('\n')
	switch {
	case l.buffer.Len() >= flushSize:
		l.write()
	case !l.due:
		l.due = true
		time.AfterFunc(flushTime, l.flush)
	}
}

// writer returns what writes the output of a step that is a stream. Its end must follow.
func (l *lines) writer(prefix string) *stream { return &stream{lines: l, prefix: prefix} }

// stream cuts what is written into lines.
type stream struct {
	lines  *lines
	prefix string

	mu   sync.Mutex
	part []byte // of a line whose end is not there yet
}

// maxPart is the most bytes of a line that are held back.
const maxPart = 64 << 10

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(p) {
		s.part = append(s.part, line...)
		if bytes.HasSuffix(line, []byte("\n")) || len(s.part) > maxPart {
			s.passLocked()
		}
	}
	return len(p), nil
}

// passLocked passes the line on.
func (s *stream) passLocked() {
	s.lines.line(s.prefix, string(bytes.TrimSuffix(s.part, []byte("\n"))))
	s.part = s.part[:0]
}

// end passes on what is left without an end of line.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.part) > 0 {
		s.passLocked()
	}
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = false
	l.write()
}

// write empties the buffer. A log that can't be written does not stop the build; its Close tells.
func (l *lines) write() {
	if l.buffer.Len() == 0 {
		return
	}
	if l.failed == nil {
		_, l.failed = l.out.Write(l.buffer.Bytes())
	}
	l.buffer.Reset()
}
