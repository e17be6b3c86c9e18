package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// rootfs is an instance's root file system as it is being put together, in the instance's own tmpfs:
//
//	config.json  log  pid      for the runtime
//	w/upper  w/work            what the process writes (w is a directory of the disk for Spec.Disk)
//	l/0 l/1 …                  the layers, top first, their owners mapped; gone once the overlay stands
//	root                       the overlay, with everything else mounted into it
//
// One lazy unmount of the tmpfs takes all of it away.
type rootfs struct {
	dir  string // as the worker sees it
	slot *slot
	fd   int // of root, O_PATH
}

// buildRoot makes the root file system; files is a layer with those of the spec. It runs on the worker.
func (e *Engine) buildRoot(i *Instance, s *Spec, files string) (err error) {
	r := &rootfs{dir: filepath.Join(e.tmpfs(), i.name), slot: i.slot, fd: -1}
	if err := os.Mkdir(r.dir, 0o711); err != nil {
		return err
	}
	options := "mode=0711"
	if s.Memory > 0 && !s.Disk {
		options += ",size=" + strconv.FormatInt(s.Memory, 10)
	}
	if err := unix.Mount("tmpfs", r.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: r.dir, Err: err}
	}
	// Overlay's options must fit one page: with the directory as the thread's own working directory, a layer takes 4
	// bytes.
	if err := unix.Chdir(r.dir); err != nil {
		return err
	}
	defer unix.Chdir("/")
	userns, err := i.slot.userns()
	if err != nil {
		return err
	}
	layers, own := s.Layers, s.Files
	if files != "" && plain(s.Layers, s.Files) {
		layers, own = append(slices.Clone(s.Layers), files), nil
	}
	if err := r.overlay(s, layers, userns, filepath.Join(e.disk(), i.name)); err != nil {
		return err
	}
	if r.fd, err = unix.Open("root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	i.root = os.NewFile(uintptr(r.fd), "root")

	if err := r.sysfs(i.net.Fd(), int(e.host.Fd())); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	if err := r.directory("/tmp", 0o1777); err != nil {
		return fmt.Errorf("/tmp: %w", err)
	}
	for _, m := range s.Mounts {
		if err := r.mount(m, userns); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if s.Dir != "" { // last: it may lie in a mount
		if err := r.directory(s.Dir, 0o755); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	for _, f := range own {
		if err := r.file(f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	return nil
}

// tryIdmap finds out whether the file system of the engine's directory can be mounted with other owners, which all
// else rests on.
func (e *Engine) tryIdmap() error {
	sl, err := e.slots.take()
	if err != nil {
		return err
	}
	defer e.slots.give(sl)
	userns, err := sl.userns()
	if err != nil {
		return err
	}
	return e.worker.do(func() error {
		tree, err := unix.OpenTree(unix.AT_FDCWD, e.disk(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("open_tree", err)
		}
		defer unix.Close(tree)
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH,
			&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)})
		if err != nil {
			return &fault.Error{
				Code: fault.FailedPrecondition,
				Message: "The file system of " + e.dir +
					" can't be idmapped. Use a data directory on ext4, xfs or btrfs, with Linux 5.19 or newer.",
				Cause: os.NewSyscallError("mount_setattr", err),
			}
		}
		return nil
	})
}

// plain reports whether layers have nothing but directories on the way to each of the files, and no directory in its
// place, so that the files can be a layer of their own: over a link in the way that would hide what the link leads to.
func plain(layers []string, files []File) bool {
	var roots []int
	defer func() {
		for _, fd := range roots {
			unix.Close(fd)
		}
	}()
	for _, layer := range slices.Backward(layers) {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false // making the overlay says it better
		}
		roots = append(roots, fd)
	}
	seen := make(map[string]bool)
	for _, f := range files {
		for i, c := range f.Path {
			dir := f.Path[:i]
			if c != '/' || i == 0 || seen[dir] {
				continue
			}
			seen[dir] = true
			if kind := fileType(roots, dir); kind != unix.S_IFDIR && kind != 0 {
				return false
			}
		}
		if fileType(roots, f.Path) == unix.S_IFDIR {
			return false
		}
	}
	return true
}

// fileType is the type of what layers, the topmost first, have at a path, 0 for nothing. They come from anywhere: no
// link in them is followed.
func fileType(layers []int, p string) uint32 {
	for _, layer := range layers {
		fd, err := unix.Openat2(layer, p[1:], &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			continue // not in this layer, or behind what is no directory there
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0; err != nil || whiteout {
			return 0
		}
		return st.Mode & unix.S_IFMT
	}
	return 0
}

func (r *rootfs) overlay(s *Spec, layers []string, userns int, disk string) error {
	for _, d := range []string{"w", "l", "root"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if s.Disk {
		if err := os.Mkdir(disk, 0o755); err != nil {
			return err
		}
		if err := bind(disk, unix.AT_FDCWD, "w", &unix.MountAttr{}); err != nil {
			return err
		}
	}
	for _, d := range []string{"w/upper", "w/work"} {
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chown(d, int(r.slot.base), int(r.slot.base))); err != nil {
			return err
		}
	}
	var lower []string
	for k := len(layers) - 1; k >= 0; k-- {
		at := "l/" + strconv.Itoa(len(lower))
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(userns)}
		if err := bind(layers[k], unix.AT_FDCWD, at, attr); err != nil {
			return fmt.Errorf("layer %d: %w", k, err)
		}
		lower = append(lower, at)
	}
	// volatile: the layer dies with the instance, so the application's fsync need not reach the disk.
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=w/upper,workdir=w/work,volatile"
	if err := unix.Mount("overlay", "root", "overlay", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		return fmt.Errorf("mount an overlay of layers with other owners, which Linux 5.19 and newer can: %w", err)
	}
	// Overlay holds its own clones. Fewer mounts here are fewer to copy for the next container's namespace.
	for _, at := range lower {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts a copy of what is at source, with attributes, at target relative to the descriptor at. An empty target is
// the descriptor itself.
func bind(source string, at int, target string, attr *unix.MountAttr) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: source, Err: err}
	}
	defer unix.Close(tree)
	if attr.Attr_set != 0 {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
			return &os.PathError{Op: "mount_setattr", Path: source, Err: err}
		}
	}
	return move(tree, at, target)
}

func move(tree, at int, target string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if target == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", at, target, flags))
}

// sysfs mounts a sysfs that shows the instance's network namespace: the host's would show its network cards, and the
// runtime can't mount one from inside the user namespace.
func (r *rootfs) sysfs(ns, host int) error {
	target, err := r.open("/sys", 0o755, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	tree, err := newSysfs(ns, host)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return move(tree, target, "")
}

// newSysfs makes a read-only sysfs that shows a network namespace. The calling thread is in the host's.
func newSysfs(ns, host int) (tree int, err error) {
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return -1, err
	}
	ctx, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err := errors.Join(err, unix.Setns(host, unix.CLONE_NEWNET)); err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func (r *rootfs) mount(m Mount, userns int) error {
	st, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	kind := uint64(0)
	if st.IsDir() {
		kind = unix.O_DIRECTORY
	}
	target, err := r.open(m.Target, 0o755, kind)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	attr := &unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Userns_fd: uint64(userns),
	}
	if m.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return bind(m.Source, target, "", attr)
}

// file writes a file into the image, wherever links on the way to it lead there, in place of what is there.
func (r *rootfs) file(f File) error {
	parent, err := r.open(path.Dir(f.Path), 0o755, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	name := path.Base(f.Path)
	switch err := unix.Unlinkat(parent, name, 0); err {
	case nil, unix.ENOENT:
	case unix.EISDIR:
		return inTheWay(f.Path)
	default:
		return os.NewSyscallError("unlinkat", err)
	}
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	out := os.NewFile(uintptr(fd), f.Path)
	_, err = out.Write(f.Data)
	return errors.Join(err, out.Chown(int(r.slot.base), int(r.slot.base)), out.Chmod(f.mode()), out.Close())
}

// directory makes sure that there is a directory at p. One that is there keeps its mode.
func (r *rootfs) directory(p string, mode fs.FileMode) error {
	fd, err := r.open(p, mode, unix.O_DIRECTORY)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// openIn opens p below root as a process with that root would, whatever links the image has.
func openIn(root int, p string, flags uint64) (int, error) {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		p = "."
	}
	for {
		fd, err := unix.Openat2(root, p, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: a rename elsewhere raced with the lookup
			return fd, err
		}
	}
}

// open returns an O_PATH descriptor of the directory (kind O_DIRECTORY) or file (kind 0) at p in the image, which it
// makes, with its parents, if it is missing. The container's root owns what is made.
func (r *rootfs) open(p string, mode fs.FileMode, kind uint64) (int, error) {
	fd, err := openIn(r.fd, p, unix.O_PATH|kind)
	if err == nil {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != (kind == unix.O_DIRECTORY) {
			unix.Close(fd)
			return -1, inTheWay(p)
		}
		return fd, nil
	}
	switch err {
	case unix.ENOENT:
	case unix.ENOTDIR, unix.ELOOP:
		return -1, inTheWay(p)
	default:
		return -1, &os.PathError{Op: "open in image", Path: p, Err: err}
	}
	parent, err := r.open(path.Dir(p), 0o755, unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	// a link to nowhere in place of a directory
	if err := r.create(parent, path.Base(p), mode, kind); err == unix.EEXIST {
		return -1, inTheWay(p)
	} else if err != nil {
		return -1, &os.PathError{Op: "create in image", Path: p, Err: err}
	}
	return unix.Openat(parent, path.Base(p), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC|int(kind), 0)
}

func inTheWay(p string) error {
	return fault.New(fault.FailedPrecondition, "The image has something else at %q.", p)
}

func (r *rootfs) create(parent int, name string, mode fs.FileMode, kind uint64) error {
	if kind == unix.O_DIRECTORY {
		if err := unix.Mkdirat(parent, name, uint32(mode)); err != nil {
			return err
		}
		if err := unix.Fchmodat(parent, name, uint32(mode), 0); err != nil { // past the umask
			return err
		}
	} else {
		fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
			uint32(mode))
		if err == unix.EEXIST { // a link to nowhere, as /etc/resolv.conf in many images
			if err := unix.Unlinkat(parent, name, 0); err != nil {
				return err
			}
			return r.create(parent, name, mode, kind)
		}
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	return unix.Fchownat(parent, name, int(r.slot.base), int(r.slot.base), unix.AT_SYMLINK_NOFOLLOW)
}

// dropRoot takes the root file system away. Processes that are in it keep it until they end.
func (e *Engine) dropRoot(name string) error {
	dir := filepath.Join(e.tmpfs(), name)
	err := e.worker.do(func() error {
		// EINVAL: not mounted yet
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return nil
	})
	return errors.Join(err, e.base.RemoveAll(name), os.RemoveAll(filepath.Join(e.disk(), name)))
}
