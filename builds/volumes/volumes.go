// Package volumes keeps the named volumes of a build: directories that its steps share, and the containers of docker
// run in them. An empty one is filled from the image of the container that it is mounted in, as Docker fills its own.
//
// Images and what containers leave in volumes are hostile: no link of theirs is followed, on either side.
//
// Rules: https://docs.docker.com/engine/storage/volumes/#populate-a-volume-using-a-container
package volumes

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// Limits of what a volume is filled with.
const (
	maxBytes   = 8 << 30
	maxEntries = 500_000
)

// name is the form of a volume's name (https://github.com/moby/moby/blob/master/daemon/names/names.go).
var name = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`) })

// Valid reports whether a volume may be called so.
func Valid(s string) bool { return name().MatchString(s) }

// Open returns the directory of a volume below dir, made if it is not there yet. An empty one is filled with what
// layers have at the path where it is to be mounted.
func Open(ctx context.Context, dir, volume string, layers []string, at string) (source string, err error) {
	defer fault.Wrap(&err, "volumes.Open(%s)", volume)
	if !Valid(volume) {
		return "", fault.New(fault.InvalidArgument, "%.100q is not the name of a volume.", volume)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	source = filepath.Join(dir, volume)
	if err := os.Mkdir(source, 0o755); err == nil {
		if err := os.Chmod(source, 0o777); err != nil { // past the umask: a step may run as any user
			return "", err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	root, err := os.OpenRoot(source)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	have, err := fs.ReadDir(root.FS(), ".")
	if err != nil || len(have) > 0 {
		return source, err
	}
	return source, fill(ctx, root, layers, strings.Trim(path.Clean(at), "/"))
}

// lock keeps others from filling a volume of the same build meanwhile. No container sees the directory.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // which unlocks it
}

// List returns the names of the volumes below a directory.
func List(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// filler copies out of the layers of an image, the top one first.
type filler struct {
	ctx     context.Context
	to      *os.Root
	bytes   int64
	entries int
}

// fill copies what layers have at a path into an empty directory.
func fill(ctx context.Context, to *os.Root, layers []string, at string) (err error) {
	roots, done, err := open(layers)
	defer done()
	if err != nil {
		return err
	}
	if roots = descend(roots, at); len(roots) == 0 {
		return nil
	}
	f := &filler{ctx: ctx, to: to, bytes: maxBytes, entries: maxEntries}
	if info, err := roots[0].Lstat(at); err == nil {
		if err := f.owner(".", info); err != nil {
			return err
		}
	}
	return f.dir(roots, at, ".")
}

// Copy copies what layers have at a path, a directory or a file, into a directory under its last name. It fails with
// NotFound where there is nothing, or a link is on the way.
func Copy(ctx context.Context, layers []string, at, to string) (err error) {
	defer fault.Wrap(&err, "volumes.Copy(%s)", at)
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	roots, done, err := open(layers)
	defer done()
	if err != nil {
		return err
	}
	f := &filler{ctx: ctx, to: root, bytes: maxBytes, entries: maxEntries}
	if at = strings.Trim(path.Clean("/"+at), "/"); at == "" {
		return f.dir(roots, ".", ".")
	}
	if parent := path.Dir(at); parent != "." {
		roots = descend(roots, parent)
	}
	for i, r := range roots {
		info, err := r.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || info.Mode().Type()&fs.ModeCharDevice != 0 {
			break
		}
		return f.entry(roots[i:], at, path.Base(at))
	}
	return fault.New(fault.NotFound, "There is no %.200q in the image.", "/"+at)
}

// open opens layers, the top one first.
func open(layers []string) (roots []*os.Root, done func(), err error) {
	done = func() {
		for _, r := range roots {
			_ = r.Close() // they are only read
		}
	}
	for _, l := range slices.Backward(layers) {
		r, err := os.OpenRoot(l)
		if err != nil {
			return roots, done, err
		}
		roots = append(roots, r)
	}
	return roots, done, nil
}

// descend are the layers that have a directory at a path: what hides one hides all below it in the layers under it.
func descend(roots []*os.Root, at string) []*os.Root {
	parts := strings.Split(at, "/")
	for i := range parts {
		roots = hidden(roots, strings.Join(parts[:i+1], "/"))
	}
	return roots
}

// hidden are the layers that have a directory at a path, from the top down to one that hides it in those below.
func hidden(layers []*os.Root, dir string) (out []*os.Root) {
	for _, r := range layers {
		info, err := r.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || !info.IsDir() { // a whiteout, a link or a file
			return out
		}
		if out = append(out, r); opaque(r, dir) {
			return out
		}
	}
	return out
}

// opaque reports whether a directory of a layer hides those of the layers below it.
func opaque(r *os.Root, dir string) bool {
	f, err := r.Open(dir)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	mark := make([]byte, 2)
	n, err := unix.Fgetxattr(int(f.Fd()), "trusted.overlay.opaque", mark)
	return err == nil && string(mark[:n]) == "y"
}

// dir copies the entries of a directory that each of the layers has.
func (f *filler) dir(layers []*os.Root, from, to string) error {
	seen := make(map[string]bool)
	for i, r := range layers {
		d, err := r.Open(from)
		if err != nil {
			return err
		}
		entries, err := d.ReadDir(-1)
		if err = errors.Join(err, d.Close()); err != nil {
			return err
		}
		for _, e := range entries {
			if seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			if err := f.entry(layers[i:], path.Join(from, e.Name()), path.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry copies what the first of the layers has at a path.
func (f *filler) entry(layers []*os.Root, from, to string) error {
	if f.entries--; f.entries < 0 {
		return fault.New(fault.FailedPrecondition, "The image has more files at the volume's path than %d.", maxEntries)
	}
	if err := f.ctx.Err(); err != nil {
		return err
	}
	info, err := layers[0].Lstat(from)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := f.to.Mkdir(to, 0o700); err != nil {
			return err
		}
		if err := f.dir(hidden(layers, from), from, to); err != nil {
			return err
		}
	case fs.ModeSymlink:
		target, err := layers[0].Readlink(from)
		if err != nil {
			return err
		}
		if err := f.to.Symlink(target, to); err != nil {
			return err
		}
		return f.to.Lchown(to, uid(info), gid(info))
	case 0:
		if err := f.file(layers[0], from, to); err != nil {
			return err
		}
	default: // a whiteout, a device, a pipe
		return nil
	}
	return f.owner(to, info)
}

func (f *filler) file(r *os.Root, from, to string) error {
	in, err := r.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := f.to.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, f.bytes+1))
	if f.bytes -= n; f.bytes < 0 {
		err = fault.New(fault.FailedPrecondition, "The image has more at the volume's path than %d GiB.", maxBytes>>30)
	}
	return errors.Join(err, out.Close())
}

// owner gives a copy the owner, the permissions and the time of its original.
func (f *filler) owner(name string, info fs.FileInfo) error {
	return errors.Join(f.to.Chown(name, uid(info), gid(info)), f.to.Chmod(name, info.Mode()),
		f.to.Chtimes(name, info.ModTime(), info.ModTime()))
}

func uid(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
func gid(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }
