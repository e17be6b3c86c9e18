package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"giggle/bench"
	"giggle/fault"
)

func (p *program) bench() *cobra.Command {
	var cfg bench.Config
	var asJSON bool
	names, about := bench.Names()
	var list strings.Builder
	groups := bench.Groups()
	for i, name := range names {
		fmt.Fprintf(&list, "  %-16s %s\n", name, about[i])
	}
	mirror := p.getenv("GIGGLE_MIRROR")
	if mirror == "" {
		mirror = defaultMirror
	}
	c := &cobra.Command{
		Use:   "bench [NAME...]",
		Short: "Measure this machine: start times, memory, builds, with baselines beside them",
		Long: "Bench starts a platform of its own on another loopback address and in a temporary directory, measures it, prints the\n" +
			"figures beside their baselines and goals, and removes everything. Without names it measures everything,\n" +
			"which takes some minutes. Names are:\n\n" + list.String() + "\nand groups of them: " +
			strings.Join(groups, ", ") + ".",
		Example:   "  sudo giggle bench\n  sudo giggle bench gateway\n  sudo giggle bench cold_prepared -n 200\n  sudo giggle bench --json >figures.json",
		ValidArgs: append(slices.Clone(names), groups...),
		Args:      cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if !slices.Contains(names, name) && !slices.Contains(groups, name) {
					return usage{fault.New(fault.InvalidArgument, "there is no benchmark %q; there are %s", name,
						strings.Join(append(slices.Clone(groups), names...), ", "))}
				}
			}
			if cfg.N < 0 {
				return usage{fault.New(fault.InvalidArgument, "-n %d is negative", cfg.N)}
			}
			if os.Geteuid() != 0 {
				return fault.New(fault.PermissionDenied, "Containers need root: run `sudo giggle bench`.")
			}
			bin, err := self()
			if err != nil {
				return err
			}
			cfg.Binary, cfg.Version, cfg.Environ, cfg.Out = bin, buildVersion(), p.environ, p.stderr
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			report, err := bench.Run(ctx, cfg, args)
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(report)
			}
			return report.Table(p.stdout)
		},
	}
	c.Flags().IntVarP(&cfg.N, "number", "n", 0, "how often to measure; 0 for each benchmark's own number")
	c.Flags().StringVar(&cfg.Runtime, "runtime", "",
		"OCI runtime: crun, runc or a path; empty for the first that works")
	c.Flags().StringVar(&cfg.Mirror, "mirror", mirror, "directory of foreign images (GIGGLE_MIRROR)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(p.benchBare())
	return c
}

// benchBare is the part of bench that starts containers with the OCI runtime alone.
func (p *program) benchBare() *cobra.Command {
	return &cobra.Command{
		Use: bench.BareCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Bare(cmd.Context(), args, p.stdin, p.stdout)
		},
	}
}
