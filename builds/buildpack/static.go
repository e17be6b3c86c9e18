package buildpack

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"path/filepath"
)

// server is the source of the program that serves a site: compiled like any other, in a container.
//
//go:embed staticsite/main.go
var server []byte

// buildStatic makes an image of the files and a small web server.
func (b *Builder) buildStatic(
	ctx context.Context, job task, src, out string, say func(string, ...any),
) (string, error) {
	dir, err := os.MkdirTemp(b.path("work"), "server-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // New does it when this does not
	if err := errors.Join(os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "main.go"), server, 0o644)); err != nil {
		return "", err
	}
	toolchain, err := b.foreign(GoImage)
	if err != nil {
		return "", err
	}
	program, err := b.compileGo(ctx, task{Build: job.Build}, toolchain, compiler{Image: toolchain}, dir, ".", out, say)
	if err != nil {
		return "", err
	}
	digest, err := b.assemble(ctx, job, src, program, toolchain)
	return digest, errors.Join(err, program.Close())
}
