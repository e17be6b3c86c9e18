package main

import "github.com/spf13/cobra"

// placeholder until the benchmarks are there
func (p *program) bench() *cobra.Command { return &cobra.Command{Use: "bench", Hidden: true} }
