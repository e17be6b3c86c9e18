package buildpack

import (
	"context"
	"strings"
	"sync"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// Limits of a container that builds.
const (
	buildMemory = 4 << 30
	buildPids   = 2048
)

// How much of a container's output is in the message of a build that failed.
const (
	tailLines = 15
	tailLine  = 500 // bytes of one line
)

// contain runs one program of a build to its end, in a container of its own. The spec needs layers, arguments,
// environment and mounts; the rest is set here. It returns the exit status and the last lines of output.
func (b *Builder) contain(
	ctx context.Context, job task, spec engine.Spec, say func(string, ...any),
) (exit engine.Exit, tail []string, err error) {
	var mu sync.Mutex
	spec.ID, spec.Dir, spec.Memory, spec.Pids, spec.Disk = b.cfg.NewID(), workspace, buildMemory, buildPids, true
	spec.Files = b.cfg.Files
	spec.Sockets = b.cfg.Sockets(job.Build).Saying(func(text string) { say("%s", text) }, time.Now)
	if b.cfg.Groups != nil {
		spec.Groups = b.cfg.Groups(job.Build)
	}
	spec.Output = func(l engine.Line) {
		say("%s", l.Text)
		mu.Lock()
		defer mu.Unlock()
		if tail = append(tail, l.Text[:min(len(l.Text), tailLine)]); len(tail) > tailLines {
			tail = tail[1:]
		}
	}
	c, err := b.cfg.Engine.Prepare(ctx, spec)
	if err != nil {
		return exit, nil, err
	}
	if exit, err = c.Run(ctx); err != nil {
		return exit, nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return exit, tail, nil
}

// succeeded is nil for a program that ended well, else why the build failed, with what may help.
func succeeded(what string, exit engine.Exit, tail []string, hint string) error {
	switch {
	case exit.OOM:
		return fault.New(fault.FailedPrecondition, "%s ran out of memory (%d MiB).", what, buildMemory>>20)
	case exit.Code != 0:
		return fault.New(fault.FailedPrecondition, "%s failed with exit status %d:\n%s%s", what, exit.Code,
			strings.Join(tail, "\n"), hint)
	}
	return nil
}
