// Package buildruntime makes a process of giggle the OCI runtime of BuildKit's RUN steps, when it is started by that name
// (build/dockerfile/runtime). It happens while packages are initialised, as package modelrunner does it and for its reason:
// a step has two such starts, and should not wait for what only the platform needs.
package buildruntime

import (
	"fmt"
	"os"
	"path/filepath"

	"giggle/build/dockerfile/runtime"
)

func init() {
	if len(os.Args) > 0 && filepath.Base(os.Args[0]) == runtime.Name {
		fmt.Fprintf(os.Stderr, "%s: %v\n", runtime.Name, runtime.Run(os.Args, os.Environ()))
		os.Exit(1)
	}
}
