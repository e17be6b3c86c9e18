package runtime

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CacheDir is where a step finds the caches of its project.
const CacheDir = "/dev/giggle-cache"

// cache is one that RUN steps of a project share, whatever they start from, and that no layer holds. The programs named
// here check what they find in theirs, and take an empty one for no more than a slow start: a step's result is the same
// with and without. What a hostile step leaves in it reaches other builds of the same project, as what it leaves in a
// cache mount of BuildKit's does, and those of no other project.
//
// The modules that Go has downloaded are none of these: a later stage may copy them out of the layer, and a later step
// may count on them where no network gives them again. The platform's module proxy, which keeps them, is their cache.
type cache struct {
	name string // of its directory
	env  string // the variable that the program finds it by; where an image or a step has set it, that counts
	// where the program has it otherwise, below the home directory; a mount of the Dockerfile's own there counts too
	place string
}

var (
	goBuild = cache{"go-build", "GOCACHE", ".cache/go-build"}
	caches  = []cache{goBuild, {"npm", "npm_config_cache", ".npm"}, {"pip", "PIP_CACHE_DIR", ".cache/pip"}}
)

// isAt reports whether a mount is at the cache's place, or at a directory that it is in.
func (c cache) isAt(m mount) bool {
	for place := c.place; place != "."; place = path.Dir(place) {
		if strings.HasSuffix(path.Clean(m.Destination), "/"+place) {
			return true
		}
	}
	return false
}

// MakeCaches makes the directories of a project's caches, where they are missing. All users of a step may use them,
// also what another one has left there: a build may go on as another user.
func MakeCaches(dir string) error {
	for _, c := range caches {
		at := filepath.Join(dir, c.name)
		err := errors.Join(os.MkdirAll(at, 0o777), os.Chmod(at, 0o777))
		if err != nil {
			return err
		}
		err = unix.Setxattr(at, "system.posix_acl_default", everybody, 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) { // then other users than the first have no cache
			return &os.PathError{Op: "setxattr", Path: at, Err: err}
		}
	}
	return nil
}

// everybody is an access control list by which new files are everybody's, whatever the umask is: a version, and for the
// owner, the group and all others a tag, the permissions and no id (linux/posix_acl_xattr.h).
var everybody = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x04\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x07\x00\xff\xff\xff\xff")

// WarmCache is where an image may have a cache of the Go compiler that holds the standard library: the offline golang
// images do.
const WarmCache = "/var/cache/go-build"

// The most that is taken from an image's cache.
const (
	maxSeedFiles = 50_000
	maxSeedFile  = 64 << 20
)

// seed copies what an image's warm cache has and a cache has not: the standard library need not be compiled then.
// Neither of the two is trusted, and nothing out of them is read or written (os.Root). Where it fails, the compiler
// compiles.
func seed(image, to string) {
	from, err := os.OpenRoot(image)
	if err != nil {
		return
	}
	defer func() { _ = from.Close() }() // it was only read
	warm, err := from.OpenRoot(strings.TrimPrefix(WarmCache, "/"))
	if err != nil {
		return
	}
	defer func() { _ = warm.Close() }() // it was only read
	cache, err := os.OpenRoot(to)
	if err != nil {
		return
	}
	defer func() { _ = cache.Close() }() // what is written is closed itself
	names, err := entries(warm)
	if err != nil || len(names) == 0 {
		return
	}
	// They are copied in this order, so the last one says that all were, until Go has removed what nobody used.
	if _, err := cache.Lstat(names[len(names)-1]); err == nil {
		return
	}
	for _, name := range names {
		if err := copyEntry(warm, cache, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return
		}
	}
}

// entries are the names of a cache's files, each in a directory of two letters.
func entries(cache *os.Root) (names []string, err error) {
	dirs, err := fs.ReadDir(cache.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if !d.IsDir() || len(d.Name()) != 2 {
			continue
		}
		files, err := fs.ReadDir(cache.FS(), d.Name())
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if f.Type().IsRegular() {
				names = append(names, path.Join(d.Name(), f.Name()))
			}
		}
		if len(names) > maxSeedFiles {
			return nil, errors.New("too many files")
		}
	}
	return names, nil
}

func copyEntry(from, to *os.Root, name string) (err error) {
	r, err := from.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	if st, err := r.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxSeedFile {
		return errors.Join(err, fs.ErrInvalid)
	}
	if err := to.Mkdir(path.Dir(name), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	w, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.LimitReader(r, maxSeedFile))
	return errors.Join(err, w.Close())
}
