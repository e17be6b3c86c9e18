package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"sync"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

// Log is an object that grows: what is written can be read at once. Close makes it an object like any other.
type Log struct {
	s            *Storage
	id           string
	bucket, name string

	mu   sync.Mutex
	file *os.File // nil once closed
}

// growing names the object of each log file, so that a start finds what a crash left.
type growing struct{ Bucket, Name string }

var growings = store.NewTable[growing]("storage.log", "Log")

// CreateLog starts a log object, in place of the object of that name. Its bytes are on disk after Close; a power cut
// before that may lose the last of them, a crash of the platform does not.
func (s *Storage) CreateLog(ctx context.Context, in Insert) (_ *Log, err error) {
	defer fault.Wrap(&err, "storage.CreateLog(%.64s)", in.Bucket)
	if err := in.check(); err != nil {
		return nil, err
	}
	l := &Log{s: s, id: rand.Text(), bucket: in.Bucket, name: in.Name}
	if l.file, err = os.OpenFile(s.logFile(l.id), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) (err error) {
		o := Object{
			Bucket:         in.Bucket,
			Name:           in.Name,
			Attrs:          in.Attrs,
			Metageneration: 1,
			Log:            l.id,
		}
		if was, err = s.place(tx, &o, in); err != nil {
			return err
		}
		_, err = growings.Create(tx, l.id, growing{in.Bucket, in.Name})
		return err
	})
	if err != nil {
		_ = l.file.Close()
		_ = os.Remove(s.logFile(l.id))
		return nil, err
	}
	s.release(was, nil)
	return l, nil
}

// Write appends. Calls may be concurrent: each one's bytes stay together.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, fs.ErrClosed
	}
	return l.file.Write(p)
}

// Close finishes the object. A second call does nothing. On a full disk it stays as it is, to be read like this, until
// FinishLogs has room.
func (l *Log) Close(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "storage.Log.Close(%.64s)", l.bucket)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err = l.file.Close()
	l.file = nil
	if err != nil {
		return err
	}
	return l.s.finishOrKeep(ctx, l.id, growing{l.bucket, l.name})
}

// finishOrKeep is finishLog where there is room for a log's bytes, which are moved by being copied.
func (s *Storage) finishOrKeep(ctx context.Context, id string, at growing) error {
	err := s.finishLog(ctx, id, at)
	full := fault.Is(err, fault.ResourceExhausted)
	s.mu.Lock()
	defer s.mu.Unlock()
	if full {
		s.ended[id] = at
		return nil
	}
	delete(s.ended, id)
	return err
}

// FinishLogs finishes the logs for which the disk had no room.
func (s *Storage) FinishLogs(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "storage.FinishLogs")
	s.mu.Lock()
	ended := maps.Clone(s.ended)
	s.mu.Unlock()
	for id, at := range ended {
		if err := s.finishOrKeep(ctx, id, at); err != nil {
			return err
		}
	}
	return nil
}

// finishLog moves a log's bytes into the blob store and says so in its row, then removes the file. An object that was
// deleted or replaced meanwhile stays as it is.
func (s *Storage) finishLog(ctx context.Context, id string, at growing) error {
	f, err := os.Open(s.logFile(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h := newSums()
	var r io.Reader = eof{} // a power cut took the file: an empty log is better than none that can be read
	if err == nil {
		defer f.Close()
		r = f
	}
	info, err := s.blobs.Put(ctx, io.TeeReader(r, h), "")
	if err != nil {
		return err
	}
	release, err := s.blobs.Hold(ctx, info.Digest) // until the row says that it is needed
	if err != nil {
		return err
	}
	defer release()
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := objects.Get(tx, key(at.Bucket, at.Name))
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if o := row.Value; err == nil && o.Log == id {
			o.Log, o.Size, o.Digest, o.MD5, o.CRC32C, o.Updated = "", info.Size, info.Digest, h.md5.Sum(nil), h.crc.Sum32(), tx.Now().UTC()
			if _, err := objects.Put(tx, row.Name, o); err != nil {
				return err
			}
		}
		if err := growings.Delete(tx, id); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Remove(s.logFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// recoverLogs finishes the logs that nobody writes any more, and removes files that never got a row.
func (s *Storage) recoverLogs(ctx context.Context) error {
	var rows []store.Row[growing]
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = growings.List(tx, "", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := s.finishOrKeep(ctx, r.Name, r.Value); err != nil {
			return err
		}
	}
	left, err := os.ReadDir(s.logs)
	if err != nil {
		return err
	}
	for _, e := range left {
		if _, later := s.ended[e.Name()]; later {
			continue
		}
		if err := os.Remove(s.logFile(e.Name())); err != nil {
			return err
		}
	}
	return nil
}
