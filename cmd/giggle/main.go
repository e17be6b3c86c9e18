// Command giggle is a self-hosted serverless cloud in one binary: `giggle up` runs it, `giggle shell` uses it.
//
// Here are the commands and what they print. What they do is done in the packages they call. By the name of
// cloud-run-proxy the binary is that program.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	_ "giggle/cmd/giggle/buildruntime" // the runtime of RUN steps never gets to main
	_ "giggle/cmd/giggle/modelrunner"  // a language model's process never gets to main
	_ "giggle/cmd/giggle/unpacker"     // what unpacks sources never gets to main
	"giggle/fault"
	"giggle/shell"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// exit is an error that only carries an exit status: what there was to say was said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usage is an error in how a command was called.
type usage struct{ error }

// run is the program: it returns the exit status, 0, 1 for a failure, 2 for a usage error.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && filepath.Base(args[0]) == shell.RunProxyName {
		return runProxy(ctx, args[1:], stderr)
	}
	p := &program{
		name:    filepath.Base(args[0]),
		environ: environ,
		stdin:   stdin,
		stdout:  stdout,
		stderr:  stderr,
	}
	root := p.root()
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	var status exit
	var wrong usage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "giggle: %v\n", wrong.error)
		return 2
	}
	if f := fault.From(err); f.Code != fault.Internal {
		fmt.Fprintf(stderr, "giggle: %s\n", f.Message)
	} else {
		fmt.Fprintf(stderr, "giggle: %v\n", err)
	}
	return 1
}
