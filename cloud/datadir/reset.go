package datadir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"giggle/engine"
)

// Reset removes a data directory, and first of all what a platform that was killed left running. It fails with
// FailedPrecondition while a platform runs on it.
func Reset(ctx context.Context, data string, log *slog.Logger) (err error) {
	release, err := Lock(data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	dir := filepath.Join(data, "engine")
	// Opening an engine reaps; it is the same whether a platform follows or not.
	if _, err := os.Stat(dir); err == nil {
		e, err := engine.Open(ctx, engine.Config{Dir: dir, Log: log})
		if err != nil {
			return err
		}
		if err := e.Close(); err != nil {
			return err
		}
	}
	return os.RemoveAll(data)
}
