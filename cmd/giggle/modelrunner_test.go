package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A model's process is at work before what only the platform needs is initialised; the runtime says what was
// (GODEBUG=inittrace=1). An import that changed the order would cost each first token some 60 ms.
func TestModelRunnerStartsEarly(t *testing.T) {
	cmd := exec.Command(binary, "model-runner")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace strings.Builder
	cmd.Stderr = &trace
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != `{"id":0}` { // the model is loaded
		t.Fatalf("%v, %q", err, out)
	}
	if !strings.Contains(trace.String(), "init giggle/vertex/embedded @") {
		t.Fatalf("the runtime traced nothing: %s", trace.String())
	}
	early(t, trace.String())
	if out, err := exec.Command(binary, "model-runner", "more").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "takes no arguments") {
		t.Errorf("%v, %s", err, out)
	}
}

// So it is with what unpacks a source, once in each build.
func TestUnpackerStartsEarly(t *testing.T) {
	cmd := exec.Command(binary, "source-unpacker", "no job")
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	trace, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(trace), "init giggle/builds/source @") {
		t.Fatalf("%v, %s", err, trace)
	}
	early(t, string(trace))
}

// early fails where something heavy was initialised.
func early(t *testing.T, trace string) {
	t.Helper()
	for line := range strings.Lines(trace) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "init "), " @")
		for _, heavy := range []string{"google.golang.org/grpc", "cloud.google.com/", "giggle/api/", "giggle/builds",
			"giggle/git", "modernc.org/sqlite", "net/http"} {
			if name == heavy || strings.HasPrefix(name, heavy) && strings.HasSuffix(heavy, "/") {
				t.Errorf("%s is initialised before", name)
			}
		}
	}
}
