package storage

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"giggle/fault"
	"giggle/store"
)

// UploadLife is how long a resumable upload may take, as Cloud Storage has it.
const UploadLife = 7 * 24 * time.Hour

// Upload is a resumable upload: what the bytes are to become, kept over restarts.
type Upload struct {
	ID     string // also the id of the bytes in package blob; unguessable
	Insert Insert
	Total  int64   // bytes that the client announced, or -1
	Done   *Object // what it became
}

var uploads = store.NewTable[Upload]("storage.upload", "Upload")

// session is what this process remembers of an upload: its running hashes, so that its bytes are not read again at
// the end unless the process was restarted.
type session struct {
	mu   sync.Mutex
	sums *sums
}

// BeginUpload starts a resumable upload of total bytes, -1 if the client does not know.
func (s *Storage) BeginUpload(ctx context.Context, in Insert, total int64) (_ Upload, err error) {
	defer fault.Wrap(&err, "storage.BeginUpload(%.64s)", in.Bucket)
	if _, err := s.admits(ctx, &in, max(total, 0)); err != nil {
		return Upload{}, err
	}
	id, err := s.blobs.BeginUpload(ctx)
	if err != nil {
		return Upload{}, err
	}
	u := Upload{ID: id, Insert: in, Total: total}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		_, err := uploads.Create(tx, id, u)
		return err
	})
	return u, err
}

// Upload returns an upload and how many bytes it has.
func (s *Storage) Upload(ctx context.Context, bucket, id string) (u Upload, size int64, err error) {
	defer fault.Wrap(&err, "storage.Upload(%.64s)", bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		u, err = getUpload(tx, bucket, id)
		return err
	})
	if err != nil || u.Done != nil {
		if u.Done != nil {
			size = u.Done.Size
		}
		return u, size, err
	}
	size, err = s.blobs.UploadSize(ctx, id)
	return u, size, err
}

// UploadBy returns who began a resumable upload, "" for nobody: for who goes on with it and shows its id only.
func (s *Storage) UploadBy(ctx context.Context, id string) (member string, err error) {
	defer fault.Wrap(&err, "storage.UploadBy")
	err = s.store.View(ctx, func(tx *store.Tx) error {
		row, err := uploads.Get(tx, id)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		member = row.Value.Insert.By
		return err
	})
	return member, err
}

func getUpload(tx *store.Tx, bucket, id string) (Upload, error) {
	row, err := uploads.Get(tx, id)
	if err == nil && row.Value.Insert.Bucket != bucket || fault.Is(err, fault.NotFound) {
		e := fault.New(fault.NotFound,
			"The upload %q was not found in the bucket %q: it has expired, or was never begun. Start it again.",
			clip(id), clip(bucket))
		e.Reason = ReasonUploadGone
		return Upload{}, e
	}
	return row.Value, err
}

// Sender is what whoever sends a piece of an upload says: an Insert has the same fields.
type Sender struct {
	MayReplace func() error
	MD5        []byte  // of all the bytes, which may be known at the end only
	CRC32C     *uint32 // likewise
}

// Append adds what r yields at offset and returns the upload's size. Bytes that it has already are skipped, so that a
// client that lost an answer may send them again. When the upload has total bytes (-1: unknown), it becomes an object,
// which is in Upload.Done; total may be given with the last piece only.
func (s *Storage) Append(
	ctx context.Context, bucket, id string, offset, total int64, r io.Reader, by Sender,
) (u Upload, size int64, err error) {
	defer fault.Wrap(&err, "storage.Append(%.64s)", bucket)
	sess := s.session(id)
	sess.mu.Lock()
	defer sess.mu.Unlock()
	u, size, err = s.Upload(ctx, bucket, id)
	if err != nil {
		s.forget(id)
		return u, 0, err
	}
	if u.Done != nil {
		return u, size, nil
	}
	u.Insert.MayReplace = by.MayReplace
	if by.MD5 != nil {
		u.Insert.MD5 = by.MD5
	}
	if by.CRC32C != nil {
		u.Insert.CRC32C = by.CRC32C
	}
	if u.Total >= 0 && total >= 0 && u.Total != total {
		return u, size, fault.New(fault.InvalidArgument, "The upload was announced with %d bytes, not %d.", u.Total,
			total)
	}
	total = max(total, u.Total)
	if offset > size {
		return u, size, fault.New(fault.OutOfRange, "The upload has %d bytes: it can't go on from offset %d.", size,
			offset)
	}
	if skip := size - offset; skip > 0 {
		switch _, err := io.CopyN(io.Discard, r, skip); {
		case errors.Is(err, io.EOF): // nothing new, but perhaps the end of what was cut off before it was finished
			err := s.finish(ctx, sess, &u, size == total, size)
			return u, size, err
		case err != nil:
			return u, size, err
		}
	}
	at, err := s.uploadRoom(ctx, u, total-size)
	if err != nil {
		return u, size, err
	}
	r = s.bytes.Upload(at.project, id, size).Reader(ctx, r, at.replaced)
	if total >= 0 {
		r = &overrun{r: r, left: total - size}
	}
	if sess.sums == nil && size == 0 {
		sess.sums = newSums()
	}
	if sess.sums != nil && sess.sums.n == size {
		r = io.TeeReader(r, sess.sums)
	}
	size, err = s.blobs.AppendUpload(ctx, id, size, r)
	if sess.sums != nil && sess.sums.n != size {
		sess.sums = nil // they know bytes that the disk has not, or lack some: read again at the end
	}
	if err != nil {
		return u, size, err
	}
	err = s.finish(ctx, sess, &u, size == total, size)
	return u, size, err
}

// finish makes the object if the upload is whole.
func (s *Storage) finish(ctx context.Context, sess *session, u *Upload, whole bool, size int64) error {
	if !whole {
		return nil
	}
	// The object is refused before its bytes leave the upload, so that nothing is lost that could be sent again.
	at, err := s.admits(ctx, &u.Insert, 0)
	if err == nil {
		err = s.bytes.Admit(ctx, at.project, -at.replaced) // what the upload has is counted already
	}
	if err != nil {
		return err
	}
	info, err := s.blobs.CommitUpload(ctx, u.ID, "")
	if err != nil {
		return err
	}
	release, err := s.blobs.Hold(ctx, info.Digest) // to read it again may take a while
	if err != nil {
		return err
	}
	defer release()
	h := sess.sums
	if h == nil || h.n != size {
		h = newSums()
		r, _, err := s.blobs.Open(ctx, info.Digest)
		if err != nil {
			return err
		}
		_, err = io.Copy(h, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	s.bytes.EndUpload(u.ID)
	o, err := s.insert(ctx, u.Insert, info, h, h.md5.Sum(nil), 0)
	if err != nil {
		return err
	}
	u.Done = &o
	s.forget(u.ID)
	return s.store.Update(ctx, func(tx *store.Tx) error { // so that the last piece may be sent again
		_, err := uploads.Put(tx, u.ID, *u)
		return err
	})
}

// AbortUpload drops an upload.
func (s *Storage) AbortUpload(ctx context.Context, bucket, id string) (err error) {
	defer fault.Wrap(&err, "storage.AbortUpload(%.64s)", bucket)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getUpload(tx, bucket, id); err != nil {
			return err
		}
		return uploads.Delete(tx, id)
	})
	if err != nil {
		return err
	}
	s.forget(id)
	if err := s.blobs.AbortUpload(ctx, id); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// ExpireUploads drops the uploads that were begun more than UploadLife ago, and returns how many they were.
func (s *Storage) ExpireUploads(ctx context.Context) (n int, err error) {
	defer fault.Wrap(&err, "storage.ExpireUploads")
	var old []Upload
	var parted []Multipart
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := uploads.List(tx, "", "", 0)
		for _, r := range rows {
			if s.now().Sub(r.Created) > UploadLife {
				old = append(old, r.Value)
			}
		}
		if err != nil {
			return err
		}
		begun, err := multiparts.List(tx, "", "", 0)
		for _, r := range begun {
			if s.now().Sub(r.Created) > UploadLife {
				parted = append(parted, r.Value)
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, u := range old {
		if err := s.AbortUpload(ctx, u.Insert.Bucket, u.ID); err != nil && !fault.Is(err, fault.NotFound) {
			return n, err
		}
		n++
	}
	for _, u := range parted {
		err := s.AbortMultipart(ctx, u.Insert.Bucket, u.Insert.Name, u.ID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return n, err
		}
		n++
	}
	return n, nil
}

func (s *Storage) session(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := s.sessions[id]
	if sess == nil {
		sess = &session{}
		s.sessions[id] = sess
	}
	return sess
}

func (s *Storage) forget(id string) {
	s.bytes.EndUpload(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
}

// overrun fails when more comes than was announced.
type overrun struct {
	r    io.Reader
	left int64
}

func (o *overrun) Read(p []byte) (int, error) {
	if int64(len(p)) > o.left+1 {
		p = p[:o.left+1]
	}
	n, err := o.r.Read(p)
	if int64(n) > o.left {
		return int(o.left), fault.New(fault.InvalidArgument, "The upload has more bytes than were announced.")
	}
	o.left -= int64(n)
	return n, err
}
