package storage

import (
	"context"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

var (
	_ blob.Marker = (*Storage)(nil)
	_ blob.Needer = (*Storage)(nil)
)

// Needed calls keep for those of the blobs that an object has.
func (s *Storage) Needed(ctx context.Context, of []blob.Digest, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "storage.Needed")
	return s.store.View(ctx, func(tx *store.Tx) error {
		for _, d := range of {
			n, err := objects.CountBy(tx, string(d), 1)
			if err == nil && n == 0 {
				n, err = versions.CountBy(tx, string(d), 1)
			}
			if err == nil && n == 0 {
				n, err = parts.CountBy(tx, string(d), 1)
			}
			if err != nil {
				return err
			}
			if n > 0 {
				keep(d)
			}
		}
		return nil
	})
}

// Mark calls keep for the bytes of every object.
func (s *Storage) Mark(ctx context.Context, keep func(blob.Digest)) (err error) {
	defer fault.Wrap(&err, "storage.Mark")
	return s.store.View(ctx, func(tx *store.Tx) error {
		for _, t := range []store.Table[Object]{objects, versions} {
			rows, err := t.List(tx, "", "", 0)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if r.Value.Digest != "" { // a log that grows has none yet
					keep(r.Value.Digest)
				}
			}
		}
		rows, err := parts.List(tx, "", "", 0)
		for _, r := range rows {
			keep(r.Value.Digest)
		}
		return err
	})
}
