// Package storage is Cloud Storage as a product: buckets and objects, generations and preconditions, resumable
// uploads, and log objects that grow while they are read.
//
// It serves api/storage, which has the wire formats, and the products that stage sources and write build logs. Bytes
// lie in package blob under their digest, everything else is rows in package store. It has noncurrent and soft-deleted
// objects, but no lifecycle, and deletes no blob: it tells what it has released, and the collector knows the other
// users.
package storage

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Blobs is where content lies: *blob.Dir.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, want blob.Digest) (blob.Info, error)
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	Hold(ctx context.Context, d blob.Digest) (release func(), err error)
	Uploads
}

// Uploads is content that arrives in pieces, over restarts.
type Uploads interface {
	BeginUpload(ctx context.Context) (string, error)
	AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (int64, error)
	UploadSize(ctx context.Context, id string) (int64, error)
	CommitUpload(ctx context.Context, id string, want blob.Digest) (blob.Info, error)
	AbortUpload(ctx context.Context, id string) error
}

var _ Blobs = (*blob.Dir)(nil)

// Options is what a Storage is made of.
type Options struct {
	Store *store.Store
	Blobs Blobs
	Logs  string           // directory of the logs that are being written
	Now   func() time.Time // required
	// asked before so many bytes, or as yet unknown ones, are taken in, for the disk reserve; nil admits all
	Admit func(n int64) error
	// Released hears of content that an object has just ceased to be, after it is on disk: what collects garbage
	// asks Needed then. It may be nil and must not block.
	Released func(blob.Digest)
	Quotas   *quota.Limits // nil is the usual ones
	Bytes    *quota.Bytes  // what comes in; nil admits all
}

// Storage is all buckets of a platform. It is safe for concurrent use.
type Storage struct {
	store *store.Store
	blobs Blobs
	logs  string
	now   func() time.Time
	admit func(n int64) error
	freed func(blob.Digest)

	quotas *quota.Limits
	bytes  *quota.Bytes

	mu       sync.Mutex
	lastGen  int64
	sessions map[string]*session // uploads that this process has touched
	ended    map[string]growing  // logs that nobody writes any more, for which the disk had no room
}

// Reasons of faults that a wire format tells apart from others of their code.
const (
	ReasonPrecondition = "conditionNotMet" // FailedPrecondition; HTTP 412
	ReasonNotModified  = "notModified"     // FailedPrecondition; HTTP 304 on reads
	ReasonNotEmpty     = "conflict"        // Aborted; HTTP 409
	ReasonUploadGone   = "uploadGone"      // NotFound; HTTP 410, on which gcloud starts the upload again
)

// New opens the storage in opts. Logs that a crash left unfinished are finished with what they have.
func New(ctx context.Context, opts Options) (_ *Storage, err error) {
	defer fault.Wrap(&err, "storage.New")
	s := &Storage{
		store:    opts.Store,
		blobs:    opts.Blobs,
		logs:     opts.Logs,
		now:      opts.Now,
		admit:    opts.Admit,
		freed:    opts.Released,
		quotas:   opts.Quotas,
		bytes:    opts.Bytes,
		sessions: map[string]*session{},
		ended:    map[string]growing{},
	}
	if s.admit == nil {
		s.admit = func(int64) error { return nil }
	}
	if s.freed == nil {
		s.freed = func(blob.Digest) {}
	}
	if err := os.MkdirAll(s.logs, 0o700); err != nil {
		return nil, err
	}
	return s, s.recoverLogs(ctx)
}

// Room fails when there is none for n more bytes of an upload, as an Append of so many would.
func (s *Storage) Room(ctx context.Context, u Upload, n int64) error {
	_, err := s.uploadRoom(ctx, u, n)
	return err
}

func (s *Storage) uploadRoom(ctx context.Context, u Upload, n int64) (at spot, err error) {
	err = s.store.View(ctx, func(tx *store.Tx) error {
		at, err = spotOf(tx, u.Insert.Bucket, u.Insert.Name)
		return err
	})
	if err != nil {
		return at, err
	}
	return at, s.room(ctx, at, max(n, 0))
}

// generation returns a number that no object of this storage had: the time in microseconds, as Cloud Storage has it.
func (s *Storage) generation(after int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastGen = max(s.now().UnixMicro(), s.lastGen+1, after+1)
	return s.lastGen
}

func (s *Storage) logFile(id string) string { return filepath.Join(s.logs, id) }
