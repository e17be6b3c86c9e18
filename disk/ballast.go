package disk

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// Ballast is a file that is there to be let go: when the last byte of the disk is gone, whoever writes in order to
// delete gets its bytes. It is made again when there is room.
type Ballast struct {
	d    *Disk
	path string
	size int64

	mu sync.Mutex
}

// Ballast returns the ballast at a path, of the given size or 1/32 of a very small file system. Where there is no
// room, it is not there: the bytes that it would have are needed right now.
func (d *Disk) Ballast(path string, size int64) (_ *Ballast, err error) {
	defer fault.Wrap(&err, "disk.Ballast(%s)", filepath.Base(path))
	s, err := d.Space()
	if err != nil {
		return nil, err
	}
	b := &Ballast{d: d, path: path, size: min(size, s.Total/32)}
	if s.Free < b.size { // so that what is needed to start has room
		b.Drop()
	}
	return b, b.Restore()
}

// Drop lets the ballast go, and reports whether it was there: whether it is worth trying again what found the disk
// full.
func (b *Ballast) Drop() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return os.Remove(b.path) == nil
}

// Restore makes the ballast again where it is gone and the disk has half as much again as it takes. That may be in what
// is kept back, which is for deletes, too.
func (b *Ballast) Restore() (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st, err := os.Stat(b.path); err == nil && st.Size() == b.size {
		return nil
	}
	s, err := b.d.Space()
	if err != nil || s.Free < b.size+b.size/2 {
		return err
	}
	// Whole or not at all: a file of that name is a ballast.
	tmp := b.path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return ignoreFull(err)
	}
	err = errors.Join(allocate(f, b.size), f.Close())
	if err == nil {
		err = os.Rename(tmp, b.path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return ignoreFull(err)
}

// ignoreFull takes a full disk for what it is here: no time for a ballast.
func ignoreFull(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

// allocate gives a file its blocks.
func allocate(f *os.File, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		if err == unix.EINTR { //nolint:errorlint // a bare errno
			continue
		}
		if err != unix.EOPNOTSUPP { //nolint:errorlint // a bare errno
			return os.NewSyscallError("fallocate", err)
		}
		break
	}
	zeros := make([]byte, 1<<20)
	for left := n; left > 0; {
		k, err := f.Write(zeros[:min(left, int64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= int64(k)
	}
	return nil
}
