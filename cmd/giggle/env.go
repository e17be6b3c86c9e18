package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"giggle/fault"
	"giggle/shell"
)

func (p *program) env() *cobra.Command {
	var data, kind string
	var unset bool
	c := &cobra.Command{
		Use:   "env",
		Short: "Print what lets gcloud in the current shell use this cloud",
		Long: "Env prints variables for bash, zsh or fish that lead gcloud, and gcloud alone, to the platform through its proxy.\n" +
			"It needs neither root nor a namespace.",
		Example: "  eval \"$(giggle env)\"\n  eval \"$(giggle env --unset)\"\n  giggle env --shell fish | source",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind == "" {
				kind = filepath.Base(p.getenv("SHELL"))
			}
			set, clear, err := dialect(kind)
			if err != nil {
				return usage{err}
			}
			if unset {
				for _, kv := range (&shell.Session{Proxy: "h:1"}).ProxyEnv() {
					p.printf(clear+"\n", kv[0])
				}
				return nil
			}
			abs, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			s, err := shell.SignIn(cmd.Context(), abs)
			if err != nil {
				return err
			}
			if err := s.Write(cmd.Context()); err != nil {
				return err
			}
			if _, _, err := net.SplitHostPort(s.Proxy); err != nil {
				return err
			}
			for _, kv := range s.ProxyEnv() {
				p.printf(set+"\n", kv[0], quote(kv[1]))
			}
			fmt.Fprintf(p.stderr,
				"# gcloud in this shell uses project %s of %s once this is evaluated: eval \"$(giggle env)\"\n",
				s.Project, s.Dir)
			return nil
		},
	}
	p.dataFlag(c, &data)
	c.Flags().StringVar(&kind, "shell", "", "bash, zsh, sh or fish; empty for the one in SHELL")
	c.Flags().BoolVar(&unset, "unset", false, "print the way back")
	return c
}

// dialect is how a shell sets and clears a variable.
func dialect(kind string) (set, clear string, err error) {
	switch kind {
	case "bash", "zsh", "sh", "dash", "ash", ".":
		return "export %s=%s", "unset %s", nil
	case "fish":
		return "set -gx %s %s", "set -e %s", nil
	}
	return "", "", fault.New(fault.InvalidArgument,
		"no way is known to set variables in %q; use --shell bash, zsh, sh or fish", kind)
}

// quote makes one word of s in all of these shells.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (p *program) errorf(format string, args ...any) { fmt.Fprintf(p.stderr, format, args...) }
