package mirror

import (
	"path/filepath"

	"giggle/blob"
)

// Blobs are the bytes of the images that were made here or added: manifests, configurations, layers. They are to be
// read only.
func (m *Mirror) Blobs() (*blob.Dir, error) { return m.open("blobs") }

// cacheBlobs are the bytes of the cached images.
func (m *Mirror) cacheBlobs() (*blob.Dir, error) { return m.open(filepath.Join("cache", "blobs")) }

// open opens blobs once: opening removes what is half written.
func (m *Mirror) open(dir string) (_ *blob.Dir, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.blobs[dir]
	if d == nil {
		if d, err = blob.Open(filepath.Join(m.dir, dir)); err == nil {
			m.blobs[dir] = d
		}
	}
	return d, err
}
