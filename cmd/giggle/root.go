package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// program is one run of the binary.
type program struct {
	name           string
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// defaultData is where a platform keeps its data when nothing else is said.
const defaultData = "/var/lib/giggle"

// getenv reads a variable of the program's environment.
func (p *program) getenv(name string) string {
	for _, kv := range p.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "giggle",
		Short: "Giggle Cloud Platform: Google Cloud's serverless APIs on your own machine",
		Long: "Giggle is a self-hosted serverless cloud. The real gcloud, Google's client libraries, Docker clients and\n" +
			"unmodified applications work against it, offline, with no account.",
		Example: "  sudo giggle up                                   # start the cloud\n" +
			"  giggle shell                                     # a shell where gcloud and curl reach it\n" +
			"  giggle shell -- gcloud run deploy jokes --source .",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.AddCommand(p.up(), p.shell(), p.shellInside(), p.env(), p.doctor(), p.demo(), p.status(), p.reset(),
		p.version(), p.bench(), p.logs(), p.top(), p.audit(), p.iam(), p.images(), p.build(), p.models(), p.sql())
	for _, c := range root.Commands() {
		if inner := c.Args; inner != nil {
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := inner(cmd, args); err != nil {
					return usage{err}
				}
				return nil
			}
		}
	}
	return root
}

// dataFlag adds --data.
func (p *program) dataFlag(c *cobra.Command, data *string) {
	def := p.getenv("GIGGLE_DATA")
	if def == "" {
		def = defaultData
	}
	c.Flags().StringVar(data, "data", def, "data directory of the platform (GIGGLE_DATA)")
}

// printJSON writes a value for scripts.
func (p *program) printJSON(v any) error {
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (p *program) printf(format string, args ...any) { fmt.Fprintf(p.stdout, format, args...) }

// self is the path of the running binary.
func self() (string, error) { return os.Executable() }
