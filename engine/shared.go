package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// shared keeps Spec.Files as layers: one copy on the disk, and in its cache, however many instances have it (a bundle
// of certificates has some 200 kB). An overlay gives each instance a copy of its own of what it changes.
type shared struct {
	dir string

	mu   sync.Mutex
	uses map[string]int // by name in dir
}

func newShared(dir string) *shared { return &shared{dir: dir, uses: map[string]int{}} }

// acquire returns the directory of a layer that has those files, and its key for release.
func (s *shared) acquire(files []File) (layer, key string, err error) {
	sum := sha256.New()
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) }) {
		fmt.Fprintf(sum, "%q %o %d\n", f.Path, f.mode(), len(f.Data))
		sum.Write(f.Data)
	}
	key = "files-" + hex.EncodeToString(sum.Sum(nil))
	layer = filepath.Join(s.dir, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[key] == 0 {
		if err := writeLayer(layer, files); err != nil {
			return "", "", errors.Join(err, os.RemoveAll(layer))
		}
	}
	s.uses[key]++
	return layer, key, nil
}

func writeLayer(dir string, files []File) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		name := f.Path[1:]
		if err := mkdirs(root, filepath.Dir(name)); err != nil {
			return err
		}
		if err := root.WriteFile(name, f.Data, 0o600); err != nil {
			return err
		}
		if err := root.Chmod(name, f.mode()); err != nil { // past the umask
			return err
		}
	}
	return nil
}

func mkdirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if err := mkdirs(root, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

func (s *shared) release(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[key]--; s.uses[key] > 0 {
		return nil
	}
	delete(s.uses, key)
	return os.RemoveAll(filepath.Join(s.dir, key))
}
