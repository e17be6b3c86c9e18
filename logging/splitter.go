package logging

import (
	"bytes"
	"sync"
)

// Splitter is an io.WriteCloser that cuts what is written into lines, without their ends (LF or CRLF). A line longer
// than an entry may be is cut into several; the last is handed on by Close.
type Splitter struct {
	emit func(line string)

	mu   sync.Mutex
	rest []byte // of a line that hasn't ended
}

// NewSplitter returns a splitter that hands lines to emit.
func NewSplitter(emit func(line string)) *Splitter { return &Splitter{emit: emit} }

func (s *Splitter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for rest := p; len(rest) > 0; {
		part, after, whole := bytes.Cut(rest, []byte("\n"))
		if room := maxLine - len(s.rest); len(part) > room {
			s.rest = append(s.rest, part[:room]...)
			s.flushLocked()
			rest = rest[room:]
			continue
		}
		s.rest, rest = append(s.rest, part...), after
		if whole {
			s.rest = bytes.TrimSuffix(s.rest, []byte("\r"))
			s.flushLocked()
		}
	}
	return len(p), nil
}

func (s *Splitter) flushLocked() {
	s.emit(string(s.rest))
	s.rest = s.rest[:0]
}

// Close hands on a last line that has no end.
func (s *Splitter) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rest) > 0 {
		s.flushLocked()
	}
	return nil
}
