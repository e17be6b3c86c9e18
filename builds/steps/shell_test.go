package steps_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/builds"
	"giggle/builds/steps"
	"giggle/fault"
)

// screen is what a person sees; it can be waited for.
type screen struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A shell in the step that failed has its workspace, environment and terminal; other builds have none.
func TestShellInAFailedStep(t *testing.T) {
	var now time.Time
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	now = time.Now()
	f := setup(t, func(c *steps.Config) { c.Now = clock })
	if err := f.run(t.Context(), nil, []builds.Step{
		{ID: "first", Script: "echo left >/workspace/left-by-first"},
		{ID: "second", Script: "echo $WHO >/workspace/left-by-second; exit 3", Env: []string{"WHO=me"}, Dir: "sub"},
		{ID: "third", Script: "true"},
	}...); err == nil {
		t.Fatal("the build did not fail")
	}
	for step, code := range map[string]fault.Code{"third": fault.NotFound, "7": fault.NotFound,
		"fourth": fault.NotFound} {
		if _, err := f.runner.OpenShell("b1", step); !fault.Is(err, code) {
			t.Errorf("a shell in step %s: %v", step, err)
		}
	}
	for step, want := range map[string]int{"": 1, "second": 1, "1": 1, "0": 0, "first": 0} {
		s, err := f.runner.OpenShell("b1", step)
		if err != nil || s.Step != want {
			t.Fatalf("a shell in step %q: %+v, %v; want step %d", step, s, err, want)
		}
		s.Close()
	}
	s, err := f.runner.OpenShell("b1", "")
	if err != nil {
		t.Fatal(err)
	}
	see := &screen{changed: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// What is typed ends: the shell reads it all, and the end of input after it.
	err = s.Run(ctx, 40, 123, strings.NewReader("echo who=$WHO in=$PWD $(cat ../left-by-first ../left-by-second); stty size; tty; echo $((6*7))\n"), see)
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"who=me in=/workspace/sub left me", "40 123", "42"} {
		if !strings.Contains(see.String(), want) {
			t.Errorf("the shell does not say %q:\n%s", want, see)
		}
	}
	if ctx.Err() != nil {
		t.Error("the shell did not end with its input")
	}

	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	if _, err := f.runner.OpenShell("b1", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("a shell two hours later: %v", err)
	}
}
