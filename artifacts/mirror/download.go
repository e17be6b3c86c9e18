package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/blob"
	"giggle/fault"
)

const (
	maxDownloads = 3   // layers that are downloaded at once
	maxLayers    = 512 // of one image
	maxTries     = 5   // of one layer without a byte of progress
	maxRestarts  = 3   // of one layer from its first byte
)

// downloads brings blobs of registries into a directory of blobs. What came of one before the connection broke, or the
// process ended, is not fetched again.
type downloads struct {
	blobs  *blob.Dir
	dir    string        // of what is half there: a file for each digest, with the id of its upload in blobs
	places chan struct{} // one for each download at once
	pause  time.Duration // before the second try, doubled for each further one
	now    func() time.Time
}

func newDownloads(blobs *blob.Dir, dir string, pause time.Duration, now func() time.Time) (*downloads, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &downloads{blobs: blobs, dir: dir, places: make(chan struct{}, maxDownloads), pause: pause, now: now}, nil
}

// picture is an image at a registry: what has to be there for it to be here.
type picture struct {
	manifest document
	index    *document // that it was chosen from, nil for none
	parts    []v1.Descriptor
	size     int64 // of the parts
}

// look reads an image's manifest.
func (c *client) look(ctx context.Context, reference string) (p picture, err error) {
	if p.manifest, err = c.manifest(ctx, reference); err != nil {
		return p, err
	}
	for depth := 0; p.manifest.index; depth++ {
		if p.index == nil {
			index := p.manifest
			p.index = &index
		}
		if depth == 3 {
			return p, fault.New(fault.FailedPrecondition, "%s has indexes in indexes for this image.", c.host)
		}
		d, err := platformOf(p.manifest.raw)
		if err != nil {
			return p, err
		}
		if p.manifest, err = c.manifest(ctx, d.Digest.String()); err != nil {
			return p, err
		}
	}
	m, err := v1.ParseManifest(strings.NewReader(string(p.manifest.raw)))
	if err != nil {
		return p, fault.New(fault.DataLoss, "%s sends a manifest that can't be read: %v.", c.host, err)
	}
	if len(m.Layers) > maxLayers {
		return p, fault.New(fault.FailedPrecondition, "The image has %d layers; %d are the most.", len(m.Layers), maxLayers)
	}
	if m.Config.Size > maxDocument {
		return p, fault.New(fault.FailedPrecondition, "The image's configuration has %d bytes.", m.Config.Size)
	}
	seen := map[v1.Hash]bool{}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, err := blob.ParseDigest(d.Digest.String()); err != nil || d.Size < 0 || d.Size > 1<<45 {
			return p, fault.New(fault.DataLoss, "%s sends a manifest with a part that can't be: %.100s of %d bytes.", c.host,
				d.Digest, d.Size)
		}
		if !seen[d.Digest] {
			seen[d.Digest] = true
			p.parts = append(p.parts, d)
			p.size += d.Size
		}
	}
	return p, nil
}

// blobs are the digests of all that an image is made of.
func (p picture) blobs() []blob.Digest {
	out := []blob.Digest{blob.Digest(p.manifest.digest)}
	if p.index != nil {
		out = append(out, blob.Digest(p.index.digest))
	}
	for _, d := range p.parts {
		out = append(out, blob.Digest(d.Digest.String()))
	}
	return out
}

// fetch brings all of an image. The first part that can't be had ends the others.
func (d *downloads) fetch(ctx context.Context, c *client, p picture, say func(string)) error {
	for _, dg := range p.blobs() {
		defer d.blobs.Reserve(dg)()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, part := range p.parts {
		wg.Go(func() {
			if err := d.part(ctx, c, part, say); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, doc := range []*document{p.index, &p.manifest} { // last, so that what is there is whole
		if doc == nil {
			continue
		}
		if err := d.keep(ctx, *doc); err != nil {
			return err
		}
	}
	return nil
}

// keep stores a document, by the way of an upload: half-written files of another kind are removed by each process that
// opens the directory.
func (d *downloads) keep(ctx context.Context, doc document) error {
	id, err := d.blobs.BeginUpload(ctx)
	if err != nil {
		return err
	}
	if _, err = d.blobs.AppendUpload(ctx, id, 0, strings.NewReader(string(doc.raw))); err == nil {
		_, err = d.blobs.CommitUpload(ctx, id, blob.Digest(doc.digest))
	}
	if err != nil {
		return errors.Join(err, d.blobs.AbortUpload(context.WithoutCancel(ctx), id))
	}
	return nil
}

// have reports whether a blob is there, and makes it young.
func (d *downloads) have(ctx context.Context, dg blob.Digest) (bool, error) {
	release, err := d.blobs.Hold(ctx, dg)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err == nil {
		release()
	}
	return err == nil, err
}

// part brings one blob, where it is not there yet.
func (d *downloads) part(ctx context.Context, c *client, part v1.Descriptor, say func(string)) error {
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	dg := blob.Digest(part.Digest.String())
	note, err := lockFile(ctx, filepath.Join(d.dir, dg.Hex()))
	if err != nil {
		return err
	}
	defer func() { _ = note.Close() }()
	if have, err := d.have(ctx, dg); err != nil || have { // since, or by another process
		return errors.Join(err, os.Remove(note.Name()))
	}
	id, size, err := d.resume(ctx, note)
	if err != nil {
		return err
	}
	begin, from := d.now(), size
	if err := d.complete(ctx, c, part, note, id, size); err != nil {
		return err
	}
	resumed := ""
	if from > 0 {
		resumed = fmt.Sprintf(", %s of it before", bytesText(from))
	}
	say(fmt.Sprintf("%s: %s in %v%s", dg.Hex()[:12], bytesText(part.Size), d.now().Sub(begin).Round(100*time.Millisecond),
		resumed))
	return os.Remove(note.Name())
}

// complete downloads until the blob is whole.
func (d *downloads) complete(
	ctx context.Context, c *client, part v1.Descriptor, note *os.File, id string, size int64,
) error {
	dg := blob.Digest(part.Digest.String())
	damaged, restarts := 0, 0
	for tries := 0; ; {
		was := size
		var err error
		if size < part.Size {
			size, err = d.more(ctx, c, part, id, size)
		}
		if err == nil && size == part.Size {
			_, err = d.blobs.CommitUpload(ctx, id, dg)
			if err == nil {
				return nil
			}
			if !fault.Is(err, fault.InvalidArgument) {
				return err
			}
			// What came before a restart may be what is wrong: once more from the beginning.
			if damaged++; damaged == 2 {
				return errors.Join(fault.New(fault.DataLoss,
					"%s sends something else as the layer %s: it is damaged, or not what it says.", c.host, dg),
					d.blobs.AbortUpload(ctx, id), os.Remove(note.Name()))
			}
			size = part.Size + 1
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case size > part.Size || fault.Is(err, fault.OutOfRange): // it begins anew
			if restarts++; restarts > maxRestarts {
				return fault.New(fault.Unavailable, "%s ends the layer %s before it is whole.", c.host, dg)
			}
			if err := d.blobs.AbortUpload(ctx, id); err != nil {
				return err
			}
			if id, err = d.begin(ctx, note); err != nil {
				return err
			}
			size = 0
		case err != nil && !passing(err):
			return err
		}
		if size > was {
			tries = 0
		} else if tries++; tries == maxTries {
			if err == nil {
				err = fault.New(fault.Unavailable, "%s ends the layer %s before it is whole.", c.host, dg)
			}
			return err
		}
		if err := sleep(ctx, d.pause<<tries/2); err != nil {
			return err
		}
	}
}

// more downloads from where the blob ends, and returns where it ends then.
func (d *downloads) more(ctx context.Context, c *client, part v1.Descriptor, id string, size int64) (int64, error) {
	h := http.Header{}
	if size > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", size))
	}
	ctx = context.WithValue(ctx, bulk{}, true)
	resp, err := c.do(ctx, http.MethodGet, "blobs", part.Digest.String(), h, http.StatusOK, http.StatusPartialContent,
		http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return size, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	begin := fmt.Sprintf("bytes %d-", size)
	if size > 0 && (resp.StatusCode != http.StatusPartialContent ||
		!strings.HasPrefix(resp.Header.Get("Content-Range"), begin)) || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return size, fault.New(fault.OutOfRange, "%s does not go on from byte %d.", c.host, size)
	}
	var broken error
	body := readerFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		if err != nil && err != io.EOF {
			broken = err
		}
		return n, err
	})
	end, err := d.blobs.AppendUpload(ctx, id, size, io.LimitReader(body, part.Size-size))
	if broken != nil && err != nil {
		err = c.failure(ctx, broken)
	}
	return end, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// resume finds the upload of a blob that was begun, or begins one.
func (d *downloads) resume(ctx context.Context, note *os.File) (id string, size int64, err error) {
	b, err := io.ReadAll(io.LimitReader(note, 64))
	if err != nil {
		return "", 0, err
	}
	size, err = d.blobs.UploadSize(ctx, string(b))
	if fault.Is(err, fault.NotFound) {
		id, err = d.begin(ctx, note)
		return id, 0, err
	}
	return string(b), size, err
}

func (d *downloads) begin(ctx context.Context, note *os.File) (string, error) {
	id, err := d.blobs.BeginUpload(ctx)
	if err != nil {
		return "", err
	}
	if err := note.Truncate(0); err != nil {
		return "", err
	}
	_, err = note.WriteAt([]byte(id), 0)
	return id, err
}

// expire removes what was half there and that nobody has gone on with since.
func (d *downloads) expire(ctx context.Context, since time.Time) error {
	_, err := d.blobs.ExpireUploads(ctx, since)
	notes, readErr := os.ReadDir(d.dir)
	for _, n := range notes {
		if st, err := n.Info(); err == nil && st.ModTime().Before(since) {
			_ = os.Remove(filepath.Join(d.dir, n.Name())) // the next one makes it again
		}
	}
	return errors.Join(err, readErr)
}

// lockFile opens a file that is its own lock among processes, and makes it where it is missing.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if locked(f) {
			return f, nil
		}
		if err := errors.Join(f.Close(), sleep(ctx, 50*time.Millisecond)); err != nil {
			return nil, err
		}
	}
}

// tryLock is lockFile for a file that is there and that nobody has.
func tryLock(path string) (*os.File, bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, false
	}
	if !locked(f) {
		_ = f.Close() // nothing was written
		return nil, false
	}
	return f, true
}

// locked locks a file, unless somebody has it, or has removed it.
func locked(f *os.File) bool {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	mine, err := f.Stat()
	named, gone := os.Stat(f.Name())
	return err == nil && gone == nil && os.SameFile(mine, named)
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// passing reports whether an error may be gone in a while: what is cached serves until then.
func passing(err error) bool {
	return fault.Is(err, fault.Unavailable) || fault.Is(err, fault.ResourceExhausted) ||
		fault.Is(err, fault.DeadlineExceeded)
}

// bytesText is a size for people.
func bytesText(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d kB", (n+1<<10-1)>>10)
	}
	return fmt.Sprintf("%d MB", (n+1<<19)>>20)
}
