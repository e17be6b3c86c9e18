package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"giggle/fault"
)

// upload is what this process remembers of a resumable upload. Its bytes lie in a file named by the id, so that a
// restart forgets nothing but the running hash.
type upload struct {
	mu     sync.Mutex
	hash   hash.Hash // sha256 of the first hashed bytes: an upload that was never interrupted is not read again
	hashed int64
}

// BeginUpload starts a resumable upload and returns its id. The id is unguessable: it may be handed to the client.
func (d *Dir) BeginUpload(ctx context.Context) (_ string, err error) {
	defer fault.Wrap(&err, "blob.BeginUpload")
	id := rand.Text()
	f, err := os.OpenFile(filepath.Join(d.uploadDir(), id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return id, syncDir(d.uploadDir())
}

// lockUpload opens the file of an upload and keeps others from it until the returned function is called.
func (d *Dir) lockUpload(id string) (*upload, *os.File, func(), error) {
	gone := fault.New(fault.NotFound, "Upload %.64q was not found.", id)
	if len(id) != 26 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" { // the form of rand.Text
		return nil, nil, nil, gone
	}
	d.mu.Lock()
	u := d.uploads[id]
	if u == nil {
		u = &upload{hash: sha256.New()}
		d.uploads[id] = u
	}
	d.mu.Unlock()

	u.mu.Lock()
	f, err := os.OpenFile(filepath.Join(d.uploadDir(), id), os.O_RDWR, 0)
	if err != nil {
		u.mu.Unlock()
		d.forget(id)
		if errors.Is(err, fs.ErrNotExist) {
			err = gone
		}
		return nil, nil, nil, err
	}
	return u, f, func() { f.Close(); u.mu.Unlock() }, nil
}

func (d *Dir) forget(id string) {
	d.mu.Lock()
	delete(d.uploads, id)
	d.mu.Unlock()
}

// AppendUpload adds what r yields at offset and returns the size so far. An offset that is not the present size is an
// OutOfRange fault. When r fails midway, what came stays, and the client may go on from the size returned.
func (d *Dir) AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (_ int64, err error) {
	defer fault.Wrap(&err, "blob.AppendUpload(%.64s)", id)
	u, f, unlock, err := d.lockUpload(id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if offset != size {
		return size, fault.New(fault.OutOfRange, "The upload has %d bytes: it can't go on from offset %d.", size,
			offset)
	}
	// The file first: on a short write the hash would know bytes that the file lacks, so it counts what was written.
	to := &steady{f: f, end: size, begun: size}
	var w io.Writer = to
	if u.hashed == size {
		w = &hashingWriter{to, u}
	}
	n, err := copyBytes(ctx, d.guarded(w), r)
	return size + n, err
}

type hashingWriter struct {
	f io.Writer
	u *upload
}

func (w *hashingWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.u.hash.Write(p[:n])
	w.u.hashed += int64(n)
	return n, err
}

// UploadSize returns how many bytes the upload has, or a NotFound fault.
func (d *Dir) UploadSize(ctx context.Context, id string) (_ int64, err error) {
	defer fault.Wrap(&err, "blob.UploadSize(%.64s)", id)
	_, f, unlock, err := d.lockUpload(id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// HasUpload reports whether there is an upload of an id. It waits for nobody who adds to it.
func (d *Dir) HasUpload(id string) bool {
	_, err := os.Stat(filepath.Join(d.uploadDir(), filepath.Base(id)))
	return err == nil
}

// CommitUpload turns the upload into a blob, as Put does. On a digest mismatch the upload stays.
func (d *Dir) CommitUpload(ctx context.Context, id string, want Digest) (_ Info, err error) {
	defer fault.Wrap(&err, "blob.CommitUpload(%.64s)", id)
	algorithm, h, err := hasher(want)
	if err != nil {
		return Info{}, err
	}
	u, f, unlock, err := d.lockUpload(id)
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	if algorithm == "sha256" && u.hashed == st.Size() {
		h = u.hash
	} else if _, err := copyBytes(ctx, h, f); err != nil {
		return Info{}, err
	}
	got := digestOf(algorithm, h)
	if want != "" && got != want {
		return Info{}, mismatch(want, got)
	}
	info, err := d.keep(f, got)
	if err != nil {
		return Info{}, err
	}
	d.forget(id)
	return info, syncDir(d.uploadDir())
}

// AbortUpload drops the upload and its bytes, or returns a NotFound fault.
func (d *Dir) AbortUpload(ctx context.Context, id string) (err error) {
	defer fault.Wrap(&err, "blob.AbortUpload(%.64s)", id)
	_, f, unlock, err := d.lockUpload(id)
	if err != nil {
		return err
	}
	defer unlock()
	d.forget(id)
	return os.Remove(f.Name())
}

// ExpireUploads drops the uploads that nobody has added to since the given time and returns how many they were.
func (d *Dir) ExpireUploads(ctx context.Context, since time.Time) (n int, err error) {
	defer fault.Wrap(&err, "blob.ExpireUploads")
	entries, err := os.ReadDir(d.uploadDir())
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.ModTime().Before(since) {
			continue
		}
		if err := d.AbortUpload(ctx, e.Name()); err == nil {
			n++
		} else if !fault.Is(err, fault.NotFound) {
			return n, err
		}
	}
	return n, ctx.Err()
}
