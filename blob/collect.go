package blob

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// Marker is who knows that blobs are needed: repositories, buckets, revisions, builds.
type Marker interface {
	// Mark calls keep for every blob that is needed. What it reads must be of one moment, not before the call.
	Mark(ctx context.Context, keep func(Digest)) error
}

// Needer is a Marker that can tell of some blobs whether they are needed, without looking at all that it has.
type Needer interface {
	// Needed calls keep for those of the blobs that are needed. What it reads must be of one moment, not before the
	// call.
	Needed(ctx context.Context, of []Digest, keep func(Digest)) error
}

// Collected is what one collection did.
type Collected struct {
	Kept    int   // blobs that are needed, or too young to tell
	Removed int   // blobs
	Freed   int64 // bytes
}

// Hold keeps a blob from being removed until release is called, and makes it young then, so that no collection that is
// under way removes it either. It fails with a NotFound fault. What comes to need a blob holds it first, says so
// where a Marker finds it, and lets go.
func (d *Dir) Hold(ctx context.Context, dg Digest) (release func(), err error) {
	defer fault.Wrap(&err, "blob.Hold(%s)", dg)
	if _, err := ParseDigest(string(dg)); err != nil {
		return nil, err
	}
	d.naming.Lock()
	defer d.naming.Unlock()
	if _, err := os.Stat(d.file(dg)); err != nil {
		return nil, missing(err, dg)
	}
	return d.holdLocked(dg), nil
}

// Reserve is Hold for a blob that is still to come: from its first moment to where a Marker finds it, nothing removes
// it, however long that takes and however young blobs are removed.
func (d *Dir) Reserve(dg Digest) (release func()) {
	d.naming.Lock()
	defer d.naming.Unlock()
	return d.holdLocked(dg)
}

// holdLocked counts who needs a blob. The lock is d.naming.
func (d *Dir) holdLocked(dg Digest) (release func()) {
	d.held[dg]++
	return func() {
		d.naming.Lock()
		defer d.naming.Unlock()
		if d.held[dg]--; d.held[dg] == 0 {
			delete(d.held, dg)
		}
		if _, err := ParseDigest(string(dg)); err == nil {
			_ = rejuvenate(d.file(dg)) // it may never have come
		}
	}
}

// rejuvenate gives a file the time of now, by the clock of its file system.
func rejuvenate(file string) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{now, now}, 0)
}

// Collect removes the blobs that no marker needs and that nobody holds, and nobody has put or held since the given
// time, which is in the past by more than the clock of the file system is coarse. Puts and reads go on beside it: it
// holds them up for no longer than one removal takes. A crash leaves what it was about to remove.
func (d *Dir) Collect(ctx context.Context, since time.Time, markers ...Marker) (c Collected, err error) {
	defer fault.Wrap(&err, "blob.Collect")
	needed := make(map[Digest]bool)
	for _, m := range markers {
		if err := m.Mark(ctx, func(dg Digest) { needed[dg] = true }); err != nil {
			return c, err
		}
	}
	dirty := make(map[string]bool)
	err = d.Walk(ctx, func(i Info) error {
		if needed[i.Digest] || !i.ModTime.Before(since) {
			c.Kept++
			return nil
		}
		gone, err := d.removeOld(i.Digest, since)
		if !gone {
			c.Kept++
		} else {
			c.Removed, c.Freed = c.Removed+1, c.Freed+i.Size
			dirty[filepath.Dir(d.file(i.Digest))] = true
		}
		return err
	})
	for dir := range dirty {
		err = errors.Join(err, syncDir(dir))
	}
	return c, err
}

// Release is Collect for some blobs only: those that something has just ceased to need. It returns those of them that
// nobody needs but that are held or too young, to be asked for again.
func (d *Dir) Release(
	ctx context.Context, these []Digest, since time.Time, needers ...Needer,
) (c Collected, later []Digest, err error) {
	defer fault.Wrap(&err, "blob.Release")
	needed := make(map[Digest]bool)
	for _, n := range needers {
		if err := n.Needed(ctx, these, func(dg Digest) { needed[dg] = true }); err != nil {
			return c, these, err
		}
	}
	dirty := make(map[string]bool)
	for _, dg := range these {
		info, statErr := d.Stat(ctx, dg)
		switch {
		case needed[dg]:
			c.Kept++
			continue
		case fault.Is(statErr, fault.NotFound), fault.Is(statErr, fault.InvalidArgument): // gone already, or no digest
			continue
		case statErr != nil:
			err = errors.Join(err, statErr)
			continue
		}
		gone, e := d.removeOld(dg, since)
		err = errors.Join(err, e)
		if !gone {
			c.Kept++
			later = append(later, dg)
			continue
		}
		c.Removed, c.Freed = c.Removed+1, c.Freed+info.Size
		dirty[filepath.Dir(d.file(dg))] = true
	}
	for dir := range dirty {
		err = errors.Join(err, syncDir(dir))
	}
	return c, later, err
}

// removeOld removes a blob unless it has become young.
func (d *Dir) removeOld(dg Digest, since time.Time) (bool, error) {
	d.naming.Lock()
	defer d.naming.Unlock()
	if d.held[dg] > 0 {
		return false, nil
	}
	st, err := os.Stat(d.file(dg))
	if err != nil || !st.ModTime().Before(since) {
		return false, ignoreMissing(err)
	}
	return true, os.Remove(d.file(dg))
}
