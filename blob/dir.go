// Package blob stores bytes under the digest of their content, in a directory.
//
// It serves the registry, object storage, builds and image unpacking: one copy of each content, verified while it
// streams in, on disk before it is acknowledged. It knows no media types, no names and no owners, and it deletes
// nothing by itself but half-written files: what is still needed is known above, and asked for when it collects.
package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// Info describes one blob.
type Info struct {
	Digest  Digest
	Size    int64 // bytes
	ModTime time.Time
}

// Dir is a store in a directory: blobs in ALGORITHM/XX/HEX, resumable uploads in uploads/, half-written files in tmp/.
// It is safe for concurrent use by one process.
type Dir struct {
	path string

	admit  func(n int64) error
	step   func(string)
	naming sync.Mutex // held while a blob gets its name, or goes
	held   map[Digest]int

	mu      sync.Mutex
	uploads map[string]*upload // the uploads that this process has touched
}

// Open returns the store in the directory path and makes it if it is missing. Half-written files of an earlier
// process are removed; its resumable uploads stay.
func Open(path string) (_ *Dir, err error) {
	defer fault.Wrap(&err, "blob.Open(%s)", path)
	d := &Dir{
		path:    path,
		admit:   func(int64) error { return nil },
		step:    func(string) {},
		held:    map[Digest]int{},
		uploads: map[string]*upload{},
	}
	if err := os.RemoveAll(d.tmp()); err != nil {
		return nil, err
	}
	for _, sub := range []string{d.tmp(), d.uploadDir(), filepath.Join(path, "sha256"), filepath.Join(path, "sha512")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
	}
	return d, syncDir(path)
}

// Guard has admit asked before each piece of content is written, for the disk reserve: what it fails with ends the Put
// or AppendUpload. It is called before anything else.
func (d *Dir) Guard(admit func(n int64) error) { d.admit = admit }

// Steps has fn told of each step that a write has come to: for tests that end the process there. It is called before
// anything else.
func (d *Dir) Steps(fn func(step string)) { d.step = fn }

func (d *Dir) tmp() string       { return filepath.Join(d.path, "tmp") }
func (d *Dir) uploadDir() string { return filepath.Join(d.path, "uploads") }

// file returns where the blob lies. The digest must have been parsed.
func (d *Dir) file(dg Digest) string {
	h := dg.Hex()
	return filepath.Join(d.path, dg.Algorithm(), h[:2], h)
}

// Put stores what r yields and returns when it is on disk. A want that differs from the content's digest is an
// InvalidArgument fault, and nothing is kept; an empty want stores under the sha256 digest.
func (d *Dir) Put(ctx context.Context, r io.Reader, want Digest) (_ Info, err error) {
	defer fault.Wrap(&err, "blob.Put")
	algorithm, h, err := hasher(want)
	if err != nil {
		return Info{}, err
	}
	f, err := os.CreateTemp(d.tmp(), "put-")
	if err != nil {
		return Info{}, err
	}
	defer os.Remove(f.Name()) // finds nothing once the file has its name
	defer f.Close()
	if _, err := copyBytes(ctx, d.guarded(io.MultiWriter(&steady{f: f}, h)), r); err != nil {
		return Info{}, err
	}
	got := digestOf(algorithm, h)
	if want != "" && got != want {
		return Info{}, mismatch(want, got)
	}
	return d.keep(f, got)
}

func mismatch(want, got Digest) error {
	return fault.New(fault.InvalidArgument, "The content's digest is %s, not %s.", got, want)
}

// keep makes the written file f the blob dg: data first, then the name, then the directory that holds the name.
func (d *Dir) keep(f *os.File, dg Digest) (Info, error) {
	// It is young from now on, whenever its last byte came.
	if err := rejuvenate(f.Name()); err != nil {
		return Info{}, err
	}
	if err := f.Sync(); err != nil {
		return Info{}, err
	}
	if err := f.Chmod(0o400); err != nil {
		return Info{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	name := d.file(dg)
	parent := filepath.Dir(name)
	if err := os.Mkdir(parent, 0o700); err == nil {
		err = syncDir(filepath.Dir(parent))
		if err != nil {
			return Info{}, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return Info{}, err
	}
	d.naming.Lock()
	d.step("blob: before it has its name")
	defer d.step("blob: when it has its name")
	err = os.Rename(f.Name(), name)
	d.naming.Unlock()
	if err != nil {
		return Info{}, err
	}
	if err := syncDir(parent); err != nil {
		return Info{}, err
	}
	return Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}, nil
}

// Open returns the content of a blob, to be closed by the caller, or a NotFound fault. The reader is an *os.File, so
// that io.Copy to a socket can use sendfile.
func (d *Dir) Open(ctx context.Context, dg Digest) (_ io.ReadSeekCloser, _ Info, err error) {
	defer fault.Wrap(&err, "blob.Open(%s)", dg)
	if _, err := ParseDigest(string(dg)); err != nil {
		return nil, Info{}, err
	}
	f, err := os.Open(d.file(dg))
	if err != nil {
		return nil, Info{}, missing(err, dg)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, Info{}, err
	}
	return f, Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}, nil
}

// Stat describes a blob without opening it, or returns a NotFound fault.
func (d *Dir) Stat(ctx context.Context, dg Digest) (_ Info, err error) {
	defer fault.Wrap(&err, "blob.Stat(%s)", dg)
	if _, err := ParseDigest(string(dg)); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(d.file(dg))
	if err != nil {
		return Info{}, missing(err, dg)
	}
	return Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}, nil
}

// Delete removes a blob, or returns a NotFound fault. Readers that have it open can read to the end.
func (d *Dir) Delete(ctx context.Context, dg Digest) (err error) {
	defer fault.Wrap(&err, "blob.Delete(%s)", dg)
	if _, err := ParseDigest(string(dg)); err != nil {
		return err
	}
	name := d.file(dg)
	if err := os.Remove(name); err != nil {
		return missing(err, dg)
	}
	return syncDir(filepath.Dir(name))
}

// Walk calls fn for every blob, in the order of their digests, until fn returns an error, which it returns. Blobs that
// come or go meanwhile may or may not be seen.
func (d *Dir) Walk(ctx context.Context, fn func(Info) error) (err error) {
	defer fault.Wrap(&err, "blob.Walk")
	for _, algorithm := range []string{"sha256", "sha512"} {
		err := filepath.WalkDir(filepath.Join(d.path, algorithm), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return ignoreMissing(err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			dg, err := ParseDigest(algorithm + ":" + e.Name())
			if err != nil || !e.Type().IsRegular() {
				return nil // the directories on the way, and what is none of ours
			}
			st, err := e.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			return fn(Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func missing(err error, dg Digest) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "Blob %s was not found.", dg)
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyBytes is io.Copy that ends when ctx does, between two reads.
func copyBytes(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	return io.CopyBuffer(w, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}), buf)
}

// guarded is w as long as there is room for what it is given.
func (d *Dir) guarded(w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if err := d.admit(int64(len(p))); err != nil {
			return 0, err
		}
		return w.Write(p)
	})
}

// maxDirty is how many bytes of a file may wait to be written to the disk.
const maxDirty = 8 << 20

// steady writes to a file so that the disk keeps up. What waits for the disk else, by the gigabyte, makes everybody
// wait who has to have a few bytes on it: each commit of the store.
type steady struct {
	f     *os.File
	end   int64 // of what was written
	begun int64 // to write it to the disk was begun up to here
}

func (s *steady) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	if s.end += int64(n); s.end-s.begun >= maxDirty {
		// The last window is on the disk before the next one is begun. A file system that can't do this does as it did.
		last := min(s.begun, maxDirty)
		_ = unix.SyncFileRange(int(s.f.Fd()), s.begun-last, last,
			unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		_ = unix.SyncFileRange(int(s.f.Fd()), s.begun, s.end-s.begun, unix.SYNC_FILE_RANGE_WRITE)
		s.begun = s.end
	}
	return n, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// syncDir puts the names in a directory on disk.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
