package engine

import (
	"context"
	"fmt"
	"os"
	"time"
)

// reap removes what an engine on the same directory left when its process was killed. Mounts are not among it: they
// went with the process and its containers.
func (e *Engine) reap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := e.cgroups.kill(ctx, ""); err != nil {
		return fmt.Errorf("kill leftover containers: %w", err)
	}
	if err := e.cgroups.remove(""); err != nil {
		return fmt.Errorf("remove leftover cgroups: %w", err)
	}
	for _, dir := range []string{e.run, e.disk()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove leftovers: %w", err)
		}
	}
	return nil
}
