package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
	"giggle/cloud/datadir"
	"giggle/engine/egress"
	"giggle/fault"
)

func (p *program) status() *cobra.Command {
	var data string
	var wait time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show whether the cloud is up, and what runs",
		Example: "  giggle status\n  giggle status --wait 10s && gcloud run services list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			abs, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			st, err := waitForStatus(cmd.Context(), abs, wait)
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(st)
			}
			p.printf("Giggle %s is up (pid %d): project %s on %s\n", st.Version, st.PID, st.Project, st.Address)
			p.printf("  Services   %d\n", st.Services)
			p.printf("  Instances  %d ready, %d starting, %d prepared (%s)\n", st.Instances["ready"],
				st.Instances["starting"], st.Instances["prepared"], st.Runtime)
			p.printf("  Egress     %s\n", egressLine(st))
			if len(st.HostPorts) > 0 {
				p.printf("  Host ports %s, at host.giggle.internal\n", strings.Join(st.HostPorts, ", "))
			}
			for _, g := range st.GPUs {
				p.printf("  GPU        %s (%s), for %s: %s\n", g.Model, g.UUID,
					cmp.Or(strings.Join(g.Types, ", "), "no service"), cmp.Or(g.Used, "free"))
			}
			p.printf("  Console    http://%s\n  Edge       http://%s\n  Data       %s\n", st.Console, st.Edge, st.Data)
			return nil
		},
	}
	p.dataFlag(c, &data)
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for everything to listen")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// egressLine says what containers reach of the outside.
func egressLine(st giggle.Status) string {
	if !st.Online {
		return "none: it is off, or this machine has no default route"
	}
	line := fmt.Sprintf("%.1f MB sent to the outside", float64(st.SentBytes)/1e6)
	if st.Egress == string(egress.Userspace) {
		line += ", in userspace"
	}
	return line
}

// waitForStatus asks the platform for its status until it answers or the wait is over.
func waitForStatus(ctx context.Context, data string, wait time.Duration) (giggle.Status, error) {
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := getStatus(ctx, data)
		if err == nil || fault.Is(err, fault.PermissionDenied) || time.Now().After(deadline) {
			return st, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

func getStatus(ctx context.Context, data string) (giggle.Status, error) {
	var st giggle.Status
	body, err := ask(ctx, data, "/status", nil)
	if err != nil {
		return st, err
	}
	defer func() { _ = body.Close() }()
	return st, json.NewDecoder(body).Decode(&st)
}

func (p *program) reset() *cobra.Command {
	var data string
	var yes bool
	c := &cobra.Command{
		Use:   "reset",
		Short: "Remove everything that the cloud keeps, after asking",
		Long:  "Reset removes the data directory: services, images, objects, logs, identities. Foreign images in the mirror stay.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			abs, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(abs, "state", "giggle.db")); err != nil {
				return fault.New(fault.NotFound, "%s is not a data directory of Giggle's; nothing was removed.", abs)
			}
			if !yes {
				p.printf("Everything in %s will be removed. Type \"yes\" to go on: ", abs)
				var word string
				if _, err := fmt.Fscanln(p.stdin, &word); err != nil || word != "yes" {
					p.printf("\n")
					return fault.New(fault.Canceled, "Nothing was removed.")
				}
			}
			return datadir.Reset(cmd.Context(), abs, slog.New(slog.NewTextHandler(p.stderr, nil)))
		},
	}
	p.dataFlag(c, &data)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// Version and commit are set by the Makefile (-ldflags -X).
var (
	version = "dev"
	commit  = ""
)

func buildVersion() string {
	if commit == "" {
		return version
	}
	return version + " (" + commit + ")"
}

// shown are the dependencies whose versions matter to who reports a problem.
var shown = []string{"google.golang.org/grpc", "modernc.org/sqlite", "github.com/google/go-containerregistry",
	"github.com/containerd/containerd/v2"}

func (p *program) version() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Show the versions of giggle and of what it found", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := map[string]string{"giggle": buildVersion(), "go": runtime.Version()}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, d := range info.Deps {
					for _, name := range shown {
						if d.Path == name {
							v[name] = d.Version
						}
					}
				}
			}
			for _, tool := range []string{"crun", "runc"} {
				if out := firstLine(cmd.Context(), tool, "--version"); out != "" {
					v[tool] = strings.TrimPrefix(strings.TrimPrefix(out, tool+" version "), tool+" ")
				}
			}
			if asJSON {
				return p.printJSON(v)
			}
			p.printf("giggle %s, %s\n", v["giggle"], v["go"])
			for _, name := range append([]string{"crun", "runc"}, shown...) {
				if v[name] != "" {
					p.printf("  %s %s\n", name, v[name])
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
