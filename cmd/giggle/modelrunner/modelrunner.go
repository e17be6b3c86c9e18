// Package modelrunner makes a process of giggle the process of a language model, when it is started as `giggle
// model-runner`: the platform does that (vertex/embedded) and speaks with it over its input and output. Nobody else is
// served, and giggle's other commands never notice.
//
// It happens while packages are initialised, not in main. The platform's packages take some 100 ms of CPU for that,
// most of it for the descriptors of Google's APIs, and a first token after a pause should come within 150 ms. The
// language initialises packages in the order of their import paths, each as soon as those that it imports are (The Go
// Programming Language Specification, Program initialization): this one, which needs little, comes before those that
// need protobuf. A test holds that true.
package modelrunner

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"giggle/vertex/embedded"
)

// Command is the first argument of such a process.
const Command = "model-runner"

func init() {
	if len(os.Args) > 1 && os.Args[1] == Command {
		os.Exit(run(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet(Command, flag.ContinueOnError)
	fs.SetOutput(stderr)
	model := fs.String("model", "", "GGUF file; without it, the model that is built in")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "%s takes no arguments\n", Command)
		return 2
	}
	if err := embedded.Serve(context.Background(), *model, embedded.LimitMemory, stdin, stdout); err != nil {
		fmt.Fprintf(stderr, "giggle: %v\n", err)
		return 1
	}
	return 0
}
