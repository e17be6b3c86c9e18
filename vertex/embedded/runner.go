package embedded

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"giggle/fault"
	"giggle/vertex/llama"
)

// Parallel is how many calls are served at once. The others wait, the first first.
const Parallel = 4

// Config is what a Runner needs.
type Config struct {
	Binary string   // the program to start
	Args   []string // its arguments: the command that calls Serve
	Model  string   // path of a GGUF file, given as --model; "" for the built-in model
	Name   string   // what the model of the file is called; "" for the file's own name
	Idle   time.Duration
	Log    *slog.Logger
	Now    func() time.Time
}

// Prompt is a conversation that the model shall continue.
type Prompt struct {
	Turns    []Turn
	Sampling llama.Sampling // Seed 0: another one for each call
}

// Runner is a model in a process of its own, which is only there while it is used. It is safe for concurrent use.
type Runner struct {
	config Config
	slots  *semaphore.Weighted

	mu     sync.Mutex
	child  *child
	busy   int // calls that use the child
	idle   *time.Timer
	closed bool
}

// New returns a runner. Nothing is started yet.
func New(c Config) *Runner { return &Runner{config: c, slots: semaphore.NewWeighted(Parallel)} }

// Name is what the model is called.
func (r *Runner) Name() string {
	switch {
	case r.config.Model == "":
		return Name
	case r.config.Name != "":
		return r.config.Name
	}
	return strings.TrimSuffix(filepath.Base(r.config.Model), ".gguf")
}

// Generate continues a conversation and gives emit the text as it comes, in whole characters. Faults: InvalidArgument
// for a prompt that is too long or broken, Unavailable when the process ends meanwhile (before the first text: twice).
// An error of emit ends the call and is returned; so does the end of ctx.
func (r *Runner) Generate(ctx context.Context, p Prompt, emit func(text string) error) (_ llama.Result, err error) {
	defer fault.Wrap(&err, "embedded.Generate")
	if p.Sampling.Seed == 0 {
		p.Sampling.Seed = rand.Int64()
	}
	return r.call(ctx, request{Do: doGenerate, Turns: p.Turns, Sampling: p.Sampling}, emit)
}

// Count returns the number of tokens that a conversation has as a prompt, the marks of its turns included.
func (r *Runner) Count(ctx context.Context, turns []Turn) (_ int, err error) {
	defer fault.Wrap(&err, "embedded.Count")
	res, err := r.call(ctx, request{Do: doCount, Turns: turns}, nil)
	return res.PromptTokens, err
}

// Close ends the process, and with it the calls that it serves.
func (r *Runner) Close() error {
	r.mu.Lock()
	r.closed = true
	c := r.child
	r.child = nil
	if r.idle != nil {
		r.idle.Stop()
	}
	r.mu.Unlock()
	if c != nil {
		c.stop()
	}
	return nil
}

func (r *Runner) call(ctx context.Context, req request, emit func(string) error) (llama.Result, error) {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return llama.Result{}, err
	}
	defer r.slots.Release(1)
	begun := false
	res, err := r.try(ctx, req, func(text string) error { begun = true; return emit(text) })
	if errors.Is(err, errEnded) && !begun { // nobody has seen any of it: another process gets the request, once
		res, err = r.try(ctx, req, emit)
	}
	return res, err
}

func (r *Runner) try(ctx context.Context, req request, emit func(string) error) (llama.Result, error) {
	c, err := r.acquire()
	if err != nil {
		return llama.Result{}, err
	}
	defer r.release()
	select {
	case <-c.ready:
	case <-ctx.Done():
		return llama.Result{}, ctx.Err()
	}
	id, call, err := c.begin(req)
	if err != nil {
		return llama.Result{}, err
	}
	defer c.forget(id)
	for {
		select {
		case <-ctx.Done():
			c.cancel(id)
			return llama.Result{}, ctx.Err()
		case <-call.some:
		}
		for _, got := range call.take() {
			switch {
			case got.Error != nil:
				return llama.Result{}, got.Error.fault()
			case got.Done != nil:
				return *got.Done, nil
			}
			if err := emit(got.Text); err != nil {
				c.cancel(id)
				return llama.Result{}, err
			}
		}
	}
}

// cancel tells the child that nobody waits for the answer any more. A child that does not read is killed by begin.
func (c *child) cancel(id uint64) {
	c.forget(id)
	_ = c.to.write(request{ID: id, Do: doCancel})
}

// acquire returns the child, which is started if there is none that lives.
func (r *Runner) acquire() (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fault.New(fault.Unavailable, "the model is being closed")
	}
	if r.child != nil && r.child.broken() != nil {
		r.config.Log.Warn("the model's process ended", "model", r.Name(), "error", r.child.broken())
		go r.child.stop() // it may still be there
		r.child = nil
	}
	if r.child == nil {
		args := r.config.Args
		if r.config.Model != "" {
			args = append(args[:len(args):len(args)], "--model", r.config.Model)
		}
		began := r.config.Now()
		c, err := start(r.config.Binary, args)
		if err != nil {
			return nil, err
		}
		r.child = c
		r.config.Log.Info("the model's process was started", "model", r.Name(), "pid", c.cmd.Process.Pid, "took",
			r.config.Now().Sub(began))
	}
	r.busy++
	if r.idle != nil {
		r.idle.Stop()
	}
	return r.child, nil
}

// release ends a call's use of the child. After the last one the time until it is ended begins.
func (r *Runner) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy--; r.busy > 0 || r.child == nil || r.closed {
		return
	}
	r.idle = time.AfterFunc(r.config.Idle, r.rest)
}

// rest ends the child if it is not in use.
func (r *Runner) rest() {
	r.mu.Lock()
	c := r.child
	if r.busy > 0 || c == nil {
		r.mu.Unlock()
		return
	}
	r.child = nil
	r.mu.Unlock()
	c.stop()
	r.config.Log.Info("the model's process was ended: nobody used it", "model", r.Name())
}
