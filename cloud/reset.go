package cloud

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"giggle/engine"
)

// Reset removes a data directory, and first of all what a platform that was killed left running. It fails with
// FailedPrecondition while a platform runs on it.
func Reset(ctx context.Context, data string, log *slog.Logger) (err error) {
	c := &Cloud{cfg: Config{Data: data}}
	if err := c.lockData(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.undo()) }()
	// Opening an engine reaps; it is the same whether a platform follows or not.
	if _, err := os.Stat(c.path("engine")); err == nil {
		e, err := engine.Open(ctx, engine.Config{Dir: c.path("engine"), Log: log})
		if err != nil {
			return err
		}
		if err := e.Close(); err != nil {
			return err
		}
	}
	return os.RemoveAll(data)
}
