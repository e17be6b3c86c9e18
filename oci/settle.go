package oci

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// settler gets unpacked layers on disk in the background. Waiting for that would make a deploy wait for all that the
// machine has to write. So a layer is used at once, and only the mark that it gets when it is safely on disk lets a
// later process trust it: without one it may have lost content at a power cut, and is unpacked again.
type settler struct {
	layers, marks string
	wg            sync.WaitGroup

	mu      sync.Mutex
	pending []string
	running bool

	pruning sync.RWMutex // held for reading while a layer is found, for writing while one is taken away
}

// settle marks the layer some time later.
func (s *settler) settle(layer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, layer)
	if !s.running {
		s.running = true
		s.wg.Go(s.work)
	}
}

func (s *settler) work() {
	for {
		s.mu.Lock()
		batch := s.pending
		s.pending = nil
		s.running = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		if err := syncAll(s.layers); err != nil {
			continue // not marked: the next process unpacks them again
		}
		for _, layer := range batch {
			os.WriteFile(filepath.Join(s.marks, layer), nil, 0o600) // likewise
		}
	}
}

// syncAll puts on disk all that was written to the file system of dir.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// sweep removes the layers that have no mark, and the marks that have no layer.
func (s *settler) sweep() error {
	for _, pair := range [][2]string{{s.layers, s.marks}, {s.marks, s.layers}} {
		entries, err := os.ReadDir(pair[0])
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := os.Lstat(filepath.Join(pair[1], e.Name())); os.IsNotExist(err) {
				if err := os.RemoveAll(filepath.Join(pair[0], e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
