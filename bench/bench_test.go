package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"giggle/api/giggle"
)

func TestQuantiles(t *testing.T) {
	var s series
	for n := 100; n > 0; n-- {
		s = append(s, time.Duration(n)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.95: 95, 0.99: 99, 1: 100, 0.001: 1} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if got := (series{7 * time.Millisecond}).quantile(0.99); got != 7 {
		t.Errorf("of one: %v", got)
	}
	if got := (series{}).quantile(0.5); got != 0 {
		t.Errorf("of none: %v", got)
	}
	if s[0] != 100*time.Millisecond {
		t.Error("the series was sorted in place")
	}
}

func TestGoals(t *testing.T) {
	ms := func(n ...int) (s series) {
		for _, v := range n {
			s = append(s, time.Duration(v)*time.Millisecond)
		}
		return s
	}
	for name, tc := range map[string]struct {
		s, base series
		g       goal
		met     bool
		text    string
	}{
		"all":      {ms(10, 10), ms(8, 8), goal{15, 30, 1.5}, true, "p50 ≤ 15 ms, p95 ≤ 30 ms, ≤ 1.5 × baseline"},
		"p50":      {ms(16, 16), nil, goal{p50: 15}, false, "p50 ≤ 15 ms"},
		"p95":      {ms(1, 31), nil, goal{p95: 30}, false, "p95 ≤ 30 ms"},
		"ratio":    {ms(10), ms(5), goal{ratio: 1.5}, false, "≤ 1.5 × baseline"},
		"no goal":  {ms(10), nil, goal{}, true, ""},
		"at limit": {ms(15), ms(10), goal{15, 15, 1.5}, true, "p50 ≤ 15 ms, p95 ≤ 15 ms, ≤ 1.5 × baseline"},
	} {
		r := &run{}
		r.times("x", tc.s, "bare", tc.base, tc.g)
		if res := r.results[0]; res.Met != tc.met || res.Goal != tc.text {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

// The form that scripts read.
func TestReport(t *testing.T) {
	r := &run{}
	r.times("cold_prepared", series{10 * time.Millisecond, 20 * time.Millisecond}, "bare start",
		series{10 * time.Millisecond}, goal{p50: 15})
	r.megabytes("idle_rss", []float64{61.5}, 60, "anonymous ≤ 60 MB")
	rep := Report{Machine: Machine{CPU: "Z80", CPUs: 1}, Results: r.results}
	b, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Machine map[string]any
		Results []map[string]any
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "unit", "n", "p50", "p95", "p99", "value", "baseline", "baseline_value",
		"ratio", "goal"} {
		if _, ok := got.Results[0][key]; !ok {
			t.Errorf("%q is missing in %s", key, b)
		}
	}
	if got.Results[0]["value"] != 10.0 || got.Results[0]["ratio"] != 1.0 || got.Results[1]["value"] != 61.5 ||
		got.Results[1]["met"] != false {
		t.Errorf("results = %s", b)
	}
	var table bytes.Buffer
	if err := rep.Table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Z80, 1 CPUs", "✓ p50 ≤ 15 ms", "✗ anonymous ≤ 60 MB", "bare start"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &table)
		}
	}
}

func TestSpread(t *testing.T) {
	ms := func(n ...float64) (s series) {
		for _, v := range n {
			s = append(s, time.Duration(v*float64(time.Millisecond)))
		}
		return s
	}
	for name, tc := range map[string]struct {
		s    series
		want string
	}{
		"none":        {nil, ""},
		"fast":        {ms(0.1, 0.9), "0 █ 1 ms"},
		"one":         {ms(5), "4 █ 8 ms"},
		"with a hole": {ms(1, 1, 1, 1, 1, 1, 1, 1.9, 7.9), "1 █ ▁ 8 ms"},
		"bounds":      {ms(1, 2, 4), "1 ███ 8 ms"},
	} {
		if got := spreadOf(tc.s).String(); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

const wrkSays = `Running 1s test @ http://127.0.0.1:8090/
  2 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.14ms    4.10ms  57.62ms   88.62%
    Req/Sec    12.67k     2.29k   18.88k    70.00%
  Latency Distribution
     50%    1.63ms
     75%    3.80ms
     90%    7.93ms
     99%  950.00us
  25263 requests in 1.00s, 3.83MB read
`

func TestWrk(t *testing.T) {
	got, err := parseWrk(wrkSays + "Requests/sec:  25213.05\nTransfer/sec:      3.82MB\n")
	if want := (wrkRun{
		requests: 25263,
		rate:     25213.05,
		p50:      1630 * time.Microsecond,
		p99:      950 * time.Microsecond,
	}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = parseWrk(wrkSays + "  Socket errors: connect 0, read 0, write 0, timeout 1\nRequests/sec:  1.00\n")
	if err != nil || got.failed != "Socket errors: connect 0, read 0, write 0, timeout 1" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseWrk(wrkSays); err == nil {
		t.Error("no rate is no result")
	}
}

func TestLoad(t *testing.T) {
	status := http.StatusOK
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Host != "a-service.run.app" {
			t.Errorf("asked for %q", r.Host)
		}
		w.WriteHeader(status)
		io.WriteString(w, "hello 0 from a-revision\n")
		status = http.StatusServiceUnavailable // all others
	}))
	defer srv.Close()
	l, err := newLoad(t.Context(), giggle.Status{Edge: srv.Listener.Addr().String()}, "https://a-service.run.app")
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	took, failed, note := judge(l.run(t.Context(), constant(1000), after(100*time.Millisecond)))
	if len(took) != 1 || failed == 0 || !strings.Contains(note, "503") {
		t.Errorf("%d answers, %d failures: %s", len(took), failed, note)
	}
}

func TestNames(t *testing.T) {
	names, about := Names()
	if len(names) != len(about) {
		t.Fatalf("%d names, %d lines", len(names), len(about))
	}
	for _, g := range Groups() {
		if slices.Contains(names, g) {
			t.Errorf("%s is a group and a benchmark", g)
		}
	}
	for _, b := range benchmarks() {
		if !b.isOneOf(nil) || !b.isOneOf([]string{b.group}) || !b.isOneOf(b.names[len(b.names)-1:]) ||
			b.isOneOf([]string{"nothing"}) {
			t.Errorf("%s can't be chosen", b.names[0])
		}
	}
}

func TestMemory(t *testing.T) {
	m, err := memory(os.Getpid())
	if err != nil || m.anonymous <= 0 || m.rss < m.anonymous {
		t.Errorf("memory = %+v, %v", m, err)
	}
	if _, err := memory(-1); err == nil {
		t.Error("no process has a negative id")
	}
	c := exec.Command("cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); c.Wait() }()
	if got, err := children(os.Getpid()); err != nil || !slices.Contains(got, c.Process.Pid) {
		t.Errorf("children = %v, %v, want %d among them", got, err, c.Process.Pid)
	}
}

// Every benchmark runs, on a real platform, and leaves nothing behind.
func TestRun(t *testing.T) {
	runs(t, []string{"up_ready", "idle_rss", "deploy_ready", "cold_prepared", "cold_unprepared", "source_build"},
		"up_ready", "idle_rss", "idle_rss_total", "idle_prepared", "deploy_ready", "cold_prepared", "cold_unprepared",
		"source_build")
}

// runs runs benchmarks once, briefly, and looks for their results and for what they leave behind.
func runs(t *testing.T, names []string, want ...string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "giggle")
	if out, err := exec.Command("go", "build", "-o", binary, "giggle/cmd/giggle").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mirror := os.Getenv("GIGGLE_MIRROR")
	if mirror == "" {
		mirror = "/var/cache/giggle/mirror"
	}
	t.Setenv("TMPDIR", t.TempDir())
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o711); err != nil {
		t.Fatal(err)
	}
	rep, err := Run(t.Context(), Config{
		Binary:  binary,
		Mirror:  mirror,
		N:       2,
		Length:  time.Second,
		Environ: os.Environ(),
		Out:     io.Discard,
	}, names)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rep.Results {
		// Two more services may take no memory that shows, and a change of traffic no time that does.
		few := strings.HasPrefix(r.Name, "idle_rss_1000") || r.Name == "traffic_change"
		if i >= len(want) || r.Name != want[i] || r.N < 2 || r.Value <= 0 && !few || r.P95 < r.P50 {
			t.Errorf("result %d = %+v", i, r)
		}
		if (strings.HasPrefix(r.Name, "cold") || strings.HasPrefix(r.Name, "wake") ||
			strings.HasPrefix(r.Name, "gateway") || r.Name == "rollout_p95") && (r.BaselineValue <= 0 || r.Ratio <= 0) {
			t.Errorf("%s has no baseline: %+v", r.Name, r)
		}
	}
	if len(rep.Results) != len(want) || rep.Machine.CPUs == 0 || rep.Machine.Kernel == "" || rep.Machine.Runtime == "" {
		t.Errorf("report = %+v", rep)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range exes {
		if at, err := os.Readlink(exe); err == nil && strings.HasPrefix(at, binary) {
			t.Errorf("%s still runs", exe)
		}
	}
	if st, err := os.Stat(os.DevNull); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("%s is not root's any more: %v, %v", os.DevNull, st, err)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/giggle-bench-*"); len(groups) != 0 {
		t.Errorf("control groups left behind: %v", groups)
	}
}

func TestUnknownPlatform(t *testing.T) {
	r := &run{dir: t.TempDir(), cfg: Config{Binary: "/bin/false"}}
	if _, err := r.launch(t.Context(), t.TempDir()); err == nil ||
		!strings.Contains(err.Error(), "the platform ended") {
		t.Errorf("got %v", err)
	}
}
