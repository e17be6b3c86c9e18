package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
)

// shared keeps the content of Spec.Files: one copy in memory, however many instances show it (a bundle of certificates
// has some 200 kB).
type shared struct {
	root *os.Root
	dir  string

	mu   sync.Mutex
	uses map[string]int // by name in dir
}

func newShared(root *os.Root, dir string) *shared {
	return &shared{root: root, dir: dir, uses: map[string]int{}}
}

// acquire returns the path of a file with this content, below root, and its key for release.
func (s *shared) acquire(data []byte, mode fs.FileMode) (string, error) {
	if mode == 0 {
		mode = 0o444
	}
	sum := sha256.Sum256(data)
	name := path.Join(s.dir, fmt.Sprintf("%s-%o", hex.EncodeToString(sum[:]), mode.Perm()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[name] == 0 {
		if err := s.root.WriteFile(name, data, 0o600); err != nil {
			return "", err
		}
		if err := s.root.Chmod(name, mode.Perm()); err != nil {
			return "", err
		}
	}
	s.uses[name]++
	return name, nil
}

func (s *shared) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[name]--; s.uses[name] == 0 {
		delete(s.uses, name)
		s.root.Remove(name)
	}
}
