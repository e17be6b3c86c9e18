package runtime

import (
	"errors"
	"fmt"
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
// The modules that Go has downloaded are none of these, nor the repositories of Maven, Gradle and Cargo: a later stage
// may copy them out of the layer, and a later step may count on them where no network gives them again. The platform's
// module proxy keeps Go's.
type cache struct {
	name string // of its directory
	env  string // the variable that the program finds it by; where an image or a step has set it, that counts
	// where the program has it otherwise, below the home directory; a mount of the Dockerfile's own there counts too
	place string
}

var (
	goBuild = cache{"go-build", "GOCACHE", ".cache/go-build"}
	caches  = []cache{
		goBuild,
		{"npm", "npm_config_cache", ".npm"},
		{"pip", "PIP_CACHE_DIR", ".cache/pip"},
		{"yarn", "YARN_CACHE_FOLDER", ".cache/yarn"},
		{"pnpm", "npm_config_store_dir", ".local/share/pnpm/store"},
		{"uv", "UV_CACHE_DIR", ".cache/uv"},
		{"composer", "COMPOSER_CACHE_DIR", ".cache/composer"},
	}
)

// apt is the cache of Debian's packages. APT locks its directory, and fails where another has it: so one step at a time
// has the cache, and a step that comes meanwhile does without.
const (
	aptDir    = "apt"
	aptConfig = "apt.conf"
	aptLock   = "apt.lock"
	// aptVariable names a file that APT reads beside its own (apt.conf(5)).
	aptVariable = "APT_CONFIG"
	aptPlace    = "/var/cache/apt"
)

// takeAPT reserves the cache of Debian's packages for as long as the file is open, in whichever process; nil where
// another step has it.
func takeAPT(caches string) *os.File {
	f, err := os.OpenFile(filepath.Join(caches, aptLock), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		_ = f.Close() // it was not even read
		return nil
	}
	return f
}

// hasAPTMount reports whether a mount of the Dockerfile's own is where APT has its packages.
func hasAPTMount(m mount) bool {
	at := path.Clean(m.Destination)
	return at == aptPlace || strings.HasPrefix(at, aptPlace+"/") || at == path.Dir(aptPlace)
}

// isAt reports whether a mount is at the cache's place, or at a directory that it is in.
func (c cache) isAt(m mount) bool {
	for place := c.place; place != "."; place = path.Dir(place) {
		if strings.HasSuffix(path.Clean(m.Destination), "/"+place) {
			return true
		}
	}
	return false
}

// MakeCaches makes the directories of a project's caches in one of the host's, where they are missing. All users of a
// step may use them, also what another one has left there: a build may go on as another user.
//
// Steps of builds that have run before are root in that directory: what is there may be anything, and no link in it
// leads the host out of it.
func MakeCaches(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // what is written is closed itself
	names := []string{aptDir}
	for _, c := range caches {
		names = append(names, c.name)
	}
	for _, name := range names {
		if err := makeCache(root, name); err != nil {
			return err
		}
	}
	config := fmt.Sprintf("Dir::Cache::archives %q;\nAPT::Keep-Downloaded-Packages \"true\";\n",
		path.Join(CacheDir, aptDir))
	return errors.Join(writeNew(root, aptConfig, config), writeNew(root, aptLock, ""))
}

// makeCache makes one directory that is everybody's.
func makeCache(root *os.Root, name string) error {
	if st, err := root.Lstat(name); err == nil && !st.IsDir() {
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	if err := root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := f.Chmod(0o777); err != nil {
		return err
	}
	err = unix.Fsetxattr(int(f.Fd()), "system.posix_acl_default", everybody, 0)
	if err != nil && !errors.Is(err, unix.ENOTSUP) { // then other users than the first have no cache
		return &os.PathError{Op: "setxattr", Path: f.Name(), Err: err}
	}
	return nil
}

// writeNew writes a file in place of whatever has its name.
func writeNew(root *os.Root, name, text string) error {
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close())
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
