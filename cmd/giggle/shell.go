package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"giggle/fault"
	"giggle/shell"
)

func (p *program) shell() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "shell [-- COMMAND [ARG...]]",
		Short: "A shell, or one command, where Google's names lead to this cloud",
		Long: "Shell starts a subshell, or one command, in a private mount namespace: *.googleapis.com, *.run.app and *.pkg.dev\n" +
			"resolve to the platform, its certificates are trusted, and gcloud is signed in as the owner with a configuration\n" +
			"of its own. Outside it nothing changes. The exit status is the command's.",
		Example: "  giggle shell\n  giggle shell -- gcloud run services list\n  giggle shell -- sh -c 'curl $(gcloud run services describe jokes --format \"value(status.url)\")'",
		RunE: func(cmd *cobra.Command, args []string) error {
			abs, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			s, err := shell.SignIn(cmd.Context(), abs)
			if err != nil {
				return err
			}
			if s.Ports.HTTPS != 443 || s.Ports.DNS != 53 {
				return fault.New(fault.FailedPrecondition,
					"This platform listens on other ports than 443 and 53, which names can't lead to. Use `giggle env`, or start it with another --address instead.")
			}
			if err := s.Write(cmd.Context()); err != nil {
				return err
			}
			if len(args) == 0 {
				sh := p.getenv("SHELL")
				if sh == "" {
					sh = "/bin/sh"
				}
				args = []string{sh}
				p.printf("In project %s as %s. `exit` leads back.\n", s.Project, s.Owner)
			}
			bin, err := self()
			if err != nil {
				return err
			}
			if err := s.Link(bin); err != nil {
				return err
			}
			stop, err := s.ServeMetadata(abs)
			if err != nil {
				return err
			}
			defer stop()
			status, err := s.Run(bin, s.Env(p.environ), args)
			if err != nil {
				return err
			}
			if status != 0 {
				return exit(status)
			}
			return nil
		},
	}
	p.dataFlag(c, &data)
	c.Flags().SetInterspersed(false)
	return c
}

// shellInside is the part of shell that runs inside the namespace.
func (p *program) shellInside() *cobra.Command {
	return &cobra.Command{
		Use: shell.InsideCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage{fault.New(fault.InvalidArgument, "this command is used by `giggle shell` only")}
			}
			err := shell.Inside(args[0], args[1:], p.environ)
			if os.IsNotExist(err) || fault.CodeOf(err) == fault.Internal {
				// As a shell does for a command that is not there.
				p.errorf("giggle: %v\n", err)
				return exit(127)
			}
			return err
		},
	}
}
