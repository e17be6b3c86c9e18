package storage

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// The bounds of https://cloud.google.com/storage/quotas#multipart: the last part may be smaller.
const (
	MaxParts    = 10_000
	MinPartSize = 5 << 20
)

// Multipart is an upload of parts, in any order, that become an object when all are there.
type Multipart struct {
	ID     string // unguessable
	Insert Insert
	Begun  time.Time
}

// Part is one of a Multipart.
type Part struct {
	Bucket string
	Number int
	Digest blob.Digest
	Size   int64
	MD5    []byte
	Put    time.Time
}

// ETag is what names the content of a part to the client.
func (p Part) ETag() string { return hex.EncodeToString(p.MD5) }

var (
	multiparts = store.NewTable[Multipart]("storage.multipart", "Upload")
	parts      = store.NewTable[Part]("storage.part", "Part").
			By(func(_ string, p Part) string { return string(p.Digest) }).
			Sum(func(tx *store.Tx, _ string, p Part) (string, int64, error) {
			b, err := getBucket(tx, p.Bucket)
			return quota.Stored(b.Project), p.Size, err
		})
)

// Reasons of faults about parts.
const (
	ReasonNoUpload     = "NoSuchUpload"
	ReasonInvalidPart  = "InvalidPart"
	ReasonPartOrder    = "InvalidPartOrder"
	ReasonPartTooSmall = "EntityTooSmall"
)

func partKey(bucket, id string, number int) string {
	return fmt.Sprintf("%s/%s/%05d", bucket, id, number)
}

func getMultipart(tx *store.Tx, bucket, name, id string) (Multipart, error) {
	if _, err := getBucket(tx, bucket); err != nil {
		return Multipart{}, err
	}
	row, err := multiparts.Get(tx, key(bucket, id))
	if fault.Is(err, fault.NotFound) || err == nil && row.Value.Insert.Name != name {
		e := fault.New(fault.NotFound, "The upload ID may be invalid, or the upload may have been aborted or completed.")
		e.Reason = ReasonNoUpload
		return Multipart{}, e
	}
	return row.Value, err
}

// BeginMultipart starts an upload of parts.
func (s *Storage) BeginMultipart(ctx context.Context, in Insert, id string) (u Multipart, err error) {
	defer fault.Wrap(&err, "storage.BeginMultipart(%.64s)", in.Bucket)
	if _, err := s.admits(ctx, &in, 0); err != nil {
		return u, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		u = Multipart{ID: id, Insert: in, Begun: tx.Now().UTC()}
		_, err := multiparts.Create(tx, key(in.Bucket, id), u)
		return err
	})
	return u, err
}

// Multipart returns an upload and those of its parts that come after a number, and whether there are more.
func (s *Storage) Multipart(
	ctx context.Context, bucket, name, id string, after, limit int,
) (u Multipart, all []Part, more bool, err error) {
	defer fault.Wrap(&err, "storage.Multipart(%.64s)", bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if u, err = getMultipart(tx, bucket, name, id); err != nil {
			return err
		}
		rows, err := parts.List(tx, key(bucket, id)+"/", partKey(bucket, id, after), limit+1)
		for _, r := range rows[:min(len(rows), limit)] {
			all = append(all, r.Value)
		}
		more = len(rows) > limit
		return err
	})
	return u, all, more, err
}

// Multiparts returns the uploads of parts in a bucket whose objects' names begin with a prefix, limit at most.
func (s *Storage) Multiparts(ctx context.Context, bucket string, limit int) (all []Multipart, err error) {
	defer fault.Wrap(&err, "storage.Multiparts(%.64s)", bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getBucket(tx, bucket); err != nil {
			return err
		}
		rows, err := multiparts.List(tx, bucket+"/", "", limit)
		for _, r := range rows {
			all = append(all, r.Value)
		}
		return err
	})
	return all, err
}

// PutPart stores a part, in place of the one of that number. Size is what its bytes are announced to be, 0 if nobody
// says.
func (s *Storage) PutPart(
	ctx context.Context, bucket, name, id string, number int, size int64, sum []byte, r io.Reader,
) (p Part, err error) {
	defer fault.Wrap(&err, "storage.PutPart(%.64s)", bucket)
	if number < 1 || number > MaxParts {
		return p, fault.Invalid("partNumber", "Part number must be an integer between 1 and %d, inclusive.", MaxParts)
	}
	var project string
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getMultipart(tx, bucket, name, id); err != nil {
			return err
		}
		b, err := getBucket(tx, bucket)
		project = b.Project
		return err
	})
	if err == nil {
		err = s.room(ctx, spot{project: project}, size)
	}
	if err != nil {
		return p, err
	}
	coming := s.bytes.Begin(project)
	defer coming.End()
	h := newSums()
	info, err := s.blobs.Put(ctx, io.TeeReader(coming.Reader(ctx, r, 0), h), "")
	if err != nil {
		return p, err
	}
	coming.End()
	p = Part{Bucket: bucket, Number: number, Digest: info.Digest, Size: info.Size, MD5: h.md5.Sum(nil)}
	if sum != nil && string(sum) != string(p.MD5) {
		return p, fault.New(fault.InvalidArgument, "Provided MD5 hash does not match the content: %x is not %x.", sum,
			p.MD5)
	}
	release, err := s.blobs.Hold(ctx, p.Digest) // until the row says that it is needed
	if err != nil {
		return p, err
	}
	defer release()
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getMultipart(tx, bucket, name, id); err != nil {
			return err
		}
		p.Put = tx.Now().UTC()
		at := partKey(bucket, id, number)
		if have, err := parts.Get(tx, at); err == nil {
			was = have.Value.Digest
		}
		_, err := parts.Put(tx, at, p)
		return err
	})
	s.release(was, err)
	return p, err
}

// CompleteMultipart makes the object of the parts that are named, by number and ETag; the others go. Like a composed
// object it has no MD5.
func (s *Storage) CompleteMultipart(
	ctx context.Context, bucket, name, id string, of []Part, by Sender, cond Conditions,
) (o Object, err error) {
	defer fault.Wrap(&err, "storage.CompleteMultipart(%.64s)", bucket)
	var in Insert
	var chosen []Part
	err = s.store.View(ctx, func(tx *store.Tx) error {
		u, err := getMultipart(tx, bucket, name, id)
		if err != nil {
			return err
		}
		in = u.Insert
		chosen, err = choose(tx, bucket, id, of)
		return err
	})
	if err != nil {
		return o, err
	}
	in.MayReplace, in.CRC32C, in.If = by.MayReplace, by.CRC32C, cond
	var readers []io.Reader
	for _, p := range chosen {
		in.Size += p.Size
		release, err := s.blobs.Hold(ctx, p.Digest) // another may abort the upload meanwhile
		if err != nil {
			return o, err
		}
		defer release()
		readers = append(readers, &lazy{open: func() (io.ReadCloser, error) {
			r, _, err := s.blobs.Open(ctx, p.Digest)
			return r, err
		}})
	}
	at, err := s.admits(ctx, &in, in.Size)
	if err != nil {
		return o, err
	}
	coming := s.bytes.Begin(at.project)
	defer coming.End()
	h := newSums()
	info, err := s.blobs.Put(ctx, io.TeeReader(coming.Reader(ctx, io.MultiReader(readers...), at.replaced), h), "")
	if err != nil {
		return o, err
	}
	coming.End()
	if o, err = s.insert(ctx, in, info, h, nil, 0); err != nil {
		return o, err
	}
	return o, s.AbortMultipart(ctx, bucket, name, id)
}

// choose returns the parts that a client names, which must be in order and large enough.
func choose(tx *store.Tx, bucket, id string, of []Part) (chosen []Part, err error) {
	wrong := func(reason, format string, args ...any) error {
		e := fault.New(fault.InvalidArgument, format, args...)
		e.Reason = reason
		return e
	}
	if len(of) == 0 || len(of) > MaxParts {
		return nil, wrong(ReasonInvalidPart, "An upload is completed with 1 to %d parts, not %d.", MaxParts, len(of))
	}
	for i := range of[1:] {
		if of[i+1].Number <= of[i].Number {
			return nil, wrong(ReasonPartOrder, "The parts are not in ascending order: %d is followed by %d.",
				of[i].Number, of[i+1].Number)
		}
	}
	for i, want := range of {
		row, err := parts.Get(tx, partKey(bucket, id, want.Number))
		if fault.Is(err, fault.NotFound) || err == nil && string(want.MD5) != string(row.Value.MD5) {
			return nil, wrong(ReasonInvalidPart, "The part %d was not found, or its ETag is another.", want.Number)
		}
		if err != nil {
			return nil, err
		}
		if i < len(of)-1 && row.Value.Size < MinPartSize {
			return nil, wrong(ReasonPartTooSmall, "The part %d has %d bytes: all but the last have %d at least.",
				want.Number, row.Value.Size, MinPartSize)
		}
		chosen = append(chosen, row.Value)
	}
	return chosen, nil
}

// AbortMultipart drops an upload with its parts.
func (s *Storage) AbortMultipart(ctx context.Context, bucket, name, id string) (err error) {
	defer fault.Wrap(&err, "storage.AbortMultipart(%.64s)", bucket)
	var gone []blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getMultipart(tx, bucket, name, id); err != nil {
			return err
		}
		gone, err = dropMultipart(tx, bucket, id)
		return err
	})
	for _, d := range gone {
		s.release(d, err)
	}
	return err
}

func dropMultipart(tx *store.Tx, bucket, id string) (gone []blob.Digest, err error) {
	rows, err := parts.List(tx, key(bucket, id)+"/", "", 0)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if err := parts.Delete(tx, r.Name); err != nil {
			return nil, err
		}
		gone = append(gone, r.Value.Digest)
	}
	return gone, multiparts.Delete(tx, key(bucket, id))
}

// lazy opens what it reads when it is read, and closes it at the end: an upload has more parts than a process files.
type lazy struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
	done bool
}

func (l *lazy) Read(p []byte) (n int, err error) {
	if l.done {
		return 0, io.EOF
	}
	if l.r == nil {
		if l.r, err = l.open(); err != nil {
			return 0, err
		}
	}
	if n, err = l.r.Read(p); err != nil {
		l.done = true
		l.r.Close()
	}
	return n, err
}
