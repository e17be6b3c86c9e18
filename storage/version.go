package storage

import (
	"context"
	"fmt"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

// versions are the objects that are live no more: noncurrent ones of buckets with versioning, and soft-deleted ones
// (https://cloud.google.com/storage/docs/object-versioning, https://cloud.google.com/storage/docs/soft-delete).
var versions = objectTable("storage.version", "Object version")

// A bucket made by the API keeps what is deleted for a week, and any bucket may for so long, or not at all.
const (
	DefaultSoftDelete = 7 * 24 * time.Hour
	MaxSoftDelete     = 90 * 24 * time.Hour
)

// versionKey is the row name of a generation: behind that of the live object, before any longer name, in the order of
// the generations.
func versionKey(bucket, name string, generation int64) string {
	return key(bucket, position(name, generation))
}

// position is where a generation comes in a listing. No name has a zero byte.
func position(name string, generation int64) string {
	return fmt.Sprintf("%s\x00%020d", name, generation)
}

// keeps reports whether the bytes of what is replaced stay.
func (b *Bucket) keeps() bool { return b.Versioning || b.SoftDelete > 0 }

// retire keeps what was live or noncurrent as the bucket would have it, and returns the content that is needed no more.
func (b *Bucket) retire(tx *store.Tx, o Object, noncurrent bool) (was blob.Digest, err error) {
	now := tx.Now().UTC()
	switch {
	case o.Log != "": // what is still being written has no content to keep
		return "", nil
	case noncurrent:
		o.Replaced = now
	case b.SoftDelete > 0:
		o.SoftDeleted, o.HardDelete = now, now.Add(b.SoftDelete)
		if o.Replaced.IsZero() {
			o.Replaced = now
		}
	default:
		return o.Digest, nil
	}
	_, err = versions.Put(tx, versionKey(o.Bucket, o.Name, o.Generation), o)
	return "", err
}

// SoftDeleted describes a soft-deleted generation of an object.
func (s *Storage) SoftDeleted(ctx context.Context, bucket, name string, generation int64) (o Object, err error) {
	defer fault.Wrap(&err, "storage.SoftDeleted(%.64s)", bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		o, err = softDeleted(tx, bucket, name, generation)
		return err
	})
	return o, err
}

func softDeleted(tx *store.Tx, bucket, name string, generation int64) (Object, error) {
	if _, err := getBucket(tx, bucket); err != nil {
		return Object{}, err
	}
	row, err := versions.Get(tx, versionKey(bucket, name, generation))
	if fault.Is(err, fault.NotFound) || err == nil && (row.Value.SoftDeleted.IsZero() ||
		!row.Value.HardDelete.After(tx.Now())) {
		err = noObject(bucket, name, generation)
	}
	return row.Value, err
}

// Restore makes a soft-deleted generation live again, as a new one: the soft-deleted one stays until its time is over.
func (s *Storage) Restore(ctx context.Context, generation int64, to Insert) (o Object, err error) {
	defer fault.Wrap(&err, "storage.Restore(%.64s)", to.Bucket)
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if o, err = softDeleted(tx, to.Bucket, to.Name, generation); err != nil {
			return err
		}
		o.Metageneration = 1
		was, err = s.place(tx, &o, to)
		return err
	})
	s.release(was, err)
	return o, err
}

// Move gives an object another name in its bucket, in one step.
func (s *Storage) Move(ctx context.Context, from Source, to Insert) (o Object, err error) {
	defer fault.Wrap(&err, "storage.Move(%.64s)", from.Bucket)
	if err := to.check(); err != nil {
		return o, err
	}
	if from.Bucket != to.Bucket || from.Name == to.Name {
		return o, fault.Invalid("destinationObject", "an object is moved to another name in its bucket")
	}
	var was, source blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		src, err := getObject(tx, from.Bucket, from.Name, 0, from.If)
		if err != nil {
			return err
		}
		if src.Log != "" {
			return stillWritten(src)
		}
		o = src
		o.Name, o.Metageneration = to.Name, 1
		if was, err = s.place(tx, &o, to); err != nil {
			return err
		}
		source, err = remove(tx, src, true)
		return err
	})
	s.release(was, err)
	s.release(source, err)
	return o, err
}

func stillWritten(o Object) error {
	return fault.New(fault.FailedPrecondition, "The log %s/%s is still being written; copy it when it is finished.",
		clip(o.Bucket), clip(o.Name))
}

// ForgetDeleted removes the soft-deleted objects whose time is over, or all of them: what a full disk has no room for.
// It returns how many they were.
func (s *Storage) ForgetDeleted(ctx context.Context, all bool) (n int, err error) {
	defer fault.Wrap(&err, "storage.ForgetDeleted")
	const batch = 256
	after := ""
	for {
		var gone []blob.Digest
		var read int
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			rows, err := versions.List(tx, "", after, batch)
			gone, read = nil, len(rows)
			for _, r := range rows {
				o := r.Value
				after = r.Name
				if err != nil || o.SoftDeleted.IsZero() || !all && o.HardDelete.After(tx.Now()) {
					continue
				}
				err = versions.Delete(tx, r.Name)
				gone = append(gone, o.Digest)
			}
			return err
		})
		if err != nil {
			return n, err
		}
		for _, d := range gone {
			s.release(d, nil)
		}
		if n += len(gone); read < batch {
			return n, nil
		}
	}
}
