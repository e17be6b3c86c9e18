package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"giggle/fault"
)

// What one git process may take.
const (
	memory      = 2 << 20 // KiB of address space
	cpuTime     = 600     // seconds
	waitDelay   = 5 * time.Second
	smallOutput = 1 << 20  // bytes
	largeOutput = 64 << 20 // bytes, for lists of refs and files
)

// limited starts git under the limits; they hold for its children too. When memory is short, the kernel shall take them
// before the platform.
var limited = fmt.Sprintf(`{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null; ulimit -v %d -t %d 2>/dev/null || { ulimit -v %d; ulimit -t %d; }; exec git "$@"`, memory, cpuTime, memory, cpuTime)

// config is all the configuration that git reads, for every command.
func (g *Repos) config() []string {
	return []string{
		"core.hooksPath=/dev/null",
		"safe.directory=*", // another user may have made the data directory; we run as the platform
		"receive.fsckObjects=true", "transfer.fsckObjects=true",
		"receive.maxInputSize=" + strconv.FormatInt(g.cfg.MaxInput, 10),
		"receive.unpackLimit=1", // packs are kept as packs: one file each, and synced to disk
		"receive.autogc=false", "gc.auto=0", "maintenance.auto=false",
		"receive.advertisePushOptions=false", "receive.denyDeleteCurrent=warn",
		"uploadpack.allowFilter=true", "uploadpack.allowReachableSHA1InWant=true", "uploadpackfilter.allow=true",
		// Memory stays small whatever the size of a file or pack.
		"core.bigFileThreshold=16m", "core.packedGitWindowSize=16m", "core.packedGitLimit=128m",
		"core.deltaBaseCacheLimit=32m",
		"pack.threads=1", "pack.windowMemory=32m", "pack.deltaCacheSize=32m", "pack.writeReverseIndex=false",
		"protocol.allow=never", "protocol." + g.cfg.Protocol + ".allow=always",
		"http.followRedirects=initial",
	}
}

// command is a git process with an empty environment.
func (g *Repos) command(ctx context.Context, dir string, env []string, args ...string) *exec.Cmd {
	all := []string{"-c", limited, "git"}
	for _, kv := range g.config() {
		all = append(all, "-c", kv)
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append(all, args...)...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false",
	}, env...)
	if dir != "" {
		cmd.Env = append(cmd.Env, "GIT_DIR="+dir)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and what it has started
	cmd.WaitDelay = waitDelay
	return cmd
}

// errTooMuch is output over the limit.
var errTooMuch = errors.New("too much output")

// capped keeps what is written to it up to a limit.
type capped struct {
	kept bytes.Buffer // not embedded: its ReadFrom knows no limit
	left int
}

func (c *capped) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		return 0, errTooMuch
	}
	return c.kept.Write(b)
}

// tail keeps the first of what git complains about.
type tail struct{ kept bytes.Buffer }

func (t *tail) Write(b []byte) (int, error) {
	if room := 4096 - t.kept.Len(); room > 0 {
		_, _ = t.kept.Write(b[:min(room, len(b))]) // never fails
	}
	return len(b), nil
}

// output runs git and returns what it prints, at most limit bytes.
func (g *Repos) output(ctx context.Context, dir string, limit int, args ...string) ([]byte, error) {
	out := &capped{left: limit}
	err := g.stream(ctx, dir, nil, nil, out, args...)
	return out.kept.Bytes(), err
}

// stream runs git between a reader and a writer.
func (g *Repos) stream(
	ctx context.Context, dir string, env []string, in io.Reader, out io.Writer, args ...string,
) error {
	cmd := g.command(ctx, dir, env, args...)
	complaint := &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, complaint
	// Pdeathsig is sent when the thread that started the process ends (prctl(2), PR_SET_PDEATHSIG): this one stays as
	// long.
	runtime.LockOSThread()
	err := cmd.Run()
	runtime.UnlockOSThread()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := fault.New(fault.Internal, "git %s failed.", args[0])
	e.Cause = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.kept.String()))
	return e
}

// exitCode is the status that a command of stream ended with, or -1.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
