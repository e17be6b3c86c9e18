package cloud

import (
	"context"
	"strings"
	"time"

	"giggle/blob"
)

// How often blobs that nobody needs are looked for, and how young one is left alone whoever needs it: longer than
// anything takes from its first byte to its name, a build of 24 hours included.
const (
	collectEvery = time.Hour
	young        = 26 * time.Hour
)

// collectGarbage removes blobs that nobody needs, from time to time, until ctx ends.
func (c *Cloud) collectGarbage(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.collect(ctx, c.cfg.Now().Add(-young)); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("garbage collection", "err", err)
		}
	}
}

// collect removes the blobs that nobody needs and nobody has put or asked for since the given time.
func (c *Cloud) collect(ctx context.Context, since time.Time) error {
	if _, err := c.artifacts.Forget(ctx, since); err != nil {
		return err
	}
	done, err := c.blobs.Collect(ctx, since, c.artifacts, c.storage, revisionImages{c})
	if done.Removed > 0 {
		c.cfg.Log.Info("collected garbage", "removed", done.Removed, "freed", done.Freed, "kept", done.Kept)
	}
	return err
}

// revisionImages keeps what revisions run, whether a repository still has it or not.
type revisionImages struct{ c *Cloud }

func (r revisionImages) Mark(ctx context.Context, keep func(blob.Digest)) error {
	images, err := r.c.services.Images(ctx)
	if err != nil {
		return err
	}
	for _, ref := range images {
		_, digest, ok := strings.Cut(ref, "@")
		if !ok {
			continue
		}
		if err := r.c.artifacts.MarkImage(ctx, digest, keep); err != nil {
			return err
		}
	}
	return nil
}
