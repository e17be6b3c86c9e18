package embedded

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"giggle/fault"
	"giggle/vertex/llama"
)

// The test's own program is the child, when it is called as giggle would be.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "model-runner":
			model := ""
			if len(os.Args) > 3 {
				model = os.Args[3]
			}
			if err := Serve(context.Background(), model, func(uint64) {}, os.Stdin, os.Stdout); err != nil {
				os.Stderr.WriteString(err.Error())
				os.Exit(1)
			}
			os.Exit(0)
		case "babbler": // is no model at all
			os.Stdout.WriteString("hello\n")
			os.Stdin.Read(make([]byte, 1))
			os.Exit(0)
		case "hungry":
			LimitMemory(baseMemory)
			b := make([]byte, 4*baseMemory)
			for i := range b {
				b[i] = 1
			}
			os.Exit(0)
		case "dead":
			os.Stderr.WriteString("I have no memory")
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

func newRunner(t testing.TB, change func(*Config)) *Runner {
	t.Helper()
	c := Config{
		Binary: os.Args[0],
		Args:   []string{"model-runner"},
		Idle:   time.Hour,
		Log:    slog.New(slog.DiscardHandler),
		Now:    time.Now,
	}
	if change != nil {
		change(&c)
	}
	r := New(c)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// process returns the child that the runner has now.
func (r *Runner) process() *child {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.child
}

func ask(text string) []Turn { return []Turn{{User, text}} }

var greedy = llama.Sampling{MaxTokens: 40}

func TestAnAnswer(t *testing.T) {
	r := newRunner(t, nil)
	var text strings.Builder
	res, err := r.Generate(t.Context(), Prompt{Turns: ask("tell me a joke"), Sampling: greedy}, func(s string) error {
		if s == "" || !utf8.ValidString(s) {
			t.Errorf("%q came", s)
		}
		text.WriteString(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Count(t.Context(), ask("tell me a joke"))
	if err != nil {
		t.Fatal(err)
	}
	if res.PromptTokens != n || res.OutputTokens == 0 || text.Len() == 0 || strings.HasPrefix(text.String(), " ") {
		t.Errorf("%q, %+v; the prompt has %d tokens", text.String(), res, n)
	}
	if more, err := r.Count(t.Context(), append([]Turn{{System, "Be brief."}}, ask("tell me a joke")...)); err != nil ||
		more <= n {
		t.Errorf("with a system instruction it has %d, %v", more, err)
	}
	if r.Name() != "giggle-tiny-1" {
		t.Errorf("it is called %q", r.Name())
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	r := newRunner(t, nil)
	want, err := say(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 * Parallel {
		wg.Go(func() {
			if got, err := say(t.Context(), r); err != nil || got != want {
				t.Errorf("%q, %v; alone it was %q", got, err, want)
			}
		})
	}
	wg.Wait()
}

func say(ctx context.Context, r *Runner) (string, error) {
	var text strings.Builder
	_, err := r.Generate(ctx, Prompt{Turns: ask("tell me a joke about cats"), Sampling: greedy},
		func(s string) error { text.WriteString(s); return nil })
	return text.String(), err
}

func TestWhatIsRefused(t *testing.T) {
	r := newRunner(t, nil)
	for _, test := range []struct {
		name  string
		turns []Turn
		says  string
	}{
		{"a role that there is not", []Turn{{"tool", "x"}}, "tool"},
		{"a prompt longer than the context", ask(strings.Repeat("joke ", 2000)), "512"},
		{"a prompt longer than a line", ask(strings.Repeat("x", maxLine)), "bytes"},
	} {
		_, err := r.Generate(t.Context(), Prompt{Turns: test.turns}, func(string) error { return nil })
		if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument ||
			!strings.Contains(f.Message, test.says) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := say(t.Context(), r); err != nil {
		t.Errorf("after that, a call fails: %v", err)
	}
}

func TestTheEndOfACallIsTheEndOfItsWork(t *testing.T) {
	r := newRunner(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.Generate(ctx, Prompt{
		Turns:    ask("tell me a joke"),
		Sampling: llama.Sampling{Temperature: 1},
	}, func(string) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
	full := errors.New("full")
	_, err = r.Generate(t.Context(), Prompt{Turns: ask("tell me a joke")}, func(string) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("after an error of emit: %v", err)
	}
	if _, err := say(t.Context(), r); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestAChildThatDiesIsStartedAgain(t *testing.T) {
	r := newRunner(t, nil)
	if _, err := say(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c := r.process()
	_, err := r.Generate(t.Context(), Prompt{
		Turns:    ask("tell me a joke"),
		Sampling: llama.Sampling{Temperature: 1},
	}, func(string) error {
		_ = c.cmd.Process.Kill() // at the first piece; then it is gone
		<-c.ended
		return nil
	})
	// What came before the end of the process may be the whole answer.
	if err != nil && fault.From(err).Code != fault.Unavailable {
		t.Errorf("the call in flight: %v", err)
	}
	if _, err := say(t.Context(), r); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if r.process() == c {
		t.Error("it is the same process")
	}
}

// A call that comes while a process dies is no call in flight, whatever of its death was noticed: it gets another
// process.
func TestAChildThatDiesBeforeACall(t *testing.T) {
	r := newRunner(t, nil)
	for range 20 {
		if _, err := say(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := r.process().cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if _, err := say(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		dir := fmt.Sprintf("/proc/%d/", r.process().cmd.Process.Pid)
		if err := r.process().cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // dead with all its threads, so that its pipes are closed, and perhaps not waited for
			b, err := os.ReadFile(dir + "stat")
			threads, _ := os.ReadDir(dir + "task")
			if err != nil || strings.Contains(string(b), ") Z ") && len(threads) == 1 {
				break
			}
		}
	}
	for range 20 { // waited for, and perhaps not told to the calls
		if _, err := say(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		pid := r.process().cmd.Process.Pid
		if err := r.process().cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for syscall.Kill(pid, 0) == nil {
			runtime.Gosched()
		}
	}
}

// A process lives on when a thread of ours ends, whichever it is.
func TestTheEndOfAThread(t *testing.T) {
	r := newRunner(t, nil)
	if _, err := say(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c := r.process()
	for range 100 {
		var threads sync.WaitGroup
		for range 8 { // at once, so that they are several threads
			threads.Go(func() { runtime.LockOSThread() }) // never unlocked: the thread ends
		}
		threads.Wait()
	}
	if _, err := say(t.Context(), r); err != nil || r.process() != c {
		t.Errorf("the process ended: %v", err)
	}
}

// A call that has no part of its answer loses nothing by the end of the process: it gets another one.
func TestACallWithoutAnAnswerGetsAnotherProcess(t *testing.T) {
	r := newRunner(t, nil)
	want, err := say(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	c := r.process()
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // it can't answer any more
		t.Fatal(err)
	}
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer)
	go func() { text, err := say(t.Context(), r); done <- answer{text, err} }()
	for inFlight := 0; inFlight == 0; {
		c.mu.Lock()
		inFlight = len(c.calls)
		c.mu.Unlock()
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.err != nil || got.text != want {
		t.Errorf("%q, %v; want %q", got.text, got.err, want)
	}
	if r.process() == c {
		t.Error("it is the same process")
	}
}

func TestWhenNobodyAsksTheMemoryIsFree(t *testing.T) {
	r := newRunner(t, func(c *Config) { c.Idle = time.Millisecond })
	var first *child
	_, err := r.Generate(t.Context(), Prompt{Turns: ask("tell me a joke"), Sampling: greedy}, func(string) error {
		first = r.process()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-first.ended
	if first.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("it ended with %v", first.cmd.ProcessState)
	}
	if _, err := say(t.Context(), r); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestAfterClose(t *testing.T) {
	r := newRunner(t, nil)
	if _, err := say(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c := r.process()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	<-c.ended
	if _, err := say(t.Context(), r); fault.From(err).Code != fault.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestProgramsThatAreNoModel(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.gguf")
	if err := os.WriteFile(broken, []byte("GGUF\x03\x00\x00\x00 and nothing else"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*Config)
		code   fault.Code
	}{
		{"not there", func(c *Config) { c.Binary = "/nowhere" }, fault.Unavailable},
		{"speaks another language", func(c *Config) { c.Args = []string{"babbler"} }, fault.Unavailable},
		{"ends at once", func(c *Config) { c.Args = []string{"dead"} }, fault.Unavailable},
		{"a file that is broken", func(c *Config) { c.Model = broken }, fault.InvalidArgument},
		{"a file that is not there", func(c *Config) { c.Model = broken + ".not" }, fault.NotFound},
	} {
		r := newRunner(t, test.change)
		for range 2 {
			if _, err := say(t.Context(), r); fault.From(err).Code != test.code {
				t.Errorf("%s: %v", test.name, err)
			}
		}
	}
}

// Memory beyond the limit is the end of the process, not of the machine. (Another limit would be needed for the race
// detector, so that the other tests have none.)
func TestMemoryIsLimited(t *testing.T) {
	cmd := exec.Command(os.Args[0], "hungry")
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 0 {
		t.Errorf("it had more memory than allowed: %v", err)
	}
}

// A message from the child can't make the platform take much memory, nor fail in another way than with an error.
func FuzzScan(f *testing.F) {
	f.Add([]byte("{\"id\":1,\"text\":\"x\"}\n{\"id\":1,\"done\":{}}\n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = scan(strings.NewReader(string(b)), func(reply) { n++ })
		if n > len(b) {
			t.Fatalf("%d messages in %d bytes", n, len(b))
		}
	})
}

var program = flag.String("giggle", "", "the program that the benchmark starts, instead of the test itself")

// The time from a call to the first text, with a process that must be started.
func BenchmarkFirstTokenAfterIdle(b *testing.B) {
	for b.Loop() {
		r := newRunner(b, func(c *Config) {
			if *program != "" {
				c.Binary = *program
			}
		})
		_, err := r.Generate(b.Context(), Prompt{
			Turns:    ask("tell me a terrible dad joke about tech"),
			Sampling: llama.Sampling{MaxTokens: 1},
		}, func(string) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		r.Close()
		b.StartTimer()
	}
}

// The speed of the built-in model in one goroutine, in tokens of an answer.
func BenchmarkTokens(b *testing.B) {
	m, err := llama.Load(weights)
	if err != nil {
		b.Fatal(err)
	}
	ids, err := prompt(m, ask("tell me a terrible dad joke about tech"))
	if err != nil {
		b.Fatal(err)
	}
	tokens := 0
	for b.Loop() {
		res, err := m.Generate(b.Context(), ids, llama.Sampling{Temperature: 1, Seed: int64(tokens), MaxTokens: 100},
			func(string) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		tokens += res.PromptTokens + res.OutputTokens
	}
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := llama.Load(weights); err != nil {
			b.Fatal(err)
		}
	}
}
