package cloud

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// How often everything is looked through for what nobody needs, and how young a blob is left alone then, whoever needs
// it: longer than anything takes from its first byte to its name, a build of 24 hours included.
const (
	collectEvery = time.Hour
	young        = 26 * time.Hour
)

// What was deleted is collected at once, on the disk's behalf not sooner than this: whoever makes a blob says within moments
// where a marker finds it, or holds it. What builds that run have touched stays till they have ended.
const (
	grace      = 10 * time.Second
	pushGrace  = 10 * time.Minute // for blobs of a repository that a push may count on; grace when the disk is low
	gather     = 100 * time.Millisecond
	patience   = 5 * time.Second  // until what was too young is looked at again
	watchDisk  = 10 * time.Second // how often it is asked whether the disk is low
	idleUpload = time.Hour        // how long an upload that nobody goes on with is kept then
	lowEvery   = time.Minute      // how often everything is looked through then
)

// released is what something has ceased to refer to, and nothing may refer to any more.
type released struct {
	wake chan struct{} // a token: there is something new

	mu      sync.Mutex
	fresh   candidates
	waiting candidates // too young when they were looked at
}

// candidates are what may go.
type candidates struct {
	blobs  map[blob.Digest]bool
	in     map[resource.Child]map[blob.Digest]bool // blobs that a repository may still have
	layers bool                                    // what is unpacked of images that are gone, perhaps
}

func newCandidates() candidates {
	return candidates{blobs: map[blob.Digest]bool{}, in: map[resource.Child]map[blob.Digest]bool{}}
}

func (c *candidates) add(of ...blob.Digest) {
	for _, d := range of {
		c.blobs[d] = true
	}
}

func (c *candidates) addIn(in resource.Child, of ...blob.Digest) {
	if c.in[in] == nil {
		c.in[in] = make(map[blob.Digest]bool)
	}
	for _, d := range of {
		c.in[in][d] = true
	}
}

func (c *candidates) merge(o candidates) {
	maps.Copy(c.blobs, o.blobs)
	for in, of := range o.in {
		c.addIn(in, slices.Collect(maps.Keys(of))...)
	}
	c.layers = c.layers || o.layers
}

func newReleased() *released {
	return &released{wake: make(chan struct{}, 1), fresh: newCandidates(), waiting: newCandidates()}
}

// change changes what was released, and wakes who collects it.
func (r *released) change(fn func(c *candidates)) {
	r.mu.Lock()
	fn(&r.fresh)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Object is a storage.Options.Released.
func (r *released) Object(d blob.Digest) { r.change(func(c *candidates) { c.add(d) }) }

// Repository is an artifacts.Artifacts.Released.
func (r *released) Repository(in resource.Child, of []blob.Digest) {
	r.change(func(c *candidates) { c.addIn(in, of...) })
}

// Image is for what an image is made of that a revision has ceased to run.
func (r *released) Image(of []blob.Digest) {
	r.change(func(c *candidates) {
		c.add(of...)
		c.layers = true
	})
}

// Full is a disk.Config.Full: whoever collects looks at the disk when he is woken.
func (r *released) Full() { r.change(func(*candidates) {}) }

// take returns what was released and forgets it; what waits only if it is asked for.
func (r *released) take(waiting bool) candidates {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.fresh
	r.fresh = newCandidates()
	if waiting {
		out.merge(r.waiting)
		r.waiting = newCandidates()
	}
	return out
}

// wait puts back what was too young.
func (r *released) wait(c candidates) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting.merge(c)
}

// collectGarbage gives back what nobody needs until ctx ends: what was deleted at once, everything else from time to time
// and when the disk is low.
func (c *Cloud) collectGarbage(ctx context.Context) error {
	hourly, watch, retry := time.NewTicker(collectEvery), time.NewTicker(watchDisk), time.NewTicker(patience)
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
			err = errors.Join(c.collect(ctx, c.cfg.Now().Add(-young)), c.pruneUnused(ctx, c.cfg.Now().Add(-young)))
		case <-watch.C:
			err = errors.Join(c.ballast.Restore(), c.auditBallast.Restore(), c.storage.FinishLogs(ctx))
		case <-c.released.wake:
			select { // whoever deletes one deletes many
			case <-time.After(gather):
			case <-ctx.Done():
			}
			err = c.collectReleased(ctx, false)
		case <-retry.C:
			err = c.collectReleased(ctx, true)
		}
		if c.disk.Low() && time.Since(lastLow) > lowEvery {
			lastLow = time.Now()
			err = errors.Join(err, c.makeRoom(ctx))
		}
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("garbage collection", "err", err)
		}
	}
}

// makeRoom gives back all that nobody needs but the youngest, and what came of uploads that nobody goes on with.
func (c *Cloud) makeRoom(ctx context.Context) error {
	since, err := c.since(ctx, grace)
	if err != nil {
		return err
	}
	_, err = c.blobs.ExpireUploads(ctx, c.cfg.Now().Add(-idleUpload))
	return errors.Join(err, c.collectReleased(ctx, true), c.collect(ctx, since), c.pruneUnused(ctx, since))
}

// since is the time from which on what was touched stays: some time ago, and not before the oldest build that runs began.
func (c *Cloud) since(ctx context.Context, age time.Duration) (time.Time, error) {
	since := c.cfg.Now().Add(-age)
	oldest, running, err := c.builds.Oldest(ctx)
	if running && oldest.Before(since) {
		since = oldest
	}
	return since, err
}

// collect removes the blobs that nobody needs and nobody has put or asked for since the given time.
func (c *Cloud) collect(ctx context.Context, since time.Time) error {
	if _, err := c.artifacts.Forget(ctx, since); err != nil {
		return err
	}
	done, err := c.blobs.Collect(ctx, since, c.artifacts, c.storage, revisionImages{c})
	c.sayCollected(done)
	return err
}

func (c *Cloud) sayCollected(done blob.Collected) {
	if done.Removed > 0 {
		c.cfg.Log.Info("collected garbage", "removed", done.Removed, "freed", done.Freed, "kept", done.Kept)
	}
}

// collectReleased removes what was released and is needed by nobody else, with what waits if that is asked for. What is too
// young to go waits.
func (c *Cloud) collectReleased(ctx context.Context, waiting bool) error {
	all := c.released.take(waiting)
	if len(all.blobs)+len(all.in) == 0 && !all.layers {
		return nil
	}
	since, err := c.since(ctx, grace)
	pushed := since
	if err == nil && !c.disk.Low() {
		pushed, err = c.since(ctx, pushGrace)
	}
	if err != nil {
		c.released.wait(all)
		return err
	}
	later := newCandidates()
	prune := all.layers
	for repository, of := range all.in {
		digests := slices.Collect(maps.Keys(of))
		gone, rest, e := c.artifacts.ForgetIn(ctx, repository, digests, pushed)
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
	done, rest, e := c.blobs.Release(ctx, slices.Collect(maps.Keys(all.blobs)), since, c.artifacts, c.storage, revisionImages{c})
	later.add(rest...)
	c.released.wait(later)
	c.sayCollected(done)
	return errors.Join(err, e)
}

// followRevisions releases the images of revisions that are deleted, until ctx ends.
func (c *Cloud) followRevisions(ctx context.Context) error {
	for {
		next, stop, err := c.services.Gone(ctx)
		for err == nil {
			var images []string
			images, err = next()
			for _, ref := range images {
				var of []blob.Digest
				_, digest, _ := strings.Cut(ref, "@")
				if err := c.artifacts.MarkImage(ctx, digest, func(d blob.Digest) { of = append(of, d) }); err != nil {
					c.cfg.Log.Warn("the image of a deleted revision", "image", ref, "err", err)
				}
				c.released.Image(of)
			}
		}
		if stop != nil {
			stop()
		}
		if !fault.Is(err, fault.OutOfRange) { // so far behind that deletions are forgotten: the hourly collection finds them
			if ctx.Err() != nil || errors.Is(err, store.ErrStopping) {
				return nil
			}
			return err
		}
	}
}

// pruneUnused removes the unpacked layers of no revision and no instance that nobody has asked for since then.
func (c *Cloud) pruneUnused(ctx context.Context, since time.Time) error {
	_, _, err := c.prune(ctx, since, false)
	return err
}

// prune removes the unpacked layers of no revision and no instance that nobody has asked for since then, or, with
// images, only those that are of no image of a repository either: what is unpacked already starts faster. Young is how
// many it left because of since.
func (c *Cloud) prune(ctx context.Context, since time.Time, images bool) (n, young int, err error) {
	keep := c.engine.Layers()
	add := func(digest string) {
		if dirs, err := c.images.Layers(ctx, digest); err == nil { // else it is no image, or not there to be run
			keep = append(keep, dirs...)
		}
	}
	running, err := c.services.Images(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, ref := range running {
		_, digest, _ := strings.Cut(ref, "@")
		add(digest)
	}
	if images {
		all, err := c.artifacts.Digests(ctx)
		if err != nil {
			return 0, 0, err
		}
		for _, d := range all {
			add(string(d))
		}
	}
	n, young, err = c.images.Prune(ctx, keep, since)
	if n > 0 {
		c.cfg.Log.Info("removed unpacked layers", "removed", n)
	}
	return n, young, err
}

// revisionImages keeps what revisions run, whether a repository still has it or not.
type revisionImages struct{ c *Cloud }

// Needed calls keep for all that Mark does: revisions are few.
func (r revisionImages) Needed(ctx context.Context, _ []blob.Digest, keep func(blob.Digest)) error {
	return r.Mark(ctx, keep)
}

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
