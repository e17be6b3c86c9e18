package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"giggle/blob"
	"giggle/fault"
)

// Kind says how an image came into the mirror.
type Kind string

const (
	Added     Kind = "added"    // by hand
	Cached    Kind = "cached"   // pulled when it was asked for
	MadeStand Kind = "stand-in" // made here in place of the original
)

// cached is an image that was pulled when it was asked for. It is there as blobs: each platform unpacks what it runs,
// so that what is removed here is nobody's.
type cached struct {
	Entry
	Checked time.Time     // when the registry was last asked what its tag is
	Used    time.Time     // when it was last asked for, to within useful
	Parts   []blob.Digest // all blobs that it is made of
}

const (
	fresh  = 10 * time.Minute // a tag is not asked for again within
	useful = 10 * time.Minute
	// inUse is how long an image stays after it was asked for, whatever else wants its place: a build that has read its
	// manifest reads its layers later.
	inUse     = time.Hour
	maxCached = 5000 // images
	// halfLife is how long what is half downloaded waits for somebody to go on.
	halfLife = 7 * 24 * time.Hour
)

func (m *Mirror) cacheDir() string   { return filepath.Join(m.dir, "cache") }
func (m *Mirror) cacheIndex() string { return filepath.Join(m.dir, "cache.json") }

// cache lists the cached images by name. One that can't be read is an empty one: all of it can be pulled again.
func (m *Mirror) cache() ([]cached, error) {
	b, err := os.ReadFile(m.cacheIndex())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []cached
	if json.Unmarshal(b, &out) != nil {
		return nil, nil
	}
	return out, nil
}

// changeCache replaces the list of cached images.
func (m *Mirror) changeCache(ctx context.Context, change func([]cached) []cached) error {
	lock, err := lockFile(ctx, filepath.Join(m.dir, "cache.lock"))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	all, err := m.cache()
	if err != nil {
		return err
	}
	all = change(all)
	slices.SortFunc(all, func(a, b cached) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return replaceFile(m.cacheIndex(), b, 0o644)
}

// findCached finds a cached image by a familiar name, by tag or by digest.
func (m *Mirror) findCached(name string) (cached, bool, error) {
	all, err := m.cache()
	if err != nil {
		return cached{}, false, err
	}
	i := slices.IndexFunc(all, func(c cached) bool { return c.is(name) })
	if i < 0 {
		return cached{}, false, nil
	}
	return all[i], true, nil
}

// remember puts an image into the list. One that had its tag stays by its digest.
func (m *Mirror) remember(ctx context.Context, c cached) error {
	return m.changeCache(ctx, func(all []cached) []cached {
		pinned := Repository(c.Name) + "@"
		var out []cached
		for _, x := range all {
			if x.Name == c.Name && x.Digest != c.Digest {
				x.Name = pinned + x.Digest
			}
			// A digest needs no entry of its own where a tag has it.
			if x.Name == c.Name || x.Name == pinned+c.Digest ||
				slices.ContainsFunc(out, func(y cached) bool { return y.Name == x.Name }) {
				continue
			}
			out = append(out, x)
		}
		return append(out, c)
	})
}

// touch changes the times of an image.
func (m *Mirror) touch(ctx context.Context, name string, change func(*cached)) error {
	return m.changeCache(ctx, func(all []cached) []cached {
		for i := range all {
			if all[i].Name == name {
				change(&all[i])
			}
		}
		return all
	})
}

// forgetCached takes an image out of the list, and reports whether it was there.
func (m *Mirror) forgetCached(ctx context.Context, name string) (had bool, err error) {
	err = m.changeCache(ctx, func(all []cached) []cached {
		return slices.DeleteFunc(all, func(c cached) bool {
			had = had || c.Name == name
			return c.Name == name
		})
	})
	return had, err
}

// needs are what the cached images are made of, for the collection.
type needs struct{ m *Mirror }

func (n needs) Mark(_ context.Context, keep func(blob.Digest)) error {
	all, err := n.m.cache()
	for _, c := range all {
		for _, d := range c.Parts {
			keep(d)
		}
	}
	return err
}

// Collected is what a collection of the cache did.
type Collected struct {
	Images []string // that are not cached any more
	Freed  int64    // bytes
	Size   int64    // of the cache, after it
}

// Collect makes the cache of pulled images as small as the limit, with room for so many bytes more: those that have not
// been asked for longest go. It fails with ResourceExhausted where all of the rest was asked for just now.
func (m *Mirror) Collect(ctx context.Context, limit, room int64, now time.Time) (done Collected, err error) {
	defer fault.Wrap(&err, "mirror.Collect")
	blobs, err := m.cacheBlobs()
	if err != nil {
		return done, err
	}
	// Those that are young may belong to a pull, which has no entry yet.
	removed, err := blobs.Collect(ctx, now.Add(-inUse), needs{m})
	if err != nil {
		return done, err
	}
	done.Freed = removed.Freed
	sizes := map[blob.Digest]int64{}
	var total int64
	if err := blobs.Walk(ctx, func(i blob.Info) error {
		sizes[i.Digest] = i.Size
		total += i.Size
		return nil
	}); err != nil {
		return done, err
	}
	before, count := total, 0
	half, err := m.abandoned(ctx, blobs, max(limit-total-room, 0))
	if err != nil {
		return done, err
	}
	total += half
	err = m.changeCache(ctx, func(all []cached) []cached {
		slices.SortStableFunc(all, func(a, b cached) int { return a.Used.Compare(b.Used) })
		users := map[blob.Digest]int{}
		for _, c := range all {
			for _, d := range c.Parts {
				users[d]++
			}
		}
		var left []cached
		count = len(all)
		for _, c := range all {
			if total+room <= limit && count < maxCached || now.Sub(c.Used) < inUse {
				left = append(left, c)
				continue
			}
			count--
			done.Images = append(done.Images, c.Name)
			for _, d := range c.Parts {
				if users[d]--; users[d] == 0 {
					total -= sizes[d]
				}
			}
		}
		return left
	})
	if err != nil {
		return done, err
	}
	removed, err = blobs.Collect(ctx, now.Add(-inUse), needs{m})
	done.Freed, done.Size = done.Freed+removed.Freed, before-removed.Freed
	if err == nil && (total+room > limit || count >= maxCached) {
		err = fault.New(fault.ResourceExhausted,
			"The cache of foreign images has no room for %s: its %d images of %s were all used within the last hour, and %s are the most (--pull-limit).",
			bytesText(room), count, bytesText(total), bytesText(limit))
	}
	return done, err
}

func (m *Mirror) partialDir() string { return filepath.Join(m.cacheDir(), "partial") }

// abandoned returns how many bytes there are of downloads into the cache that nobody goes on with. Those that are more
// than the room that is left for them are removed, the oldest first.
func (m *Mirror) abandoned(ctx context.Context, blobs *blob.Dir, room int64) (total int64, err error) {
	entries, err := os.ReadDir(m.partialDir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	type half struct {
		note *os.File
		id   string
		size int64
		at   time.Time
	}
	var all []half
	defer func() {
		for _, h := range all {
			err = errors.Join(err, h.note.Close())
		}
	}()
	for _, e := range entries {
		note, ok := tryLock(filepath.Join(m.partialDir(), e.Name()))
		if !ok { // it goes on
			continue
		}
		h := half{note: note}
		all = append(all, h)
		b := make([]byte, 64)
		n, _ := note.Read(b) // one that is empty has no upload
		h.id = string(b[:n])
		if h.size, err = blobs.UploadSize(ctx, h.id); err != nil && !fault.Is(err, fault.NotFound) {
			return total, err
		}
		if st, err := note.Stat(); err == nil {
			h.at = st.ModTime()
		}
		all[len(all)-1] = h
		total += h.size
	}
	slices.SortFunc(all, func(a, b half) int { return a.at.Compare(b.at) })
	for _, h := range all {
		if total <= room {
			break
		}
		if err := blobs.AbortUpload(ctx, h.id); err != nil && !fault.Is(err, fault.NotFound) {
			return total, err
		}
		if err := os.Remove(h.note.Name()); err != nil {
			return total, err
		}
		total -= h.size
	}
	return total, err
}
