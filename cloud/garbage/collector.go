// Package garbage gives back what nothing refers to any more: blobs, unpacked layers, abandoned uploads.
//
// What was deleted goes within seconds, everything else is found from time to time, and when the disk is low. It asks
// the products what they need and decides only when something is old enough to go; what a product needs, the product
// says.
package garbage

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Young is how young a blob is left alone when everything is looked through, whoever needs it: longer than anything
// takes from its first byte to its name, a build of 24 hours included.
const Young = 26 * time.Hour

// Grace is how long what was deleted stays: what makes a blob says within moments where a marker finds it, or holds
// it. What builds that run have touched stays till they have ended.
const Grace = 10 * time.Second

// PushGrace is how long blobs of a repository stay that a push may count on; Grace when the disk is low.
const PushGrace = 10 * time.Minute

const (
	collectEvery = time.Hour // how often everything is looked through for what isn't needed
	gatherDelay  = 100 * time.Millisecond
	retryEvery   = 5 * time.Second  // until what was too young is looked at again
	watchEvery   = 10 * time.Second // how often it is asked whether the disk is low
	idleUpload   = time.Hour        // how long an abandoned upload is kept then
	lowEvery     = time.Minute      // how often everything is looked through then
)

// Services run images: *run.Services.
type Services interface {
	// Images returns the references of all images that revisions run.
	Images(ctx context.Context) ([]string, error)
	// Gone returns the images of revisions that are deleted from now on, as they are.
	Gone(ctx context.Context) (next func() ([]string, error), stop func(), err error)
}

// Artifacts keeps images: *artifacts.Artifacts.
type Artifacts interface {
	blob.Marker
	blob.Needer
	Digests(ctx context.Context) ([]blob.Digest, error)
	MarkImage(ctx context.Context, digest string, keep func(blob.Digest)) error
	Forget(ctx context.Context, since time.Time) (n int, err error)
	ForgetIn(
		ctx context.Context, repository resource.Child, of []blob.Digest, since time.Time,
	) (gone, later []blob.Digest, err error)
}

// Storage keeps objects: *storage.Storage.
type Storage interface {
	blob.Marker
	blob.Needer
	// FinishLogs finishes the logs for which the disk had no room.
	FinishLogs(ctx context.Context) error
	// ForgetDeleted removes the soft-deleted objects whose time is over, or all.
	ForgetDeleted(ctx context.Context, all bool) (int, error)
}

// Images are unpacked: *oci.Images.
type Images interface {
	Layers(ctx context.Context, digest string) ([]string, error)
	Prune(ctx context.Context, keep []string, since time.Time) (n, young int, err error)
}

// Config is what a Collector needs.
type Config struct {
	Released  *Released
	Blobs     *blob.Dir
	Artifacts Artifacts
	Storage   Storage
	Services  Services
	Images    Images
	// Running returns the directories of the unpacked layers that instances have.
	Running func() []string
	// OldestBuild returns when the oldest build that runs began, if one does.
	OldestBuild func(ctx context.Context) (time.Time, bool, error)
	// Low reports whether the disk has little room left.
	Low func() bool
	// Restore takes back the room that deletes have when the disk is full.
	Restore func() error
	Now     func() time.Time
	Log     *slog.Logger
}

// Collector gives back what isn't needed.
type Collector struct{ cfg Config }

// New returns a Collector, which collects when it is run.
func New(cfg Config) *Collector { return &Collector{cfg} }

// Run gives back what isn't needed until ctx ends: what was deleted at once, everything else from time to time
// and when the disk is low.
func (c *Collector) Run(ctx context.Context) error {
	hourly, watch, retry := time.NewTicker(collectEvery), time.NewTicker(watchEvery), time.NewTicker(retryEvery)
	defer hourly.Stop()
	defer watch.Stop()
	defer retry.Stop()
	var lastLow time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-hourly.C:
			_, forgotten := c.cfg.Storage.ForgetDeleted(ctx, false)
			err = errors.Join(forgotten, c.Collect(ctx, c.cfg.Now().Add(-Young)), c.pruneUnused(ctx, c.cfg.Now().Add(-Young)))
		case <-watch.C:
			err = errors.Join(c.cfg.Restore(), c.cfg.Storage.FinishLogs(ctx))
		case <-c.cfg.Released.wake:
			select { // one who deletes one deletes many
			case <-time.After(gatherDelay):
			case <-ctx.Done():
			}
			err = c.CollectReleased(ctx, false)
		case <-retry.C:
			err = c.CollectReleased(ctx, true)
		}
		if c.cfg.Low() && time.Since(lastLow) > lowEvery {
			lastLow = time.Now()
			err = errors.Join(err, c.makeRoom(ctx))
		}
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("garbage collection", "err", err)
		}
	}
}

// makeRoom gives back all that isn't needed but the youngest, what is only kept to be restored, and what came of
// abandoned uploads.
func (c *Collector) makeRoom(ctx context.Context) error {
	if n, err := c.cfg.Storage.ForgetDeleted(ctx, true); err != nil {
		return err
	} else if n > 0 {
		c.cfg.Log.Warn("the disk is low: soft-deleted objects are gone before their time", "objects", n)
	}
	since, err := c.since(ctx, Grace)
	if err != nil {
		return err
	}
	_, err = c.cfg.Blobs.ExpireUploads(ctx, c.cfg.Now().Add(-idleUpload))
	return errors.Join(err, c.CollectReleased(ctx, true), c.Collect(ctx, since), c.pruneUnused(ctx, since))
}

// since is the time from which on what was touched stays: some time ago, and not before the oldest build that runs
// began.
func (c *Collector) since(ctx context.Context, age time.Duration) (time.Time, error) {
	since := c.cfg.Now().Add(-age)
	oldest, running, err := c.cfg.OldestBuild(ctx)
	if running && oldest.Before(since) {
		since = oldest
	}
	return since, err
}

// Collect removes the blobs that nobody needs and nobody has put or asked for since the given time.
func (c *Collector) Collect(ctx context.Context, since time.Time) error {
	if _, err := c.cfg.Artifacts.Forget(ctx, since); err != nil {
		return err
	}
	done, err := c.cfg.Blobs.Collect(ctx, since, c.cfg.Artifacts, c.cfg.Storage, c.Revisions())
	c.sayCollected(done)
	return err
}

func (c *Collector) sayCollected(done blob.Collected) {
	if done.Removed > 0 {
		c.cfg.Log.Info("collected garbage", "removed", done.Removed, "freed", done.Freed, "kept", done.Kept)
	}
}

// CollectReleased removes what was released and is needed by nobody else, with what waits if that is asked for. What is
// too young to go waits.
func (c *Collector) CollectReleased(ctx context.Context, waiting bool) error {
	all := c.cfg.Released.take(waiting)
	if len(all.blobs)+len(all.in) == 0 && !all.layers {
		return nil
	}
	since, err := c.since(ctx, Grace)
	pushed := since
	if err == nil && !c.cfg.Low() {
		pushed, err = c.since(ctx, PushGrace)
	}
	if err != nil {
		c.cfg.Released.wait(all)
		return err
	}
	later := newCandidates()
	prune := all.layers
	for repository, of := range all.in {
		digests := slices.Collect(maps.Keys(of))
		gone, rest, e := c.cfg.Artifacts.ForgetIn(ctx, repository, digests, pushed)
		if e != nil {
			err, rest = errors.Join(err, e), digests
		}
		all.add(gone...)
		prune = prune || len(gone) > 0
		if len(rest) > 0 {
			later.addIn(repository, rest...)
		}
	}
	if prune {
		_, young, e := c.prune(ctx, since, true)
		later.layers = young > 0
		err = errors.Join(err, e)
	}
	done, rest, e := c.cfg.Blobs.Release(ctx, slices.Collect(maps.Keys(all.blobs)), since, c.cfg.Artifacts,
		c.cfg.Storage, c.Revisions())
	later.add(rest...)
	c.cfg.Released.wait(later)
	c.sayCollected(done)
	return errors.Join(err, e)
}

// FollowRevisions releases the images of revisions that are deleted, until ctx ends.
func (c *Collector) FollowRevisions(ctx context.Context) error {
	for {
		next, stop, err := c.cfg.Services.Gone(ctx)
		for err == nil {
			var images []string
			images, err = next()
			for _, ref := range images {
				var of []blob.Digest
				_, digest, _ := strings.Cut(ref, "@")
				if err := c.cfg.Artifacts.MarkImage(ctx, digest,
					func(d blob.Digest) { of = append(of, d) }); err != nil {
					c.cfg.Log.Warn("the image of a deleted revision", "image", ref, "err", err)
				}
				c.cfg.Released.Image(of)
			}
		}
		if stop != nil {
			stop()
		}
		// so far behind that deletions are forgotten: the hourly collection finds them
		if !fault.Is(err, fault.OutOfRange) {
			if ctx.Err() != nil || errors.Is(err, store.ErrStopping) {
				return nil
			}
			return err
		}
	}
}

// pruneUnused removes the unpacked layers of no revision and no instance that nobody has asked for since then.
func (c *Collector) pruneUnused(ctx context.Context, since time.Time) error {
	_, _, err := c.prune(ctx, since, false)
	return err
}

// prune removes the unpacked layers of no revision and no instance that nobody has asked for since then, or, with
// images, only those that are of no image of a repository either: what is unpacked already starts faster. Young is how
// many it left because of since.
func (c *Collector) prune(ctx context.Context, since time.Time, images bool) (n, young int, err error) {
	keep := c.cfg.Running()
	add := func(digest string) {
		if dirs, err := c.cfg.Images.Layers(ctx, digest); err == nil { // else it is no image, or not there to be run
			keep = append(keep, dirs...)
		}
	}
	running, err := c.cfg.Services.Images(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, ref := range running {
		_, digest, _ := strings.Cut(ref, "@")
		add(digest)
	}
	if images {
		all, err := c.cfg.Artifacts.Digests(ctx)
		if err != nil {
			return 0, 0, err
		}
		for _, d := range all {
			add(string(d))
		}
	}
	n, young, err = c.cfg.Images.Prune(ctx, keep, since)
	if n > 0 {
		c.cfg.Log.Info("removed unpacked layers", "removed", n)
	}
	return n, young, err
}

// Revisions keep what they run, whether a repository still has it or not.
type Revisions struct {
	services  Services
	artifacts Artifacts
}

// Revisions returns what revisions need of the blobs.
func (c *Collector) Revisions() Revisions { return Revisions{c.cfg.Services, c.cfg.Artifacts} }

// Needed calls keep for all that Mark does: revisions are few.
func (r Revisions) Needed(ctx context.Context, _ []blob.Digest, keep func(blob.Digest)) error {
	return r.Mark(ctx, keep)
}

// Mark calls keep for all that the images of revisions are made of.
func (r Revisions) Mark(ctx context.Context, keep func(blob.Digest)) error {
	images, err := r.services.Images(ctx)
	if err != nil {
		return err
	}
	for _, ref := range images {
		_, digest, ok := strings.Cut(ref, "@")
		if !ok {
			continue
		}
		if err := r.artifacts.MarkImage(ctx, digest, keep); err != nil {
			return err
		}
	}
	return nil
}
