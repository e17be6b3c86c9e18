package bench

import (
	"context"
	_ "embed" // for the source of the hello service
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"giggle/bench/demo"
	"giggle/builds/buildpack"
)

//go:embed testdata/hello/main.go
var hello string

// writeHello writes the source of the hello service, whose one changed line has the number.
func writeHello(dir string, number int) (string, error) {
	src, err := os.MkdirTemp(dir, "src-")
	if err != nil {
		return "", err
	}
	text := strings.Replace(hello, "hello 0", "hello "+strconv.Itoa(number), 1)
	return src, errors.Join(
		os.WriteFile(filepath.Join(src, "main.go"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(src, "go.mod"), []byte("module hello\n\ngo 1.26\n"), 0o644),
	)
}

// upReady measures from the start of the process until the socket answers.
func upReady(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(p *platform, _ *demo.Client) error {
		var s series
		for range r.n {
			if err := p.stop(); err != nil {
				return err
			}
			start := time.Now()
			next, err := r.launch(ctx, p.data)
			if err != nil {
				return err
			}
			s = append(s, time.Since(start))
			*p = *next
			if err := p.until(ctx, zero(1)); err != nil { // what it does after that is not in the next one's way
				return err
			}
		}
		r.times("up_ready", s, "", nil, goal{p50: 300})
		return nil
	})
}

// idleMemory measures a platform that was just started and has one service, at zero.
func idleMemory(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(p *platform, _ *demo.Client) error {
		if err := p.stop(); err != nil {
			return err
		}
		next, err := r.launch(ctx, p.data)
		if err != nil {
			return err
		}
		*p = *next
		if err := p.until(ctx, zero(1)); err != nil {
			return err
		}
		var rss, anonymous, prepared []float64
		for range r.n {
			m, err := memory(p.cmd.Process.Pid)
			if err != nil {
				return err
			}
			rss, anonymous = append(rss, m.rss), append(anonymous, m.anonymous)
			inner, err := children(p.cmd.Process.Pid)
			if err != nil {
				return err
			}
			for _, pid := range inner {
				if m, err := memory(pid); err == nil { // one may have ended
					prepared = append(prepared, m.anonymous)
				}
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
		r.megabytes("idle_rss", anonymous, 60, "anonymous ≤ 60 MB")
		r.megabytes("idle_rss_total", rss, 0, "")
		r.megabytes("idle_prepared", prepared, 0, "")
		return nil
	})
}

// usage is what a process uses, in MB.
type usage struct{ rss, anonymous float64 }

// memory reads /proc/PID/smaps_rollup (proc_pid_smaps(5)).
func memory(pid int) (usage, error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	var out usage
	for key, to := range map[string]*float64{"Rss": &out.rss, "Anonymous": &out.anonymous} {
		kb, err := strconv.ParseFloat(strings.TrimSuffix(field(file, key), " kB"), 64)
		if err != nil {
			return usage{}, fmt.Errorf("%s: %s: %w", file, key, err)
		}
		*to = kb / 1024
	}
	return out, nil
}

// children lists the processes that a process is the parent of: the prepared containers, which it adopted.
func children(pid int) ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, file := range all {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; the name may hold anything
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(rest) > 1 && rest[1] == strconv.Itoa(pid) {
			if id, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				out = append(out, id)
			}
		}
	}
	return out, nil
}

// numbers is a figure of values that are no times.
func numbers(name, unit string, values []float64) Result {
	s := make(series, len(values))
	for i, v := range values {
		s[i] = time.Duration(v * float64(time.Millisecond)) // a series' quantiles are in thousandths of a millisecond
	}
	res := Result{
		Name: name,
		Unit: unit,
		N:    len(s),
		P50:  s.quantile(0.5),
		P95:  s.quantile(0.95),
		P99:  s.quantile(0.99),
		Met:  true,
	}
	res.Value = res.P50
	return res
}

func median(values []float64) float64 { return numbers("", "", values).P50 }

func (r *run) megabytes(name string, values []float64, limit float64, goal string) {
	res := numbers(name, "MB", values)
	res.Goal, res.Met = goal, limit == 0 || res.Value <= limit
	r.results = append(r.results, res)
}

// deployReady measures new revisions of a service, of an image that is there.
func deployReady(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(_ *platform, c *demo.Client) error {
		var s series
		for range r.n {
			start := time.Now()
			if _, err := c.Deploy(ctx, "hello", r.image, nil); err != nil {
				return err
			}
			s = append(s, time.Since(start))
		}
		r.times("deploy_ready", s, "", nil, goal{p50: 500})
		return nil
	})
}

// settleTime lets the machine do what a stopped container leaves to do, before the next shot.
const settleTime = 30 * time.Millisecond

// cold measures the first request to a service at zero, and the bare runtime beside it.
func (r *run) cold(ctx context.Context, prepared int, name, shot, baseline string, g goal) error {
	bare, err := r.startBare(ctx)
	if err != nil {
		return err
	}
	var s, base series
	flags := []string{"--idle", "40ms", "--prepared", strconv.Itoa(prepared)}
	err = r.withHello(ctx, flags, func(p *platform, c *demo.Client) error {
		for range r.n {
			if err := p.until(ctx, zero(prepared)); err != nil {
				return err
			}
			if err := pause(ctx, settleTime); err != nil {
				return err
			}
			start := time.Now()
			if _, err := c.Get(ctx, r.url); err != nil {
				return err
			}
			s = append(s, time.Since(start))
			if err := p.until(ctx, zero(prepared)); err != nil {
				return err
			}
			took, err := bare.shots(shot, 1)
			if err != nil {
				return err
			}
			base = append(base, took...)
		}
		return nil
	})
	if err := errors.Join(err, bare.stop()); err != nil {
		return err
	}
	r.times(name, s, baseline, base, g)
	return nil
}

func coldPrepared(ctx context.Context, r *run) error {
	return r.cold(ctx, 1, "cold_prepared", "start", "bare start", goal{15, 30, 1.5})
}

func coldUnprepared(ctx context.Context, r *run) error {
	return r.cold(ctx, 0, "cold_unprepared", "run", "bare run", goal{60, 100, 1.2})
}

// sourceBuild measures builds of a source with one line changed, and the go command with the same change beside it.
func sourceBuild(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(_ *platform, c *demo.Client) error {
		if _, err := r.goBuild(ctx, filepath.Join(r.dir, "hello"), 0); err != nil {
			return err
		}
		var s, base series
		for n := 1; n <= r.n; n++ {
			src, err := uploadHello(ctx, c, r.dir, n)
			if err != nil {
				return err
			}
			start := time.Now()
			if _, err := c.Build(ctx, src, "hello"); err != nil {
				return err
			}
			s = append(s, time.Since(start))
			took, err := r.goBuild(ctx, filepath.Join(r.dir, "hello"), n)
			if err != nil {
				return err
			}
			base = append(base, took)
		}
		r.times("source_build", s, "go build", base, goal{p50: 1000})
		return nil
	})
}

// goBuild compiles the hello service with the machine's own toolchain, as the builder does, and says how long it took.
func (r *run) goBuild(ctx context.Context, out string, number int) (_ time.Duration, err error) {
	src, err := writeHello(r.dir, number)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "-ldflags=-s -w", ".")
	cmd.Dir, cmd.Env = src, append(slices.Clone(r.cfg.Environ),
		append(buildpack.GoEnv(), "GOCACHE="+filepath.Join(r.dir, "go-build"))...)
	start := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, text)
	}
	return time.Since(start), nil
}

// pause waits, or ends early with ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
