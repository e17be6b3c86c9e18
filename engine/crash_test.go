package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// victim is a platform that will be killed: it runs an instance, prepares two more, prints their pids, and stays.
func victim(dir string) {
	check := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	e, err := engine.Open(context.Background(), engine.Config{Dir: dir, Log: slog.Default()})
	check(err)
	for id, disk := range map[string]bool{"running": false, "on disk": true, "prepared": false} {
		i, err := e.Prepare(context.Background(), engine.Spec{
			ID:     id,
			Layers: []string{os.Getenv("GIGGLE_TEST_LAYER")},
			Args:   []string{"/app", "deaf"},
			Memory: 64 << 20,
			Disk:   disk,
		})
		check(err)
		if id != "prepared" {
			check(i.Start(context.Background()))
		}
		fmt.Println(i.PID())
	}
	fmt.Println("ready")
	select {}
}

// What a platform killed with -9 leaves is gone when the next one is open; nothing of another platform is touched.
func TestKilledPlatform(t *testing.T) {
	other := open(t, "")
	bystander := start(t, other, serving("bystander"))

	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GIGGLE_TEST_VICTIM="+dir, "GIGGLE_TEST_LAYER="+layer)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []string
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		if strings.HasPrefix(lines.Text(), "error") {
			t.Error(lines.Text())
		}
		pids = append(pids, lines.Text())
	}
	if _, err := engine.Open(t.Context(), engine.Config{Dir: dir}); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a second engine on the same directory: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if len(pids) != 3 {
		t.Fatalf("the platform printed %q", pids)
	}
	for _, pid := range pids {
		if !alive(pid) {
			t.Errorf("process %s should have outlived its platform: this test would prove nothing", pid)
		}
	}

	begin := time.Now()
	e := openIn(t, dir, "")
	t.Logf("open again, reaping included: %v", time.Since(begin))
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %s is still there", pid)
		}
	}
	if got, text := run(t, e, engine.Spec{Args: []string{"/app", "exit", "0"}}); got.Code != 0 {
		t.Errorf("after reaping: %+v %s", got, text)
	}
	if got := mustGet(t, bystander, "/"); got != "hello" {
		t.Errorf("the other platform's instance answers %q", got)
	}
}

// alive reports whether a process is there and no zombie.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// Closing an engine ends what runs, and refuses what comes after.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	e, err := engine.Open(t.Context(), engine.Config{Dir: dir, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	i := start(t, e, serving("left"))
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-i.Done():
	default:
		t.Error("Close left an instance running")
	}
	traces(t, dir)
	s := serving("late")
	s.Layers = []string{layer}
	if _, err := e.Prepare(t.Context(), s); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Prepare after Close: %v", err)
	}
}

func TestNoRuntime(t *testing.T) {
	script := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho not really a runtime\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, runtime := range []string{"/bin/true", script, "nowhere-to-be-found", "/nowhere"} {
		dir := t.TempDir()
		_, err := engine.Open(t.Context(),
			engine.Config{Dir: dir, Runtime: runtime, Log: slog.New(slog.DiscardHandler)})
		if !fault.Is(err, fault.FailedPrecondition) || !strings.Contains(err.Error(), runtime) {
			t.Errorf("%s: %v", runtime, err)
		}
		traces(t, dir)
	}
}

// A script around a runtime works too: it is executed as it is.
func TestRuntimeScript(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		name, _, _ := strings.Cut(e.Runtime(), " ")
		script := filepath.Join(t.TempDir(), "wrapper")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+name+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		wrapped := open(t, script)
		if got := mustGet(t, start(t, wrapped, serving("wrapped")), "/"); got != "hello" ||
			wrapped.Runtime() != e.Runtime() {
			t.Errorf("%s: %q", wrapped.Runtime(), got)
		}
	})
}

// On a file system that can't be idmapped the message says what to do.
func TestNoIdmap(t *testing.T) {
	dir := t.TempDir()
	lower, at := filepath.Join(dir, "lower"), filepath.Join(dir, "overlay")
	for _, d := range []string{lower, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := syscall.Mount("overlay", at, "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(at, 0)
	if _, err := engine.Open(t.Context(),
		engine.Config{Dir: at, Log: slog.Default()}); !fault.Is(err, fault.FailedPrecondition) ||
		!strings.Contains(err.Error(), "ext4") {
		t.Errorf("got %v", err)
	}
	traces(t, at)
}

// The containers' standard files are theirs alone: crun hands them to the container's root.
func TestHostDevicesKeepTheirOwner(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		s := serving("devices")
		s.User = "joker"
		mustGet(t, start(t, e, s), "/")
		for _, dev := range []string{"/dev/null", "/dev/zero", "/dev/tty", "/dev/urandom"} {
			st, err := os.Stat(dev)
			if err != nil {
				t.Fatal(err)
			}
			if owner := ownerOf(st); owner[0] != 0 {
				t.Errorf("%s belongs to %v now", dev, owner)
			}
		}
	})
}

// Callers that give up midway leave nothing.
func TestCancelledPrepare(t *testing.T) {
	e := open(t, "")
	for k := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(k)*2*time.Millisecond)
		s := serving("cancelled")
		s.Layers = []string{layer}
		if i, err := e.Prepare(ctx, s); err == nil {
			i.Stop(context.Background(), 0)
		}
		cancel()
	}
}
