package mirror

import (
	"path/filepath"

	"giggle/blob"
)

// Blobs are the bytes of the mirror's images: manifests, configurations, layers. They are to be read only.
func (m *Mirror) Blobs() (*blob.Dir, error) { return blob.Open(filepath.Join(m.dir, "blobs")) }
