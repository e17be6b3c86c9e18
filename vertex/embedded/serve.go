package embedded

import (
	"context"
	_ "embed"
	"io"
	"math"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"giggle/vertex/llama"
)

// Name is what the built-in model is called.
const Name = "giggle-tiny-1"

//go:embed tiny.gguf
var weights []byte

// File returns the bytes of the built-in model's GGUF file. They are not to be changed.
func File() []byte { return weights }

// Serve is the child: it loads the model of a GGUF file (or the built-in one, for ""), answers the requests that it
// reads from in and returns when there are no more. It calls limit with the memory that the process may need at most,
// in bytes: first for loading, then for the model and Parallel texts of full length.
func Serve(ctx context.Context, path string, limit func(bytes uint64), in io.Reader, out io.Writer) error {
	to := &lines{w: out}
	m, err := open(path, limit)
	if err != nil {
		_ = to.write(reply{Error: failed(err)}) // a parent that is gone needs no word
		return err
	}
	if err := to.write(reply{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &server{model: m, out: to, cancels: make(map[uint64]context.CancelFunc)}
	defer s.calls.Wait()
	defer cancel()
	return scan(in, func(r request) { s.take(ctx, r) })
}

// baseMemory is the memory that the process may have beside what the model needs.
const baseMemory = 256 << 20

// open loads the model.
func open(path string, limit func(bytes uint64)) (*llama.Model, error) {
	size := int64(len(weights))
	if path != "" {
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
	}
	// The file's bytes, and for each of them at most one number of four bytes.
	limit(baseMemory + 6*uint64(max(size, 0)))
	var m *llama.Model
	var err error
	if path == "" {
		m, err = llama.Load(weights)
	} else {
		m, err = llama.Open(path)
	}
	if err != nil {
		return nil, err
	}
	limit(baseMemory + 6*uint64(size) + 2*Parallel*uint64(m.TextSize())) // twice: slices that grow are copied
	return m, nil
}

// LimitMemory bounds the writable memory of this process: if it wants more, it ends, and the platform does not. Before
// that, it collects garbage more eagerly.
func LimitMemory(bytes uint64) {
	debug.SetMemoryLimit(int64(min(bytes, math.MaxInt64) / 10 * 9))
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_DATA, &l) == nil {
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: min(bytes, l.Max), Max: l.Max})
	}
}

// server is the calls in progress.
type server struct {
	model *llama.Model
	out   *lines
	calls sync.WaitGroup

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

// take starts what a request asks for.
func (s *server) take(ctx context.Context, r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Do == doCancel {
		if cancel := s.cancels[r.ID]; cancel != nil {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s.cancels[r.ID] = cancel
	s.calls.Go(func() {
		res, err := s.do(ctx, r)
		last := reply{ID: r.ID, Done: &res}
		if err != nil {
			last = reply{ID: r.ID, Error: failed(err)}
		}
		_ = s.out.write(last) // if the parent is gone, the next read ends the process
		s.mu.Lock()
		delete(s.cancels, r.ID)
		s.mu.Unlock()
		cancel()
	})
}

func (s *server) do(ctx context.Context, r request) (llama.Result, error) {
	ids, err := prompt(s.model, r.Turns)
	if err != nil || r.Do == doCount {
		return llama.Result{PromptTokens: len(ids)}, err
	}
	return s.model.Generate(ctx, ids, r.Sampling,
		func(text string) error { return s.out.write(reply{ID: r.ID, Text: text}) })
}
