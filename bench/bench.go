// Package bench measures a platform on the machine where it runs, with a baseline beside each figure in the same run.
//
// It serves `giggle bench`. The platform under test is a child process on a loopback address of its own, in a
// temporary directory; it is used through its public APIs and its socket only. It judges nothing: goals are printed
// beside the figures, and no test depends on them.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"giggle/engine/egress"
	"giggle/fault"
)

// Result is one figure. Of a series there are the quantiles; Value is what the goal is about.
type Result struct {
	Name          string  `json:"name"`
	Unit          string  `json:"unit"` // ms, MB, requests/s or µs
	N             int     `json:"n"`    // how often it was measured
	P50           float64 `json:"p50"`
	P95           float64 `json:"p95"`
	P99           float64 `json:"p99"`
	Value         float64 `json:"value"`
	Baseline      string  `json:"baseline"` // what stands beside it, "" for nothing
	BaselineValue float64 `json:"baseline_value"`
	Ratio         float64 `json:"ratio"` // Value over BaselineValue
	Goal          string  `json:"goal"`
	Met           bool    `json:"met"`
	Note          string  `json:"note,omitempty"`  // what else was seen
	Spread        spread  `json:"spread,omitzero"` // of a series of times
}

// Report is what one run gives.
type Report struct {
	Machine Machine  `json:"machine"`
	Results []Result `json:"results"`
}

// Config is what a run needs.
type Config struct {
	Binary  string        // giggle itself, which runs the platform
	Mirror  string        // directory of foreign images, with the builder
	Runtime string        // OCI runtime, "" for the first that works
	N       int           // how often to measure, 0 for each benchmark's own
	Length  time.Duration // of one round of load; 0 for 5 s
	Version string
	Environ []string  // for the go command
	Out     io.Writer // hears what is being done
}

// benchmark is one measurement with the figures that it gives.
type benchmark struct {
	group string
	names []string
	about string
	n     int // how often, unless the user says
	run   func(ctx context.Context, b *run) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"coldstart", []string{"up_ready"}, "`giggle up` on existing data, until its socket answers", 10, upReady},
		{"coldstart", []string{"idle_rss", "idle_rss_total",
			"idle_prepared"}, "memory of a fresh platform with one service at zero", 10, idleMemory},
		{"coldstart", []string{"deploy_ready"}, "deploy of an image that the registry has, until Ready", 20, deployReady},
		{"coldstart", []string{"cold_prepared"}, "zero to the answer over HTTPS, container prepared", 60, coldPrepared},
		{"coldstart", []string{"cold_unprepared"}, "zero to the answer over HTTPS, nothing prepared", 60, coldUnprepared},
		{"egress", []string{"egress_throughput"}, "what an instance sends to the outside, a plain veth pair with NAT beside it", 5, egressThroughput(egress.Kernel)},
		{"egress", []string{"egress_latency"}, "there and back over an open connection, in µs", 5, egressLatency(egress.Kernel)},
		{"egress", []string{"egress_first"}, "the first connection of an instance, which makes its way out", 40, egressFirst(egress.Kernel)},
		{"egress", []string{"userspace_throughput"}, "the same by the userspace path", 5, egressThroughput(egress.Userspace)},
		{"egress", []string{"userspace_latency"}, "the same by the userspace path", 5, egressLatency(egress.Userspace)},
		{"egress", []string{"userspace_first"}, "the same by the userspace path", 40, egressFirst(egress.Userspace)},
		{"egress", []string{"cold_egress"}, "zero to the answer with egress, without it beside", 40, coldEgress},
		{"build", []string{"source_build"}, "build from source, one line changed", 15, sourceBuild},
		{"scale", []string{"wake_25"}, "25 services at zero, prepared, asked at once", 5, wake25},
		{"scale", []string{"wake_100"}, "100 services at zero, prepared, asked at once", 3, wake100},
		{"scale", []string{"ramp"}, "one service from zero to 3,000 requests/s, in seconds", 10, ramp},
		{"gateway", []string{"gateway_rps",
			"gateway_cpu"}, "requests through the gateway, nginx and haproxy beside it, rounds of 5 s", 3, gatewayLoad},
		{"rollout", []string{"traffic_change"}, "another revision gets the traffic, at 1,000 requests/s", 10, trafficChange},
		{"rollout", []string{"rollout_p95"}, "new revisions at 1,000 requests/s", 5, rollout},
		{"models", []string{"embedded_first_token",
			"embedded_first_token_warm"},
			"request to first text of the embedded model, with no process of it and with one", 40, firstToken},
		{"models", []string{"vertex_overhead",
			"vertex_overhead_grpc"}, "what Vertex AI adds to a model's server", 300, overhead},
		{"models", []string{"vertex_streams_50"}, "50 streams at once, each read to its end", 5, streams50},
		{"idle", []string{"idle_rss_1000",
			"idle_rss_1000_used"}, "memory that 1,000 services at zero take", 1000, idleServices},
	}
}

// Names lists the benchmarks, each with a line that says what it is.
func Names() (names, about []string) {
	for _, b := range benchmarks() {
		names, about = append(names, b.names[0]), append(about, b.about)
	}
	return names, about
}

// length is how long one round of load takes.
func (r *run) length() time.Duration {
	if r.cfg.Length > 0 {
		return r.cfg.Length
	}
	return 5 * time.Second
}

// Groups lists the names that stand for several benchmarks.
func Groups() []string {
	var out []string
	for _, b := range benchmarks() {
		if !slices.Contains(out, b.group) {
			out = append(out, b.group)
		}
	}
	return out
}

func (b benchmark) isOneOf(names []string) bool {
	return len(names) == 0 || slices.Contains(names, b.group) ||
		slices.ContainsFunc(b.names, func(n string) bool { return slices.Contains(names, n) })
}

// run is one run of some benchmarks.
type run struct {
	cfg     Config
	dir     string
	n       int
	results []Result

	// The hello service, once it was built: all benchmarks use one data directory.
	data, image, url string
	many             []string // URLs of the same under other names
}

// Run measures what is named, everything when nothing is. What it started and wrote is gone when it returns.
func Run(ctx context.Context, cfg Config, names []string) (_ Report, err error) {
	dir, err := os.MkdirTemp("", "giggle-bench-")
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Containers of the baselines walk through it as strangers.
	if err := os.Chmod(dir, 0o711); err != nil {
		return Report{}, err
	}
	r := &run{cfg: cfg, dir: dir, data: filepath.Join(dir, "data")}
	report := Report{Machine: thisMachine(ctx, cfg)}
	for _, b := range benchmarks() {
		if !b.isOneOf(names) {
			continue
		}
		if r.n = b.n; cfg.N > 0 {
			r.n = cfg.N
		}
		fmt.Fprintf(cfg.Out, "%s: %s …\n", b.names[0], b.about)
		err := b.run(ctx, r)
		if ctx.Err() != nil {
			return report, fault.New(fault.Canceled, "The benchmark was interrupted.")
		}
		if len(names) == 0 && errors.As(err, new(missing)) {
			fmt.Fprintf(cfg.Out, "%s is left out: %v\n", b.names[0], err)
			continue
		}
		if err != nil {
			return report, fmt.Errorf("%s: %w", b.names[0], err)
		}
		report.Results = r.results
	}
	return report, nil
}

// series is what was measured, shot by shot.
type series []time.Duration

// quantile returns the smallest value that at least q of the series do not exceed, in milliseconds.
func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	at := max(0, min(int(q*float64(len(sorted))+0.999999)-1, len(sorted)-1))
	return float64(sorted[at].Microseconds()) / 1000
}

// goal is what a series in milliseconds should reach; 0 asks for nothing.
type goal struct{ p50, p95, ratio float64 }

func (g goal) String() string {
	out := ""
	for _, part := range []struct {
		format string
		limit  float64
	}{{"p50 ≤ %g ms", g.p50}, {"p95 ≤ %g ms", g.p95}, {"≤ %g × baseline", g.ratio}} {
		if part.limit > 0 {
			if out != "" {
				out += ", "
			}
			out += fmt.Sprintf(part.format, part.limit)
		}
	}
	return out
}

func (g goal) met(r Result) bool {
	within := func(v, limit float64) bool { return limit == 0 || v <= limit }
	return within(r.P50, g.p50) && within(r.P95, g.p95) && within(r.Ratio, g.ratio)
}

// times adds a series with its baseline, nil for none.
func (r *run) times(name string, s series, baseline string, base series, g goal) {
	res := Result{
		Name: name,
		Unit: "ms",
		N:    len(s),
		P50:  s.quantile(0.5),
		P95:  s.quantile(0.95),
		P99:  s.quantile(0.99),
		Goal: g.String(),
	}
	res.Value = res.P50
	if len(base) > 0 {
		res.Baseline, res.BaselineValue = baseline, base.quantile(0.5)
		res.Ratio = float64(int(res.Value/res.BaselineValue*100+0.5)) / 100
	}
	res.Met, res.Spread = g.met(res), spreadOf(s)
	r.results = append(r.results, res)
}

// last is the figure that was added last.
func (r *run) last() *Result { return &r.results[len(r.results)-1] }

// Table prints a report for people.
func (rep Report) Table(w io.Writer) error {
	m := rep.Machine
	fmt.Fprintf(w, "\n%s, %d CPUs, %d MB, Linux %s, %s, giggle %s, %s\n\n", m.CPU, m.CPUs, m.MemoryMB, m.Kernel,
		m.Runtime, m.Giggle, m.Time.Format(time.DateOnly))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "name\tn\tp50\tp95\tp99\tunit\tbeside it\tits p50\tratio\tgoal\tspread\t")
	for _, r := range rep.Results {
		base, value, ratio := "", "", ""
		if r.Baseline != "" {
			base, value, ratio = r.Baseline, fmt.Sprintf("%.1f", r.BaselineValue), fmt.Sprintf("%.2f", r.Ratio)
		}
		verdict := ""
		if r.Goal != "" {
			verdict = "✓ " + r.Goal
			if !r.Met {
				verdict = "✗ " + r.Goal
			}
		}
		fmt.Fprintf(tw, "%s\t%d\t%.1f\t%.1f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Name, r.N, r.P50, r.P95, r.P99,
			r.Unit, base, value, ratio, verdict, r.Spread)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range rep.Results {
		if r.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", r.Name, r.Note)
		}
	}
	return nil
}
