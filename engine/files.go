package engine

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// FileInfo is what an instance has at a path.
type FileInfo struct {
	Name    string
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
	Link    string // where a symbolic link leads
}

// CopyLimits bound what is copied out of an instance, or into one.
type CopyLimits struct {
	Bytes   int64
	Entries int
}

// files is an instance's file system, from the platform's side. Whoever runs in the instance may change it meanwhile:
// each path is looked up as a process in there would, by the kernel, and never leads out.
type files struct {
	*rootfs
	left  CopyLimits
	depth int
}

// maxDepth bounds how deep directories are that are copied: each takes a descriptor meanwhile.
const maxDepth = 200

// withFiles gives fn the instance's files, which stay meanwhile.
func (i *Instance) withFiles(limits CopyLimits, fn func(f *files) error) error {
	i.filesMu.RLock()
	defer i.filesMu.RUnlock()
	if i.filesGone {
		return fault.New(fault.FailedPrecondition, "The container's files are gone.")
	}
	return fn(&files{rootfs: &rootfs{slot: i.slot, fd: int(i.root.Fd())}, left: limits})
}

// Stat tells what is at a path. A link at its end is not followed, unless a slash follows it. It fails with NotFound.
func (i *Instance) Stat(p string) (info FileInfo, err error) {
	defer fault.Wrap(&err, "engine.Stat(%s)", i.id)
	err = i.withFiles(CopyLimits{}, func(f *files) error {
		at, err := f.find(p)
		if err != nil {
			return err
		}
		defer unix.Close(at.dir)
		info, err = at.info()
		return err
	})
	return info, err
}

// CopyOut writes what is at a path as a tar stream in which it has its own name; what the root directory has, and one
// whose path ends in "/.", comes without one. Owners are the container's. It fails with NotFound, and with
// ResourceExhausted beyond the limits.
func (i *Instance) CopyOut(ctx context.Context, p string, w io.Writer, limits CopyLimits) (err error) {
	defer fault.Wrap(&err, "engine.CopyOut(%s)", i.id)
	return i.withFiles(limits, func(f *files) error {
		at, err := f.find(p)
		if err != nil {
			return err
		}
		defer unix.Close(at.dir)
		out := tar.NewWriter(w)
		name := at.name
		if name == "." || strings.HasSuffix(p, "/.") {
			name = ""
		}
		return errors.Join(f.write(ctx, out, at, name), out.Close())
	})
}

// CopyIn unpacks a tar stream in a directory. Owners are those that it says, where keepOwners is set, else the
// container's root. It fails with NotFound where there is no such directory, with InvalidArgument on what is no such
// stream, and with ResourceExhausted beyond the limits.
func (i *Instance) CopyIn(
	ctx context.Context, dir string, r io.Reader, keepOwners bool, limits CopyLimits,
) (err error) {
	defer fault.Wrap(&err, "engine.CopyIn(%s)", i.id)
	return i.withFiles(limits, func(f *files) error {
		fd, err := openIn(f.fd, dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return noSuchFile(dir, err)
		}
		unix.Close(fd)
		in := tar.NewReader(r)
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fault.New(fault.InvalidArgument, "The archive can't be read: %v", err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f.extract(dir, h, in, keepOwners); err != nil {
				return err
			}
		}
	})
}

// place is an entry of a directory that is held open.
type place struct {
	dir  int // O_PATH
	name string
}

// find looks a path up but for its last name.
func (f *files) find(p string) (place, error) {
	if strings.ContainsRune(p, 0) {
		return place{}, fault.New(fault.InvalidArgument, "%.100q is no path.", p)
	}
	follow := strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")
	clean := path.Clean("/" + p)
	if follow || clean == "/" {
		fd, err := openIn(f.fd, clean, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return place{}, noSuchFile(p, err)
		}
		if clean == "/" {
			return place{fd, "."}, nil
		}
		// It has the name that it was called by; a link leads to another one.
		at := place{fd, "."}
		parent, err := openIn(f.fd, path.Dir(clean), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return place{}, errors.Join(noSuchFile(p, err), unix.Close(fd))
		}
		direct := place{parent, path.Base(clean)}
		if info, err := direct.info(); err == nil && info.Mode.IsDir() {
			return direct, unix.Close(fd)
		}
		return at, unix.Close(parent)
	}
	fd, err := openIn(f.fd, path.Dir(clean), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return place{}, noSuchFile(p, err)
	}
	at := place{fd, path.Base(clean)}
	if _, err := at.stat(); err != nil {
		return place{}, errors.Join(noSuchFile(p, err), unix.Close(fd))
	}
	return at, nil
}

func noSuchFile(p string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return fault.New(fault.NotFound, "Could not find the file %.200s in the container.", p)
	case errors.Is(err, unix.ENOTDIR):
		return fault.New(fault.InvalidArgument, "%.200s is not a directory.", p)
	}
	return &os.PathError{Op: "open in container", Path: p, Err: err}
}

func (at place) stat() (st unix.Stat_t, err error) {
	return st, unix.Fstatat(at.dir, at.name, &st, unix.AT_SYMLINK_NOFOLLOW)
}

// fileMode is Go's form of a mode.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid,
		unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	return mode | map[uint32]fs.FileMode{
		unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFIFO: fs.ModeNamedPipe,
		unix.S_IFSOCK: fs.ModeSocket, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice, unix.S_IFBLK: fs.ModeDevice,
	}[m&unix.S_IFMT]
}

func (at place) info() (FileInfo, error) {
	st, err := at.stat()
	if err != nil {
		return FileInfo{}, noSuchFile(at.name, err)
	}
	info := FileInfo{Name: at.name, Size: st.Size, Mode: fileMode(st.Mode), ModTime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		info.Link, err = at.readlink()
	}
	return info, err
}

func (at place) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at.dir, at.name, buf)
	return string(buf[:max(n, 0)]), err
}

// count takes an entry from the limits.
func (f *files) count() error {
	if f.left.Entries--; f.left.Entries < 0 {
		return fault.New(fault.ResourceExhausted, "That are more files than can be copied at once.")
	}
	return nil
}

func (f *files) tooBig() error {
	return fault.New(fault.ResourceExhausted, "That is more than can be copied at once.")
}

// write writes an entry, and all below it, under a name.
func (f *files) write(ctx context.Context, out *tar.Writer, at place, name string) error {
	if err := errors.Join(ctx.Err(), f.count()); err != nil {
		return err
	}
	st, err := at.stat()
	if errors.Is(err, unix.ENOENT) {
		return nil // it went meanwhile
	}
	if err != nil {
		return err
	}
	h := &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     f.inside(st.Uid),
		Gid:     f.inside(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
		Format:  tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return f.writeDir(ctx, out, at, h)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = at.readlink(); err != nil {
			return err
		}
		return out.WriteHeader(h)
	case unix.S_IFREG:
		return f.writeFile(out, at, h)
	}
	return nil // pipes, sockets and devices are nothing to copy
}

// inside is a user's number as the container has it: 65534 is nobody's, as the kernel shows them.
func (f *files) inside(id uint32) int {
	if id < f.slot.base || id >= f.slot.base+slotSize {
		return 65534
	}
	return int(id - f.slot.base)
}

func (f *files) writeDir(ctx context.Context, out *tar.Writer, at place, h *tar.Header) error {
	fd, err := unix.Openat(at.dir, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	dir := os.NewFile(uintptr(fd), h.Name)
	defer func() { _ = dir.Close() }() // it was only read
	if h.Name != "" {
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		if err := out.WriteHeader(h); err != nil {
			return err
		}
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(fd, &system); err != nil || system.Type == unix.SYSFS_MAGIC {
		return err // the kernel's, not the container's
	}
	if f.depth++; f.depth > maxDepth {
		return fault.New(fault.ResourceExhausted, "There are more than %d directories in each other.", maxDepth)
	}
	defer func() { f.depth-- }()
	for {
		names, err := dir.Readdirnames(1000)
		slices.Sort(names)
		for _, n := range names {
			if err := f.write(ctx, out, place{fd, n}, h.Name+n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *files) writeFile(out *tar.Writer, at place, h *tar.Header) error {
	fd, err := unix.Openat(at.dir, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	in := os.NewFile(uintptr(fd), h.Name)
	defer func() { _ = in.Close() }() // it was only read
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if f.left.Bytes -= h.Size; f.left.Bytes < 0 {
		return f.tooBig()
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, h.Size))
	if err == nil && n < h.Size { // it became shorter
		_, err = io.CopyN(out, zeros{}, h.Size-n)
	}
	return err
}

// zeros is what a file that has shrunk is filled up with.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// extract makes one entry of an archive below a directory.
func (f *files) extract(dir string, h *tar.Header, content io.Reader, keepOwners bool) error {
	if err := f.count(); err != nil {
		return err
	}
	name := path.Clean("/" + h.Name) // no entry is above the directory
	if strings.ContainsRune(h.Name, 0) || strings.ContainsRune(h.Linkname, 0) {
		return fault.New(fault.InvalidArgument, "%.100q in the archive is no path.", h.Name)
	}
	if name == "/" {
		return nil
	}
	parent, err := f.open(path.Join(dir, path.Dir(name)), 0o755, unix.O_DIRECTORY)
	if err != nil {
		return unwritable(h.Name, err)
	}
	defer unix.Close(parent)
	at := place{parent, path.Base(name)}
	st, err := at.stat()
	isDir := err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch h.Typeflag {
	case tar.TypeDir:
		if isDir {
			return nil
		}
		err = at.clear(h.Name, false)
		if err == nil {
			err = unix.Mkdirat(parent, at.name, 0o700)
		}
	case tar.TypeReg, tar.TypeGNUSparse:
		if err = at.clear(h.Name, isDir); err == nil {
			err = f.fill(at, h, content)
		}
	case tar.TypeSymlink:
		if err = at.clear(h.Name, isDir); err == nil {
			err = unix.Symlinkat(h.Linkname, parent, at.name)
		}
	case tar.TypeLink:
		return f.link(dir, h, at, isDir)
	default: // devices and pipes are not for containers to be given
		return nil
	}
	if err != nil {
		return unwritable(h.Name, err)
	}
	return unwritable(h.Name, f.own(at, h, keepOwners))
}

// clear makes way for an entry: what is no directory goes.
func (at place) clear(name string, isDir bool) error {
	if isDir {
		return fault.New(fault.InvalidArgument, "cannot overwrite directory %.200q with what is none", name)
	}
	if err := unix.Unlinkat(at.dir, at.name, 0); err != nil && err != unix.ENOENT {
		return os.NewSyscallError("unlinkat", err)
	}
	return nil
}

// unwritable is the fault of a place that can't be written to.
func unwritable(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
		return fault.New(fault.InvalidArgument, "%.200s has a name that is too long.", name)
	case errors.Is(err, unix.EROFS):
		return fault.New(fault.FailedPrecondition, "%.200s is marked read-only", name)
	case errors.Is(err, unix.EOVERFLOW): // a mount with other owners
		return fault.New(fault.Unimplemented,
			"docker cp in a build step doesn't copy into volumes and mounts (%.200s): write there from a container.", name)
	}
	return err
}

func (f *files) fill(at place, h *tar.Header, content io.Reader) error {
	if f.left.Bytes -= h.Size; f.left.Bytes < 0 {
		return f.tooBig()
	}
	fd, err := unix.Openat(at.dir, at.name,
		unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	out := os.NewFile(uintptr(fd), h.Name)
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}

// link makes a hard link to what the archive has brought before.
func (f *files) link(dir string, h *tar.Header, at place, isDir bool) error {
	target := path.Clean("/" + h.Linkname)
	if target == "/" {
		return fault.New(fault.InvalidArgument, "%.200q in the archive is a link to a directory.", h.Name)
	}
	from, err := openIn(f.fd, path.Join(dir, path.Dir(target)), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return noSuchFile(h.Linkname, err)
	}
	defer unix.Close(from)
	if err := at.clear(h.Name, isDir); err != nil {
		return err
	}
	return unwritable(h.Name, os.NewSyscallError("linkat", unix.Linkat(from, path.Base(target), at.dir, at.name, 0)))
}

// own gives an entry its owner, permissions and time. A link has none but the first.
func (f *files) own(at place, h *tar.Header, keep bool) error {
	uid, gid := f.slot.base, f.slot.base
	if keep && h.Uid >= 0 && h.Uid < slotSize && h.Gid >= 0 && h.Gid < slotSize {
		uid, gid = uid+uint32(h.Uid), gid+uint32(h.Gid)
	}
	if err := unix.Fchownat(at.dir, at.name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	times := []unix.Timespec{unix.NsecToTimespec(h.ModTime.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
	if err := unix.UtimesNanoAt(at.dir, at.name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("utimensat", err)
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	// By a descriptor: a name could have become a link to anywhere by now.
	fd, err := unix.Openat(at.dir, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fchmod", unix.Fchmod(fd, uint32(h.Mode&0o7777)))
}
