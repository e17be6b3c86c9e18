package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"giggle/api/giggle"
	"giggle/fault"
)

func (p *program) top() *cobra.Command {
	var data, project string
	var once, asJSON bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "top",
		Short: "Show what the services are doing: requests, latencies, errors, instances, memory, CPU",
		Long: "Top shows, for each revision that had a request or has an instance: requests a second, their latencies, the share of\n" +
			"errors (5xx), instances, requests in them and waiting, memory and cores in use, over the last interval. On a\n" +
			"terminal it refreshes in place until it is interrupted. Latencies are exact to an eighth.",
		Example: "  giggle top\n  giggle top --once --json | jq '.revisions[] | select(.errorRatio > 0.01)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return usage{fault.Invalid("interval", "must be at least 100ms")}
			}
			show := p.showTop
			if asJSON {
				show = func(t topView) error { return p.printJSON(t) }
			}
			return watchTop(cmd.Context(), data, project, interval, once, show)
		},
	}
	p.dataFlag(c, &data)
	f := c.Flags()
	f.BoolVar(&once, "once", false, "show one interval and end")
	f.BoolVar(&asJSON, "json", false, "print JSON, a document for each interval")
	f.DurationVar(&interval, "interval", 2*time.Second, "what a line is about")
	f.StringVar(&project, "project", "", "only of one project")
	return c
}

// watchTop asks for the loads each interval and shows what has changed.
func watchTop(
	ctx context.Context, data, project string, interval time.Duration, once bool, show func(topView) error,
) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before, err := getTop(ctx, data, project)
	if err != nil {
		return err
	}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now, err := getTop(ctx, data, project)
		if err != nil {
			return err
		}
		if err := show(viewOf(before, now)); err != nil || once {
			return err
		}
		before = now
	}
}

func getTop(ctx context.Context, data, project string) (giggle.Top, error) {
	var t giggle.Top
	body, err := ask(ctx, data, "/v1/top", url.Values{"project": {project}})
	if err != nil {
		return t, err
	}
	defer func() { _ = body.Close() }()
	return t, json.NewDecoder(body).Decode(&t)
}

// topView is what revisions did in an interval.
type topView struct {
	Time      time.Time `json:"time"`
	Seconds   float64   `json:"seconds"`
	Revisions []topRow  `json:"revisions"`
}

type topRow struct {
	Project    string  `json:"project"`
	Region     string  `json:"region"`
	Service    string  `json:"service"`
	Revision   string  `json:"revision"`
	Rate       float64 `json:"requestsPerSecond"`
	P50        float64 `json:"p50Ms"`
	P95        float64 `json:"p95Ms"`
	P99        float64 `json:"p99Ms"`
	ErrorRatio float64 `json:"errorRatio"` // of 5xx
	Instances  int     `json:"instances"`
	Starting   int     `json:"starting"`
	InFlight   int     `json:"inFlight"`
	Queued     int     `json:"queued"`
	Memory     int64   `json:"memoryBytes"`
	Cores      float64 `json:"cpuCores"`
	GPUs       int     `json:"gpus"`
	GPUSeconds float64 `json:"gpuSeconds"` // that instances had GPUs, since the platform started
}

// viewOf is what happened between two moments. Revisions that did nothing and have nothing are left out.
func viewOf(before, now giggle.Top) topView {
	name := func(l giggle.Load) string {
		return strings.Join([]string{l.Project, l.Region, l.Service, l.Revision}, "/")
	}
	old := make(map[string]giggle.Load)
	for _, l := range before.Revisions {
		old[name(l)] = l
	}
	seconds := max(now.Time.Sub(before.Time).Seconds(), 1e-3)
	out := topView{Time: now.Time, Seconds: seconds, Revisions: []topRow{}}
	for _, l := range now.Revisions {
		was := old[name(l)]
		var total, ever uint64
		latencies := l.Latencies
		for i, n := range l.Requests {
			if was.Requests[i] > n { // it was counted again
				was = giggle.Load{CPU: was.CPU}
			}
		}
		for i, n := range l.Requests {
			total += n - was.Requests[i]
			ever += n
		}
		for i := range latencies {
			latencies[i] -= min(latencies[i], was.Latencies[i])
		}
		if ever == 0 && l.Ready+l.Starting+l.Queued == 0 {
			continue
		}
		ms := func(q float64) float64 { return float64(latencies.Quantile(q).Microseconds()) / 1000 }
		row := topRow{
			Project:    l.Project,
			Region:     l.Region,
			Service:    l.Service,
			Revision:   l.Revision,
			Rate:       float64(total) / seconds,
			P50:        ms(0.5),
			P95:        ms(0.95),
			P99:        ms(0.99),
			Instances:  l.Ready,
			Starting:   l.Starting,
			InFlight:   l.InFlight,
			Queued:     l.Queued,
			Memory:     l.Memory,
			Cores:      max(l.CPU-was.CPU, 0).Seconds() / seconds,
			GPUs:       l.GPUs,
			GPUSeconds: l.GPU.Seconds(),
		}
		if total > 0 {
			row.ErrorRatio = float64(l.Requests[4]-was.Requests[4]) / float64(total)
		}
		out.Revisions = append(out.Revisions, row)
	}
	slices.SortFunc(out.Revisions, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Region, b.Region), cmp.Compare(a.Revision, b.Revision))
	})
	return out
}

// showTop prints a table: on a terminal in the place of the one before, as far as it fits.
func (p *program) showTop(t topView) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	// GPUs are rare: their columns are there when one of the revisions has had one.
	gpus, head := slices.ContainsFunc(t.Revisions, func(r topRow) bool { return r.GPUSeconds > 0 }), ""
	if gpus {
		head = "GPU\tGPU TIME\t"
	}
	fmt.Fprintln(w, "RPS\tP50\tP95\tP99\tERRORS\tINST\tIN FLIGHT\tQUEUED\tMEMORY\tCPU\t"+head+"  REVISION")
	for _, r := range t.Revisions {
		quantile := func(ms float64) string {
			if r.Rate == 0 {
				return "-"
			}
			return shortDuration(time.Duration(ms * float64(time.Millisecond)))
		}
		instances := fmt.Sprint(r.Instances)
		if r.Starting > 0 {
			instances += fmt.Sprintf("+%d", r.Starting)
		}
		gpu := ""
		if gpus {
			gpu = fmt.Sprintf("%d\t%s\t", r.GPUs, time.Duration(r.GPUSeconds)*time.Second)
		}
		fmt.Fprintf(w, "%.1f\t%s\t%s\t%s\t%.1f%%\t%s\t%d\t%d\t%d MiB\t%.2f\t%s  %s\n", r.Rate, quantile(r.P50),
			quantile(r.P95), quantile(r.P99), 100*r.ErrorRatio,
			instances, r.InFlight, r.Queued, r.Memory>>20, r.Cores, gpu, r.Revision)
	}
	_ = w.Flush()
	if !p.onTerminal() {
		p.printf("%s\n", b.String())
		return nil
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	if _, height, err := term.GetSize(int(p.stdout.(*os.File).Fd())); err == nil && len(lines) > height-1 {
		lines = lines[:max(height-1, 1)]
	}
	p.printf("\x1b[H%s\x1b[K\n\x1b[J", strings.Join(lines, "\x1b[K\n"))
	return nil
}
