package local_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/gateway"
	"giggle/gateway/upstream"
	"giggle/run"
	"giggle/run/scale"
)

// scaler runs the world's containers as the platform does.
func (w *world) scaler(t *testing.T) *scale.Scaler {
	t.Helper()
	return w.scalerWith(t, run.GPUs{})
}

func (w *world) scalerWith(t *testing.T, gpus run.GPUs) *scale.Scaler {
	t.Helper()
	s := scale.New(scale.Config{
		Backend:   remembering{w},
		Max:       3,
		GPUs:      gpus,
		Idle:      time.Hour,
		Starts:    2,
		Transport: gateway.Transport,
		Probe:     upstream.Probe,
		Now:       time.Now,
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// remembering is the backend, of which the world remembers what it made.
type remembering struct{ *world }

func (r remembering) Prepare(ctx context.Context, rev run.Revision, gpu *run.GPU) (scale.Instance, error) {
	i, err := r.Backend.Prepare(ctx, rev, gpu)
	if err == nil {
		r.made.Store(i.ID(), i)
	}
	return i, err
}

// serving is a revision of the test application.
func (w *world) serving(t testing.TB, command string, change func(*run.Template)) run.Revision {
	t.Helper()
	rev := w.revision(t, v1.Config{Entrypoint: []string{"/app", command}}, nil)
	if change != nil {
		change(&rev.Template)
	}
	rev.Template = rev.Template.WithDefaults("")
	return rev
}

// ask sends one request through a lease, and returns what was answered and by which instance.
func ask(t *testing.T, s *scale.Scaler, rev run.Revision, path string) (text, instance string) {
	t.Helper()
	l, err := s.Acquire(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	text, err = send(t.Context(), l, path)
	if err != nil {
		t.Fatal(err)
	}
	return text, l.Instance
}

func send(ctx context.Context, l *scale.Lease, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := l.Transport.(http.RoundTripper).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// said is the text of a revision's log.
func (w *world) said(rev run.Revision) string {
	var out []string
	for _, l := range w.written(rev) {
		out = append(out, l.Severity.String()+": "+l.Text)
	}
	return strings.Join(out, "\n")
}

// An instance that goes on computing after its answer has next to no CPU for it, and a request finds it with all of
// its CPU; one with CPU always allocated goes on.
func TestThrottledBetweenRequests(t *testing.T) {
	w := newWorld(t)
	s := w.scaler(t)
	rev := w.serving(t, "serve", nil)
	used := func(id string) time.Duration {
		i, _ := w.made.Load(id)
		u, err := i.(scale.Instance).Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.CPU
	}
	_, id := ask(t, s, rev, "/background")
	pause := func(d time.Duration) {
		end := time.Now().Add(d)
		until(t, func() (string, bool) { return "", time.Now().After(end) })
	}
	pause(time.Second) // it is throttled by then
	begin, before, billed := time.Now(), used(id), s.Stats()[0].Billable
	pause(4 * time.Second)
	if got := s.Stats()[0].Billable - billed; got > 2*time.Second {
		t.Errorf("4 s without a request were billed as %v", got)
	}
	if share := float64(used(id)-before) / float64(time.Since(begin)); share >= 0.02 || share == 0 {
		t.Errorf("an idle instance that spins uses %.2f %% of a core", 100*share)
	}
	before = used(id)
	ask(t, s, rev, "/spin?more=300ms")
	if got := used(id) - before; got < 250*time.Millisecond {
		t.Errorf("a request that needs 300 ms of CPU had %v", got)
	}
	always := w.serving(t, "serve", func(t *run.Template) { t.CPUAlways = true })
	always.Name.ID = "jokes-00002-abc"
	_, id = ask(t, s, always, "/background")
	pause(time.Second)
	before = used(id)
	until(t, func() (string, bool) { u := used(id) - before; return u.String(), u > 500*time.Millisecond })
}

// What an instance writes at its end is computed with all of its CPU, and requests end first.
func TestShutdown(t *testing.T) {
	w := newWorld(t)
	s := w.scaler(t)
	rev := w.serving(t, "drain", nil)
	ask(t, s, rev, "/")
	l, err := s.Acquire(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error)
	go func() {
		_, err := send(t.Context(), l, "/spin?more=600ms")
		if strings.Contains(w.said(rev), "draining") {
			err = fmt.Errorf("it was told to shut down during a request (%v)", err)
		}
		l.Release()
		answered <- err
	}()
	s.Drop(rev.Name)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	until(t, func() (string, bool) { got := w.said(rev); return got, strings.Contains(got, "drained") })
	if got := w.said(rev); strings.Contains(got, "Container") {
		t.Errorf("a container that was told to end is reported: %s", got)
	}
}

func TestOutOfMemory(t *testing.T) {
	w := newWorld(t)
	s := w.scaler(t)
	rev := w.serving(t, "serve", nil)
	l, err := s.Acquire(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), l, "/eat?bytes=200000000"); err == nil {
		t.Error("200 MB fit into 64 MiB")
	}
	l.Release()
	const want = "ERROR: Memory limit of 64 MiB exceeded with 64 MiB used. Consider increasing the memory limit, see https://cloud.google.com/run/docs/configuring/memory-limits"
	until(t, func() (string, bool) { got := w.said(rev); return got, strings.Contains(got, want) })
	until(t, func() (string, bool) { got := fmt.Sprint(s.Stats()); return got, s.Stats()[0].OOMs == 1 })
	if got, _ := ask(t, s, rev, "/"); got != "hello" {
		t.Errorf("the next request = %q", got)
	}
}

func TestLivenessOfAContainer(t *testing.T) {
	w := newWorld(t)
	s := w.scaler(t)
	rev := w.serving(t, "serve", func(t *run.Template) {
		t.Containers[0].Startup = &run.Probe{HTTPPath: "/alive"}
		t.Containers[0].Liveness = &run.Probe{HTTPPath: "/alive", Period: 1, FailureThreshold: 2}
	})
	_, first := ask(t, s, rev, "/sicken")
	until(t, func() (string, bool) {
		got := w.said(rev)
		return got, strings.Contains(got,
			`LIVENESS HTTP probe failed 2 times consecutively for container "jokes-1" on port 8080 path "/alive". The instance has been shut down.`) &&
			strings.Contains(got,
				`STARTUP HTTP probe succeeded after 1 attempt for container "jokes-1" on port 8080 path "/alive".`)
	})
	if _, second := ask(t, s, rev, "/"); second == first {
		t.Error("the instance that was shut down still serves")
	}
}

func TestStartupBoostOfAContainer(t *testing.T) {
	w := newWorld(t)
	s := w.scaler(t)
	rev := w.serving(t, "serve",
		func(t *run.Template) { t.StartupCPUBoost, t.Containers[0].CPU, t.Concurrency = true, "0.1", 1 })
	for _, want := range []string{"200000", "10000"} { // µs of each 100 ms: two cores, then a tenth of one
		until(t, func() (string, bool) {
			// The container's own view of its group; on a machine with cgroups v2 the file is another.
			got, _ := ask(t, s, rev, "/read?path=/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
			if !strings.HasSuffix(got, "\n") || strings.Contains(got, "no such") {
				got, _ = ask(t, s, rev, "/read?path=/sys/fs/cgroup/cpu.max")
			}
			return got, strings.HasPrefix(got, want)
		})
	}
}
