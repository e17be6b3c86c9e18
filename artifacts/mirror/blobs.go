package mirror

import "giggle/blob"

// Blobs are the bytes of the images that were made here or added: manifests, configurations, layers. They are to be
// read only. They are opened once: opening removes what is half written.
func (m *Mirror) Blobs() (*blob.Dir, error) { return m.open() }
