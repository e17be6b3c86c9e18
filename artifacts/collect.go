package artifacts

import (
	"context"
	"strings"
	"sync"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

var (
	_ blob.Marker = (*Artifacts)(nil)
	_ blob.Needer = (*Artifacts)(nil)
)

// Mark calls keep for every blob that a repository has, and for the manifests.
func (a *Artifacts) Mark(ctx context.Context, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "artifacts.Mark")
	return a.store.View(ctx, func(tx *store.Tx) error {
		rows, err := blobs.List(tx, "projects/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			keep(digestIn(r.Name))
		}
		versions, err := manifests.List(tx, "projects/", "", 0)
		for _, r := range versions {
			keep(r.Value.Digest)
			for _, d := range r.Value.Blobs {
				keep(d)
			}
		}
		return err
	})
}

// Digests returns all manifests that a repository has.
func (a *Artifacts) Digests(ctx context.Context) (all []blob.Digest, err error) {
	defer fault.Wrap(&err, "artifacts.Digests")
	err = a.store.View(ctx, func(tx *store.Tx) error {
		rows, err := manifests.List(tx, "projects/", "", 0)
		for _, r := range rows {
			all = append(all, r.Value.Digest)
		}
		return err
	})
	return all, err
}

// Needed calls keep for those of the blobs that a repository has, or that are manifests. What a manifest is made of,
// its repository has.
func (a *Artifacts) Needed(ctx context.Context, of []blob.Digest, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "artifacts.Needed")
	return a.store.View(ctx, func(tx *store.Tx) error {
		for _, d := range of {
			n, err := blobs.CountBy(tx, string(d), 1)
			if err == nil && n == 0 {
				n, err = manifests.CountBy(tx, string(d), 1)
			}
			if err != nil {
				return err
			}
			if n > 0 {
				keep(d)
			}
		}
		return nil
	})
}

// ForgetIn is Forget for some blobs of one repository. It returns those that it does not have any more, and those that
// it has because they are too young: a push may count on them.
func (a *Artifacts) ForgetIn(
	ctx context.Context, repository resource.Child, of []blob.Digest, since time.Time,
) (gone, later []blob.Digest, err error) {
	defer fault.Wrap(&err, "artifacts.ForgetIn(%s)", repository)
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		gone, later = nil, nil
		versions, err := manifests.List(tx, repository.String()+"/packages/", "", 0)
		if err != nil {
			return err
		}
		used := make(map[blob.Digest]bool)
		for _, r := range versions {
			for _, d := range r.Value.refers() {
				used[d] = true
			}
		}
		for _, d := range of {
			if used[d] {
				continue
			}
			row, err := blobs.Get(tx, blobName(repository, d))
			switch {
			case fault.Is(err, fault.NotFound):
				gone = append(gone, d)
				continue
			case err != nil:
				return err
			}
			if !row.Updated.Before(since) || !a.asked.knows(since) || a.asked.since(row.Name, since) {
				later = append(later, d)
				continue
			}
			if err := blobs.Delete(tx, row.Name); err != nil {
				return err
			}
			gone = append(gone, d)
		}
		return nil
	})
	return gone, later, err
}

// MarkImage calls keep for all that the image or index with a digest is made of, whether a repository has it or not:
// what runs stays, although it was deleted. One whose manifest is gone marks nothing.
func (a *Artifacts) MarkImage(ctx context.Context, digest string, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "artifacts.MarkImage(%.80s)", digest)
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	all, err := a.tree(ctx, d, 2)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	for _, m := range all {
		keep(m.Digest)
		for _, d := range m.Blobs {
			keep(d)
		}
	}
	return err
}

// Forget takes out of the repositories the blobs that no manifest there refers to and that nobody has pushed, mounted
// or asked for since the given time, and returns how many they were: what a deleted image leaves, and a push that never
// ended. It does nothing where the process has not known who asks since then.
func (a *Artifacts) Forget(ctx context.Context, since time.Time) (n int, err error) {
	defer fault.Wrap(&err, "artifacts.Forget")
	if !a.asked.knows(since) {
		return 0, nil
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		n = 0
		versions, err := manifests.List(tx, "projects/", "", 0)
		if err != nil {
			return err
		}
		used := make(map[string]bool)
		for _, r := range versions {
			repository, _, _ := strings.Cut(r.Name, "/packages/")
			for _, d := range r.Value.Blobs {
				used[repository+"/blobs/"+string(d)] = true
			}
		}
		rows, err := blobs.List(tx, "projects/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if used[r.Name] || !r.Updated.Before(since) || a.asked.since(r.Name, since) {
				continue
			}
			if err := blobs.Delete(tx, r.Name); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	a.asked.drop(since)
	return n, err
}

// hold keeps blobs from being collected until release is called: a row says then that they are needed.
func (a *Artifacts) hold(ctx context.Context, all ...blob.Digest) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	for _, d := range all {
		one, err := a.blobs.Hold(ctx, d)
		if fault.Is(err, fault.NotFound) {
			err = withReason(ReasonBlob, fault.NotFound, "Blob %s is not there; push it again.", d)
		}
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, one)
	}
	return release, nil
}

// recently is what was asked for lately, and when last. A client that was told that a blob is there doesn't send it.
type recently struct {
	start time.Time
	mu    *sync.Mutex
	last  map[string]time.Time
}

func newRecently(start time.Time) recently {
	return recently{start, new(sync.Mutex), make(map[string]time.Time)}
}

func (r recently) add(name string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[name] = at
}

// knows reports whether nothing can be missing of what was asked for since then.
func (r recently) knows(since time.Time) bool { return !since.Before(r.start) }

func (r recently) since(name string, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.last[name]
	return ok && !at.Before(since)
}

// drop forgets what was asked for before then.
func (r recently) drop(since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, at := range r.last {
		if at.Before(since) {
			delete(r.last, name)
		}
	}
}
