package runtime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Each program gets the project's cache, unless the image, the step or a mount of the Dockerfile's own says where its
// cache is.
func TestCachesGiveWay(t *testing.T) {
	const (
		goNPM = "GOCACHE=/dev/giggle-cache/go-build npm_config_cache=/dev/giggle-cache/npm "
		pip   = "PIP_CACHE_DIR=/dev/giggle-cache/pip "
		rest  = "YARN_CACHE_FOLDER=/dev/giggle-cache/yarn npm_config_store_dir=/dev/giggle-cache/pnpm " +
			"UV_CACHE_DIR=/dev/giggle-cache/uv COMPOSER_CACHE_DIR=/dev/giggle-cache/composer"
		apt = " APT_CONFIG=/dev/giggle-cache/apt.conf"
		all = goNPM + pip + rest + apt
	)
	dir := t.TempDir()
	if err := MakeCaches(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, env, mount, want, compilers string }{
		{"nothing", "A=b", "/etc/hosts", all, dir + "/go-build"},
		{"a variable", "GOCACHE=/mine", "/etc/hosts", strings.TrimPrefix(all, "GOCACHE=/dev/giggle-cache/go-build "), ""},
		{"a mount", "A=b", "/root/.cache/go-build", strings.TrimPrefix(all, "GOCACHE=/dev/giggle-cache/go-build "), "/of/the/mount"},
		{"a mount in another home", "A=b", "/home/app/.npm/", "GOCACHE=/dev/giggle-cache/go-build " + pip + rest + apt, dir + "/go-build"},
		{"a mount above", "A=b", "/root/.cache", "npm_config_cache=/dev/giggle-cache/npm npm_config_store_dir=/dev/giggle-cache/pnpm" + apt, ""},
		{"a mount elsewhere", "A=b", "/go/pkg/mod", all, dir + "/go-build"},
		{"APT's own mount", "A=b", "/var/cache/apt", goNPM + pip + rest, dir + "/go-build"},
		{"APT's variable", "APT_CONFIG=/mine", "/etc/hosts", goNPM + pip + rest, dir + "/go-build"},
	} {
		config, err := json.Marshal(map[string]any{
			"process": map[string]any{"env": []string{c.env}}, "linux": map[string]any{},
			"root":   map[string]any{"path": "/rootfs"},
			"mounts": []mount{{Destination: c.mount, Type: "bind", Source: "/of/the/mount"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out, got, err := Plan{Caches: dir}.edit(config, "/b/sys")
		if err != nil {
			t.Fatal(err)
		}
		var edited struct {
			Process struct{ Env []string }
			Mounts  []mount
		}
		if err := json.Unmarshal(out, &edited); err != nil {
			t.Fatal(err)
		}
		if env := strings.Join(edited.Process.Env, " "); env != c.env+" "+c.want {
			t.Errorf("%s: the environment is %s, want %s", c.name, env, c.want)
		}
		if last := edited.Mounts[len(edited.Mounts)-1]; last.Source != dir || last.Destination != CacheDir {
			t.Errorf("%s: the last mount is %+v", c.name, last)
		}
		if got.apt != nil {
			got.apt.Close()
		}
		if at := strings.Join(got.compilers, " "); at != c.compilers || got.root != "/rootfs" {
			t.Errorf("%s: the compiler's caches are %q in %q, want %q", c.name, at, got.root, c.compilers)
		}
	}
}

// An image's warm cache fills one that has not got it, once, and never over what is there.
func TestSeed(t *testing.T) {
	image, to := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seed(image, to) // no cache in it
	for _, name := range []string{"aa/1-a", "aa/2-d", "ff/3-d"} {
		write(image+WarmCache, name, "of the image")
	}
	write(image+WarmCache, "README", "of the image")
	write(to, "aa/1-a", "of a build")
	seed(image, to)
	for name, want := range map[string]string{"aa/1-a": "of a build", "aa/2-d": "of the image",
		"ff/3-d": "of the image", "README": ""} {
		if b, _ := os.ReadFile(filepath.Join(to, name)); string(b) != want {
			t.Errorf("%s holds %q, want %q", name, b, want)
		}
	}
	if err := os.Remove(filepath.Join(to, "aa/2-d")); err != nil {
		t.Fatal(err)
	}
	seed(image, to)
	if _, err := os.Stat(filepath.Join(to, "aa/2-d")); err == nil {
		t.Error("what was copied already is copied again")
	}
}

// A step may leave links in its cache, and an image in its own: nothing outside of either is written or read.
func TestSeedFollowsNoLinkOut(t *testing.T) {
	image, to, outside := t.TempDir(), t.TempDir(), t.TempDir()
	warm := image + WarmCache
	for _, dir := range []string{warm + "/aa", warm + "/bb"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{warm + "/aa/1-d", warm + "/bb/2-d", outside + "/secret"} {
		if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{warm + "/aa/0-d": outside + "/secret", to + "/aa": outside} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	seed(image, to)
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 1 {
		t.Errorf("beside the cache there are %v, %v", left, err)
	}
	for _, name := range []string{"aa/0-d", "bb/0-d"} {
		if b, err := os.ReadFile(filepath.Join(to, name)); err == nil {
			t.Errorf("%s holds %q", name, b)
		}
	}
	// The image's cache may itself be a link.
	again := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(again+WarmCache), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(warm, again+WarmCache); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	seed(again, empty)
	if got, err := os.ReadDir(empty); err != nil || len(got) != 0 {
		t.Errorf("a link's cache was copied: %v, %v", got, err)
	}
}

// One step at a time has the cache of Debian's packages; when it ends the next one can have it. What another step has
// put in the lock's place doesn't hold anybody up.
func TestAPTCacheIsOneSteps(t *testing.T) {
	dir := t.TempDir()
	if err := MakeCaches(dir); err != nil {
		t.Fatal(err)
	}
	first := takeAPT(dir)
	if first == nil {
		t.Fatal("nobody has it, and it can't be had")
	}
	if second := takeAPT(dir); second != nil {
		t.Error("two steps have it")
	}
	first.Close()
	if again := takeAPT(dir); again == nil {
		t.Error("nobody has it any more, and it can't be had")
	} else {
		again.Close()
	}
	lock := filepath.Join(dir, aptLock)
	if err := errors.Join(os.Remove(lock), syscall.Mkfifo(lock, 0o666)); err != nil {
		t.Fatal(err)
	}
	takeAPT(dir) // returns
}

// What steps have left where the caches are leads the host nowhere: not to change rights, nor to write.
func TestMakeCachesFollowsNoLink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("mine"), 0o600), os.Chmod(outside, 0o700)); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"npm": outside, "pip": victim, aptConfig: victim, aptLock: victim} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "yarn"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MakeCaches(dir); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{outside: 0o700, victim: 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %o", path, st.Mode(), err, mode)
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "mine" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
	for _, name := range []string{"npm", "pip", "yarn", aptDir} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || !st.IsDir() || st.Mode().Perm() != 0o777 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}
