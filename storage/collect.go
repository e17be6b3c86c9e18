package storage

import (
	"context"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

var _ blob.Marker = (*Storage)(nil)

// Mark calls keep for the bytes of every object.
func (s *Storage) Mark(ctx context.Context, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "storage.Mark")
	return s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := objects.List(tx, "", "", 0)
		for _, r := range rows {
			if r.Value.Digest != "" { // a log that grows has none yet
				keep(r.Value.Digest)
			}
		}
		return err
	})
}
