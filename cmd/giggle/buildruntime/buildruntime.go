// Package buildruntime makes a process of giggle what builds of Dockerfiles start it as: the OCI runtime of BuildKit's
// RUN steps (builds/dockerfile/runtime), or the program that makes BuildKit's file system and becomes BuildKit
// (engine.DaemonInit). It happens while packages are initialised, as package modelrunner does it and for its reason: a
// step has two such starts, and should not wait for what only the platform needs.
package buildruntime

import (
	"fmt"
	"os"
	"path/filepath"

	"giggle/builds/dockerfile/runtime"
	"giggle/engine"
)

func init() {
	var err error
	switch {
	case engine.IsDaemonInit(os.Args):
		err = engine.DaemonInit(os.Args, os.Environ())
	case len(os.Args) > 0 && filepath.Base(os.Args[0]) == runtime.Name:
		err = runtime.Run(os.Args, os.Environ())
	default:
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	os.Exit(1)
}
