// Package unpacker makes a process of giggle the one that unpacks a source archive (source.Serve), when the platform
// starts it as `giggle source-unpacker`. It happens while packages are initialised, as package modelrunner does it and
// for its reason: each build has such a start, and should not wait for what only the platform needs.
package unpacker

import (
	"os"

	"giggle/builds/source"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == source.Command {
		os.Exit(source.Serve(os.Args[2:], os.Stdout))
	}
}
