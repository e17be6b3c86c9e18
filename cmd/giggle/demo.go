package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"giggle/bench/demo"
	"giggle/cloud"
	"giggle/fault"
)

func (p *program) demo() *cobra.Command {
	f := &cloudFlags{}
	var source string
	c := &cobra.Command{
		Use:     "demo",
		Short:   "Start a cloud in a temporary directory, deploy a service from source, call it, stop",
		Example: "  sudo giggle demo\n  sudo giggle demo --source ../my-go-app",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if _, err := os.Stat(source); err != nil {
				return usage{fault.New(fault.NotFound,
					"the source %s is not there: run the demo in Giggle's repository, or name one with --source",
					source)}
			}
			dir, err := os.MkdirTemp("", "giggle-demo-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			f.Data, f.Project = filepath.Join(dir, "data"), "giggle-demo"
			f.egress = "off" // it needs nothing of the outside
			logFile, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, logFile.Close()) }()
			cfg, err := p.config(cmd.Context(), f, logFile)
			if err != nil {
				return err
			}
			// Any ports, so that a platform that runs already is no obstacle.
			cfg.HTTPSPort, cfg.HTTPPort, cfg.DNSPort, cfg.Console, cfg.Edge = 0, 0, 0, "127.0.0.1:0", "127.0.0.1:0"
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			d := &demonstration{p: p, begun: time.Now()}
			var walked error
			done := make(chan struct{})
			start := time.Now()
			if e := p.runCloud(ctx, cfg, func(c *cloud.Cloud) error {
				d.took("Starting the cloud", start)
				go func() {
					defer close(done)
					defer cancel()
					walked = d.walk(ctx, c, source)
					start = time.Now()
				}()
				return nil
			}); e != nil {
				return e
			}
			<-done
			if walked != nil {
				return walked
			}
			d.took("Stopping the cloud", start)
			p.printf("\n%s\nFrom nothing to a joke, and all gone again, in %s.\n", d.joke,
				time.Since(d.begun).Round(10*time.Millisecond))
			return nil
		},
	}
	p.cloudFlags(c, f)
	_ = c.Flags().Set("pull", "never") // it shows what is on the machine
	c.Flags().StringVar(&source, "source", "samples/jokes", "directory of the source to deploy")
	for _, name := range []string{"data", "project", "address", "https-port", "http-port", "dns-port", "console",
		"edge", "egress", "egress-allow", "egress-path", "pull", "pull-limit", "registries"} {
		_ = c.Flags().MarkHidden(name) // set by the demo itself
	}
	return c
}

// demonstration walks the road and says how long each part took.
type demonstration struct {
	p     *program
	begun time.Time
	joke  string
}

// phase runs one part, with its name on the terminal while it runs.
func (d *demonstration) phase(name string, do func() error) error {
	live := false
	if f, ok := d.p.stdout.(*os.File); ok {
		live = term.IsTerminal(int(f.Fd()))
	}
	if live {
		fmt.Fprintf(d.p.stdout, "  … %s", name)
	}
	start := time.Now()
	err := do()
	if live {
		fmt.Fprint(d.p.stdout, "\r\x1b[K")
	}
	if err != nil {
		fmt.Fprintf(d.p.stdout, "  ✗ %s\n", name)
		return err
	}
	if time.Since(start) > time.Millisecond {
		d.took(name, start)
	}
	return nil
}

func (d *demonstration) took(name string, start time.Time) {
	d.p.printf("  ✓ %-44s %8s\n", name, time.Since(start).Round(time.Millisecond))
}

func (d *demonstration) walk(ctx context.Context, c *cloud.Cloud, source string) error {
	session, err := c.Session(ctx, os.Geteuid())
	if err != nil {
		return err
	}
	var client *demo.Client
	var uploaded demo.Source
	var image, url string
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"Signing in", func() (err error) { client, err = demo.NewClient(ctx, session); return err }},
		{"Making a repository", func() error { return client.EnsureRepository(ctx) }},
		{"Uploading " + source, func() (err error) {
			uploaded, err = client.Upload(ctx, source, "services/jokes/source.zip")
			return err
		}},
		{"Building an image from source, in a container", func() (err error) {
			image, err = client.Build(ctx, uploaded,
				"jokes")
			return err
		}},
		{"Deploying it: the container starts and answers", func() (err error) {
			url, err = client.Deploy(ctx, "jokes",
				image, nil)
			return err
		}},
		{"Letting everyone invoke it", func() error { return client.AllowAll(ctx, "jokes") }},
		{"Calling the service", func() (err error) { d.joke, err = client.Get(ctx, url); return err }},
	} {
		if err := d.phase(step.name, step.do); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(step.name[:1])+step.name[1:], err)
		}
	}
	client.Close()
	d.p.printf("\n  curl %s\n", url)
	return nil
}
