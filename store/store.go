// Package store keeps the platform's state: typed rows in one SQLite file, with transactions, optimistic versions and
// a watch.
//
// Products keep their objects in it through a Table of their own type. The store knows nothing of what a row means,
// and it holds no bytes of images or uploads: those are in package blob.
//
// Every row has two counters (docs/decisions/0003-two-counters.md). Version changes with the intent only and is the
// lock of a read-modify-write; Cursor is given out store-wide with every write, status included, and is where
// a watch goes on.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // registers the driver "sqlite"; this package is its only user
	sqlite3 "modernc.org/sqlite/lib"

	"giggle/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// maxBatch is the most updates that share one commit, and so one fsync.
const maxBatch = 64

// tombstoneAge is how long a deletion stays visible to a watcher that was away.
const tombstoneAge = time.Hour

// Store is one SQLite database in WAL mode: many readers, one writer.
type Store struct {
	readers *sql.DB
	writer  *sql.DB
	now     func() time.Time
	admit   func() error
	step    func(string)
	grown   func(sum string, had, more int64) error
	full    func() bool

	updates chan *update
	stop    chan struct{}
	stopped chan struct{}
	close   sync.Once

	mu       sync.Mutex
	watchers map[*Watch]struct{}
	written  []string // lines of the journal that the next commit removes
	deleting map[string][]func(*Tx, string) error
	hangUp   chan struct{}
}

// Config is what New needs.
type Config struct {
	File string
	Now  func() time.Time
	// Admit is asked before new rows are kept, for the disk reserve, but not by what deletes rows, too; nil admits all.
	Admit func() error
	// Step is told of each step that a commit has come to, for tests that end the process there; it may be nil.
	Step func(step string)
	// Grown is asked before a sum (Table.Sum) that has grown is kept, with what it was and by how much it grows: for
	// quotas. It isn't asked about what deletes rows, too; nil admits all.
	Grown func(sum string, had, more int64) error
	// Full makes room when the disk is full, and reports whether it could: then what failed is tried once more. It may
	// be nil.
	Full func() bool
}

// Open is New without a care for the disk.
func Open(ctx context.Context, file string, now func() time.Time) (*Store, error) {
	return New(ctx, Config{File: file, Now: now})
}

// New opens the database file, creates it where it is missing, and brings it to this binary's schema. A file that a
// newer binary wrote is refused with FailedPrecondition and left as it is.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Admit == nil {
		cfg.Admit = func() error { return nil }
	}
	if cfg.Step == nil {
		cfg.Step = func(string) {}
	}
	if cfg.Grown == nil {
		cfg.Grown = func(string, int64, int64) error { return nil }
	}
	if cfg.Full == nil {
		cfg.Full = func() bool { return false }
	}
	s, err := open(ctx, cfg)
	if isFull(err) && cfg.Full() {
		s, err = open(ctx, cfg)
	}
	return s, sayFull(err)
}

func open(ctx context.Context, cfg Config) (_ *Store, err error) {
	file := cfg.File
	defer fault.Wrap(&err, "store.New(%s)", filepath.Base(file))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	// synchronous=FULL: a write is on disk before it is acknowledged.
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: file}).EscapedPath() +
			"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_pragma=cache_size(-1024)" + extra
	}
	writer, err := sql.Open("sqlite", dsn("&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	if err := migrate(ctx, writer); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	readers, err := sql.Open("sqlite", dsn("&_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	readers.SetMaxOpenConns(4)
	readers.SetMaxIdleConns(2)
	s := &Store{
		readers:  readers,
		writer:   writer,
		now:      cfg.Now,
		admit:    cfg.Admit,
		grown:    cfg.Grown,
		full:     cfg.Full,
		step:     cfg.Step,
		updates:  make(chan *update, maxBatch),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		watchers: make(map[*Watch]struct{}),
		hangUp:   make(chan struct{}),
	}
	go s.write()
	return s, nil
}

// migrate applies the embedded, forward-only migrations.
func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	at, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	newest := sources[len(sources)-1].Version
	if at > newest {
		return fault.New(fault.FailedPrecondition,
			"The data directory has schema %d; this giggle knows up to %d. Use the newer giggle that wrote it.", at,
			newest)
	}
	if at == newest {
		return nil
	}
	_, err = p.Up(ctx)
	return err
}

// Close ends the writer after the updates that it has taken, and closes the file.
func (s *Store) Close() error {
	s.close.Do(func() { close(s.stop) })
	<-s.stopped
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// View runs fn on a consistent snapshot. Writes through tx fail.
func (s *Store) View(ctx context.Context, fn func(tx *Tx) error) error {
	t, err := s.readers.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store.View: %w", err)
	}
	defer func() { _ = t.Rollback() }() // a read-only snapshot: nothing to lose
	return fn(&Tx{ctx: ctx, sql: t, now: s.now()})
}

// Update runs fn in a transaction and returns once its writes are on disk. It writes nothing when fn fails. fn must not
// call Update: there is one writer, and it is busy with fn. When the disk is found full, fn is run again; if there is
// no room then either, Update fails with ResourceExhausted.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	u := &update{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case s.updates <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return ErrStopping
	}
	select {
	case err := <-u.done:
		return err
	case <-s.stopped:
		select {
		case err := <-u.done:
			return err
		default:
			return ErrStopping
		}
	}
}

// update is one call of Update on its way to the writer.
type update struct {
	ctx  context.Context
	fn   func(tx *Tx) error
	done chan error
	err  error
}

// write is the one writer. Updates that wait together share a commit: one fsync for all of them.
func (s *Store) write() {
	defer close(s.stopped)
	for {
		var group []*update
		select {
		case u := <-s.updates:
			group = append(group, u)
		case <-s.stop:
			select {
			case u := <-s.updates: // taken before the stop: finish it
				group = append(group, u)
			default:
				s.commit(nil) // what is written down elsewhere needs no look at the next start
				return
			}
		}
		for len(group) < maxBatch {
			select {
			case u := <-s.updates:
				group = append(group, u)
				continue
			default:
			}
			break
		}
		s.commit(group)
	}
}

// commit runs a group of updates in one transaction, each in a savepoint of its own, and answers them.
func (s *Store) commit(group []*update) {
	kinds, err := s.try(group)
	if isFull(err) && s.reuseLog() {
		kinds, err = s.try(group)
	}
	if isFull(err) && s.full() {
		s.reuseLog()
		kinds, err = s.try(group)
	}
	for _, u := range group {
		if err != nil && u.err == nil {
			u.err = sayFull(fmt.Errorf("store: commit: %w", err))
		}
	}
	if err == nil {
		s.announce(kinds) // before the answer: who is answered sees that watchers were told
	}
	for _, u := range group {
		u.done <- u.err
	}
}

// reuseLog has the write-ahead log begin again at its start, in the space that its file has, and reports whether it
// does: a disk that is full lets no file grow, but the database's own pages can be written over.
func (s *Store) reuseLog() bool {
	var busy, pages, moved int
	err := s.writer.QueryRow("PRAGMA wal_checkpoint(RESTART)").Scan(&busy, &pages, &moved)
	return err == nil && busy == 0
}

// try is commit without the answers. A full disk undoes the whole transaction, wherever it was met: SQLite may have
// done so already.
func (s *Store) try(group []*update) (kinds map[string]bool, err error) {
	kinds = make(map[string]bool)
	// The transaction belongs to the group: one caller who leaves must not take the others' writes with it.
	t, err := s.writer.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	written, deleting := s.written, s.deleting
	s.mu.Unlock()
	var after []func()
	for _, u := range group {
		if u.err = u.ctx.Err(); u.err != nil {
			continue
		}
		tx := &Tx{
			ctx:      context.WithoutCancel(u.ctx),
			sql:      t,
			now:      s.now(),
			writable: true,
			admit:    s.admit,
			grown:    s.grown,
			deleting: deleting,
		}
		if u.err = tx.savepoint(journaled(tx.ctx, u.fn)); u.err == nil {
			for c := range tx.changed {
				kinds[c.Kind] = true
			}
			after = append(after, tx.after...)
		}
		if full := u.err; isFull(full) {
			_ = t.Rollback() // nothing of it is on disk, whether this works or not
			for _, u := range group {
				if u.ctx.Err() == nil {
					u.err = nil // it was not its fault
				}
			}
			return nil, full
		}
	}
	if err := s.forget(&Tx{ctx: context.Background(), sql: t}, written); err != nil {
		return nil, errors.Join(err, t.Rollback())
	}
	s.step("store: before the commit")
	if err := t.Commit(); err != nil {
		return nil, err
	}
	s.step("store: after the commit")
	s.mu.Lock()
	s.written = s.written[len(written):]
	s.mu.Unlock()
	for _, fn := range after {
		fn()
	}
	return kinds, nil
}

// isFull reports whether SQLite found no room on the disk: for its rows, or for the memory that its processes share.
func isFull(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP:
		return true
	}
	return false
}

// sayFull makes a fault of a full disk.
func sayFull(err error) error {
	if isFull(err) {
		return fault.DiskFull(err)
	}
	return err
}

// Watch is a level-triggered signal that rows of some kinds have changed. It never blocks a writer and never misses a
// change: what happened since the reader's cursor is read with Table.Changes.
type Watch struct {
	// C holds one token when something has changed since the last receive.
	C <-chan struct{}
	// HangUp is closed when the platform is about to stop: a caller that waits for a change, perhaps for ever, should
	// be told so.
	HangUp <-chan struct{}

	c     chan struct{}
	kinds map[string]bool
	s     *Store
}

// Watch starts a watch over tables of the given kinds. The first token is there at once, so that a reader that
// receives, then reads, starts with the present state. Close ends it.
func (s *Store) Watch(kinds ...string) *Watch {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	w := &Watch{
		C:      c,
		HangUp: s.hangUp,
		c:      c,
		kinds:  make(map[string]bool, len(kinds)),
		s:      s,
	}
	for _, k := range kinds {
		w.kinds[k] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w
}

// HangUp tells everybody who waits in a watch that the platform is about to stop. It is called once.
func (s *Store) HangUp() { close(s.hangUp) }

// ErrStopping is what those get who wait when the platform stops.
var ErrStopping = fault.New(fault.Unavailable, "The platform is stopping.")

// Close ends the watch.
func (w *Watch) Close() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	delete(w.s.watchers, w)
}

func (s *Store) announce(kinds map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		for k := range kinds {
			if w.kinds[k] {
				select {
				case w.c <- struct{}{}:
				default: // a token is waiting already: the reader will see this change too
				}
				break
			}
		}
	}
}

// Purge removes tombstones older than an hour. A watcher whose cursor is older is told to list again.
func (s *Store) Purge(ctx context.Context) error {
	return s.Update(ctx, func(tx *Tx) error {
		before := tx.now.Add(-tombstoneAge).UnixNano()
		_, err := tx.sql.ExecContext(tx.ctx, `
			UPDATE counters SET value = MAX(value, COALESCE(
				(SELECT MAX(revision) FROM objects WHERE deleted = 1 AND updated < ?1), 0))
			WHERE name = 'horizon'`, before)
		if err != nil {
			return fmt.Errorf("store.Purge: %w", err)
		}
		_, err = tx.sql.ExecContext(tx.ctx, `DELETE FROM objects WHERE deleted = 1 AND updated < ?`, before)
		if err != nil {
			return fmt.Errorf("store.Purge: %w", err)
		}
		return nil
	})
}

// Now is the store's clock.
func (s *Store) Now() time.Time { return s.now() }
