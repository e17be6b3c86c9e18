package main

import (
	"github.com/spf13/cobra"

	"giggle/models/embedded"
)

// modelRunner is the process of a language model: the platform starts it, and speaks with it over its input and output.
func (p *program) modelRunner() *cobra.Command {
	var model string
	c := &cobra.Command{
		Use:    "model-runner",
		Short:  "Run a language model for the platform, which starts this itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return embedded.Serve(cmd.Context(), model, embedded.LimitMemory, p.stdin, p.stdout)
		},
	}
	c.Flags().StringVar(&model, "model", "", "GGUF file; without it, the model that is built in")
	return c
}
