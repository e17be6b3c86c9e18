package embedded

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"giggle/fault"
	"giggle/vertex/llama"
)

// maxLine is the longest line that either side takes, in bytes.
const maxLine = 1 << 20

// request is a line to the child.
type request struct {
	ID       uint64         `json:"id"`
	Do       string         `json:"do"` // one of the verbs
	Turns    []Turn         `json:"turns,omitempty"`
	Sampling llama.Sampling `json:"sampling"`
}

// The verbs of a request.
const (
	doGenerate = "generate"
	doCount    = "count"
	doCancel   = "cancel"
)

// reply is a line from the child. The first one has ID 0: the model is loaded, or could not be.
type reply struct {
	ID    uint64        `json:"id"`
	Text  string        `json:"text,omitempty"`
	Done  *llama.Result `json:"done,omitempty"`
	Error *failure      `json:"error,omitempty"`
}

// failure is a fault on the wire.
type failure struct {
	Code    fault.Code `json:"code"`
	Message string     `json:"message"`
	cause   error      // of this side
}

func (f *failure) fault() error {
	return &fault.Error{Code: f.Code, Message: f.Message, Cause: f.cause}
}

func failed(err error) *failure {
	f := fault.From(err)
	message := f.Message
	if f.Code == fault.Internal {
		message = err.Error()
	}
	return &failure{Code: f.Code, Message: message}
}

// lines writes one JSON value a line, from any number of goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxLine {
		return fault.New(fault.InvalidArgument, "the prompt has %d bytes with its marks, and %d are the most", len(b),
			maxLine)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.w.Write(append(b, '\n'))
	return err
}

// scan calls do with every line that is read, until there are no more. A line that is too long or is no JSON ends it
// with an error: the other side is broken.
func scan[T any](r io.Reader, do func(T)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 4096), maxLine)
	for s.Scan() {
		var v T
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			return errors.New("the line is no message: " + err.Error())
		}
		do(v)
	}
	return s.Err()
}
