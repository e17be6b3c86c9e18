package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/engine"
)

// lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func script(
	t *testing.T, e *engine.Engine, dir, text string, change func(*engine.DaemonSpec),
) (*engine.Daemon, *lockedBuffer) {
	t.Helper()
	out := &lockedBuffer{}
	s := engine.DaemonSpec{
		ID:     "test",
		Args:   []string{"/bin/sh", "-c", text},
		Env:    []string{"PATH=/usr/bin:/bin"},
		Dir:    dir,
		Output: out,
	}
	if change != nil {
		change(&s)
	}
	d, err := e.Daemon(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d, out
}

// A daemon is root among users of its own, in a file system that has little of the host's.
func TestDaemonIsAStranger(t *testing.T) {
	e, dir := open(t, ""), t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, out := script(t, e, dir, `
id -u; cat /proc/self/uid_map; echo pid $$
echo mine >/state/file && chown 1000:2000 /state/file && touch /state/roots && stat -c %u:%g /state/file
for p in /root /home /etc/passwd /etc/shadow /var/tmp `+secret+`; do test -e $p && echo sees $p; done
echo x 2>/dev/null >/usr/bin/x && echo writes /usr
mknod /state/zero c 1 5 2>/dev/null && echo makes devices
mkdir /sys/fs/cgroup/pids/mine 2>/dev/null && echo makes groups
ls /sys/class/net /opt/giggle; cat /etc/given
mount -t tmpfs none /tmp && echo mounts in its own
echo end`, func(s *engine.DaemonSpec) {
		s.Programs = map[string]string{"tool": "/bin/true"}
		s.Files = []engine.File{{Path: "/etc/given", Data: []byte("this\n")}}
	})
	<-d.Done()
	if err := d.Stop(0); err != nil {
		t.Error(err)
	}
	text := out.String()
	for _, bad := range []string{"sees", "writes", "makes"} {
		if strings.Contains(text, bad) {
			t.Errorf("the daemon %s", bad)
		}
	}
	for _, want := range []string{"pid 1\n", "1000:2000\n", "this\n", "lo\n", "tool\n", "mounts in its own\n",
		"end\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for name, want := range map[string][2]uint32{"file": {1000, 2000}, "roots": {0, 0}} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || ownerOf(st) != want {
			t.Errorf("%s on the host: %v, %v, want %v", name, st, err, want)
		}
	}
	if f := strings.Fields(text); len(f) < 4 || f[0] != "0" || f[1] != "0" || f[2] == "0" {
		t.Error("its root is the host's")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Limits hold for a daemon, and for all together.
func TestDaemonLimits(t *testing.T) {
	e := open(t, "")
	const forks = `n=0; while [ $n -lt 60 ]; do sleep 600 & n=$((n+1)); done; echo $n are there`
	d, out := script(t, e, t.TempDir(), forks,
		func(s *engine.DaemonSpec) { s.Whole, s.All = engine.Limits{Pids: 30}, engine.Limits{Pids: 200} })
	<-d.Done()
	if err := d.Stop(0); err != nil {
		t.Error(err)
	}
	if strings.Contains(out.String(), "60 are there") {
		t.Error("60 processes within a limit of 30")
	}
	first, _ := script(t, e, t.TempDir(), forks+"; wait",
		func(s *engine.DaemonSpec) { s.All = engine.Limits{Pids: 80} })
	second, _ := script(t, e, t.TempDir(), forks,
		func(s *engine.DaemonSpec) { s.ID, s.All = "other", engine.Limits{Pids: 80} })
	select {
	case <-second.Done():
	case <-first.Done():
	case <-time.After(time.Minute):
		t.Error("120 processes within a limit of 80 for both")
	}
	for _, d := range []*engine.Daemon{first, second} {
		if err := d.Stop(0); err != nil {
			t.Error(err)
		}
	}
}

// victimOfDaemon is a platform with a daemon, that will be killed.
func victimOfDaemon(dir string) {
	e, err := engine.Open(context.Background(), engine.Config{Dir: dir, Log: slog.Default()})
	if err == nil {
		_, err = e.Daemon(context.Background(), engine.DaemonSpec{
			ID: "test",
			Args: []string{"/bin/sh", "-c",
				"(setsid sleep 987654 &) ; sleep 987654 & echo ready; trap '' TERM; wait"},
			Env:    []string{"PATH=/usr/bin:/bin"},
			Dir:    os.Getenv("GIGGLE_TEST_LAYER"),
			Output: os.Stdout,
		})
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	select {}
}

// A daemon and all that it has started, wherever they have gone, end at once with a platform that is killed.
func TestDaemonDiesWithPlatform(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GIGGLE_TEST_DAEMON="+dir, "GIGGLE_TEST_LAYER="+t.TempDir())
	out := &lockedBuffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sleepers := func() (pids []int) {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range all {
			if b, _ := os.ReadFile(p); string(b) == "sleep\x00987654\x00" {
				pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
				pids = append(pids, pid)
			}
		}
		return pids
	}
	wait := func(n int) []int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			got := sleepers()
			if len(got) == n {
				return got
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%d processes sleep, want %d: %s", len(got), n, out)
			}
		}
	}
	wait(2)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(0)
	_ = cmd.Wait() // it was killed
	e := openIn(t, dir, "")
	d, again := script(t, e, t.TempDir(), "echo again", nil)
	<-d.Done()
	if err := d.Stop(0); err != nil || again.String() != "again\n" {
		t.Errorf("afterwards: %v, %q", err, again)
	}
}
