package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"giggle/fault"
)

// Tx is a transaction, valid only inside the function that it was given to.
type Tx struct {
	ctx      context.Context
	sql      *sql.Tx
	now      time.Time
	writable bool
	admit    func() error                            // asked before new rows are kept
	grown    func(sum string, had, more int64) error // asked before a sum that grew is kept
	sums     map[string]int64                        // by how much it changes them
	changed  map[Changed]bool
	after    []func()                             // see OnCommit
	deleting map[string][]func(*Tx, string) error // see Store.OnDelete
	grows    bool                                 // it made new rows
	frees    bool                                 // it removed some, or leads to that
}

// Frees says that the transaction leads to space being given back, though it deletes no row itself: it goes through
// when the disk is full.
func (tx *Tx) Frees() { tx.frees = true }

// Now is the time of the transaction: all rows that it writes carry the same.
func (tx *Tx) Now() time.Time { return tx.now }

// savepoint runs fn so that its writes go away when it fails or panics.
func (tx *Tx) savepoint(fn func(*Tx) error) (err error) {
	if _, err := tx.sql.ExecContext(tx.ctx, "SAVEPOINT u"); err != nil {
		return fmt.Errorf("store: savepoint: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: panic in an update: %v", p)
		}
		end := "RELEASE u"
		if err != nil {
			end = "ROLLBACK TO u; RELEASE u"
		}
		if _, e := tx.sql.ExecContext(tx.ctx, end); e != nil && err == nil {
			err = fmt.Errorf("store: %s: %w", end, e)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.keepSums(); err != nil {
		return err
	}
	if tx.grows && !tx.frees {
		return tx.admit()
	}
	return nil
}

// Row is one object of a table.
type Row[T any] struct {
	Name    string // full resource name, unique in its table
	Version int64  // changes with the intent only; what a read-modify-write compares
	Cursor  int64  // store-wide, changes with every write; what a watch counts
	Created time.Time
	Updated time.Time
	Deleted bool // only in Changes: the row is gone, Value is its last state
	Value   T
}

// Table is the rows of one kind. T is stored as JSON; a field that T does not know is lost on the next write, so old
// fields are kept in T until a migration has moved them.
type Table[T any] struct {
	kind string // "run.service": package and noun
	noun string // "Service": for errors
	by   func(name string, v T) string
	adds func(tx *Tx, name string, v T) (sum string, n int64, err error)
}

// NewTable names a table. It makes nothing on disk. Kind is package and noun, such as "run.service"; noun is what an
// error calls a row.
func NewTable[T any](kind, noun string) Table[T] { return Table[T]{kind: kind, noun: noun} }

// By returns the table with an index over what each of its rows refers to or belongs to, "" for nothing: what CountBy
// asks. It holds for rows written from then on, so a migration has to fill it for a table that has rows already.
func (t Table[T]) By(ref func(name string, v T) string) Table[T] {
	t.by = ref
	return t
}

// Kind returns the name that Store.Watch takes.
func (t Table[T]) Kind() string { return t.kind }

// columns are those of Row; cursors are in one named revision.
const columns = "name, version, revision, created, updated, deleted, data"

// Get returns the row of that name, or NotFound.
func (t Table[T]) Get(tx *Tx, name string) (Row[T], error) {
	q := tx.sql.QueryRowContext(tx.ctx, "SELECT "+columns+" FROM objects WHERE kind = ? AND name = ? AND deleted = 0",
		t.kind, name)
	row, err := t.scan(q.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return row, fault.New(fault.NotFound, "%s %q was not found.", t.noun, name)
	}
	return row, err
}

// List returns the rows whose names start with prefix and come after the name after, in the order of their names; at
// most limit of them, all when limit is 0.
func (t Table[T]) List(tx *Tx, prefix, after string, limit int) ([]Row[T], error) {
	if limit <= 0 {
		limit = -1
	}
	return t.query(tx, "SELECT "+columns+
		" FROM objects WHERE kind = ? AND name >= ? AND name < ? AND name > ? AND deleted = 0 ORDER BY name LIMIT ?",
		t.kind, prefix, prefixEnd(prefix), after, limit)
}

// Count returns how many rows have a name that starts with prefix, without reading them.
func (t Table[T]) Count(tx *Tx, prefix string) (int, error) {
	return t.countRows(tx, "SELECT count(*) FROM objects WHERE kind = ? AND name >= ? AND name < ? AND deleted = 0",
		t.kind, prefix, prefixEnd(prefix))
}

// CountBy returns how many rows refer to ref (By), but no more than limit: it looks at no more than that.
func (t Table[T]) CountBy(tx *Tx, ref string, limit int) (int, error) {
	return t.countRows(tx, "SELECT count(*) FROM (SELECT 1 FROM objects WHERE kind = ? AND ref = ? AND ref <> '' AND deleted = 0 LIMIT ?)", t.kind, ref, limit)
}

// ListBy returns the rows that refer to ref (By), in no order.
func (t Table[T]) ListBy(tx *Tx, ref string) ([]Row[T], error) {
	return t.query(tx, "SELECT "+columns+" FROM objects WHERE kind = ? AND ref = ? AND ref <> '' AND deleted = 0",
		t.kind, ref)
}

func (t Table[T]) countRows(tx *Tx, query string, args ...any) (n int, err error) {
	if err := tx.sql.QueryRowContext(tx.ctx, query, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("store: count %s: %w", t.kind, err)
	}
	return n, nil
}

// prefixEnd is a string that sorts after every UTF-8 string with the prefix.
func prefixEnd(prefix string) string { return prefix + "\xff" }

// Changes returns what has changed after the given cursor among the rows whose names start with prefix, deletions
// included, in the order of their cursors, and the cursor to ask with next. It fails with OutOfRange when the
// answer may lack a deletion: list again.
func (t Table[T]) Changes(tx *Tx, prefix string, after int64) ([]Row[T], int64, error) {
	var horizon int64
	if err := tx.sql.QueryRowContext(tx.ctx,
		"SELECT value FROM counters WHERE name = 'horizon'").Scan(&horizon); err != nil {
		return nil, 0, fmt.Errorf("store: horizon: %w", err)
	}
	if after != 0 && after < horizon {
		return nil, 0, fault.New(fault.OutOfRange, "The changes after cursor %d are no longer kept; list again.", after)
	}
	now, err := Cursor(tx)
	if err != nil {
		return nil, 0, err
	}
	rows, err := t.query(tx, "SELECT "+columns+
		" FROM objects WHERE kind = ? AND revision > ? AND name >= ? AND name < ? ORDER BY revision",
		t.kind, after, prefix, prefixEnd(prefix))
	return rows, now, err
}

// Cursor returns the last cursor that was given out.
func Cursor(tx *Tx) (int64, error) {
	var n int64
	if err := tx.sql.QueryRowContext(tx.ctx,
		"SELECT value FROM counters WHERE name = 'revision'").Scan(&n); err != nil {
		return 0, fmt.Errorf("store: cursor: %w", err)
	}
	return n, nil
}

// Create adds a row at version 1. It fails with AlreadyExists where there is one of that name.
func (t Table[T]) Create(tx *Tx, name string, v T) (Row[T], error) {
	switch _, err := t.Get(tx, name); {
	case err == nil:
		return Row[T]{}, fault.New(fault.AlreadyExists, "%s %q already exists.", t.noun, name)
	case !fault.Is(err, fault.NotFound):
		return Row[T]{}, err
	}
	tx.grows = true
	return t.write(tx, nil, Row[T]{Name: name, Version: 1, Created: tx.now, Value: v})
}

// Update replaces a row's value, as a change of intent. It fails with Aborted when row.Version is not the row's
// version now, and with NotFound when the row is gone.
func (t Table[T]) Update(tx *Tx, row Row[T]) (Row[T], error) {
	have, err := t.Get(tx, row.Name)
	if err != nil {
		return Row[T]{}, err
	}
	if have.Version != row.Version {
		return Row[T]{}, fault.New(fault.Aborted,
			"%s %q has changed since it was read (version %d, now %d). Read it again and repeat the change.", t.noun,
			row.Name, row.Version, have.Version)
	}
	row.Version++
	row.Created = have.Created
	return t.write(tx, &have, row)
}

// SetStatus replaces a row's value without a change of intent: Version stays, so a client's read-modify-write never
// fails because of it. The caller must have read the row in this transaction. It fails with NotFound when the row is
// gone.
func (t Table[T]) SetStatus(tx *Tx, row Row[T]) (Row[T], error) {
	have, err := t.Get(tx, row.Name)
	if err != nil {
		return Row[T]{}, err
	}
	row.Version, row.Created = have.Version, have.Created
	return t.write(tx, &have, row)
}

// Put creates the row or replaces its value, whatever its version.
func (t Table[T]) Put(tx *Tx, name string, v T) (Row[T], error) {
	have, err := t.Get(tx, name)
	switch {
	case fault.Is(err, fault.NotFound):
		return t.write(tx, nil, Row[T]{Name: name, Version: 1, Created: tx.now, Value: v})
	case err != nil:
		return Row[T]{}, err
	}
	row := have
	row.Value = v
	row.Version++
	return t.write(tx, &have, row)
}

// Delete removes the row of that name, or fails with NotFound.
func (t Table[T]) Delete(tx *Tx, name string) error {
	have, err := t.Get(tx, name)
	if err != nil {
		return err
	}
	for _, fn := range tx.deleting[t.kind] {
		if err := fn(tx, name); err != nil {
			return err
		}
	}
	row := have
	row.Deleted, tx.frees = true, true
	_, err = t.write(tx, &have, row)
	return err
}

// write gives the row the next cursor and stores it in place of the one that there is, nil for none.
func (t Table[T]) write(tx *Tx, have *Row[T], row Row[T]) (Row[T], error) {
	if !tx.writable {
		return row, errors.New("store: a write in View")
	}
	is := &row
	if row.Deleted {
		is = nil
	}
	if err := t.count(tx, have, is); err != nil {
		return row, err
	}
	data, err := json.Marshal(row.Value)
	if err != nil {
		return row, fmt.Errorf("store: encode %s %s: %w", t.kind, row.Name, err)
	}
	row.Updated = tx.now
	var ref string
	if t.by != nil {
		ref = t.by(row.Name, row.Value)
	}
	q := tx.sql.QueryRowContext(tx.ctx, "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value")
	if err := q.Scan(&row.Cursor); err != nil {
		return row, fmt.Errorf("store: next cursor: %w", err)
	}
	_, err = tx.sql.ExecContext(tx.ctx,
		"INSERT OR REPLACE INTO objects (kind, name, version, revision, created, updated, deleted, data, ref) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		t.kind, row.Name, row.Version, row.Cursor, row.Created.UnixNano(), row.Updated.UnixNano(), row.Deleted, data,
		ref)
	if err != nil {
		return row, fmt.Errorf("store: write %s %s: %w", t.kind, row.Name, err)
	}
	if tx.changed == nil {
		tx.changed = make(map[Changed]bool)
	}
	tx.changed[Changed{t.kind, row.Name}] = true
	return row, nil
}

func (t Table[T]) query(tx *Tx, q string, args ...any) (_ []Row[T], err error) {
	rows, err := tx.sql.QueryContext(tx.ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("store: list %s: %w", t.kind, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []Row[T]
	for rows.Next() {
		row, err := t.scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

func (t Table[T]) scan(scan func(...any) error) (Row[T], error) {
	var row Row[T]
	var created, updated int64
	var data []byte
	if err := scan(&row.Name, &row.Version, &row.Cursor, &created, &updated, &row.Deleted, &data); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return row, err
		}
		return row, fmt.Errorf("store: read %s: %w", t.kind, err)
	}
	row.Created, row.Updated = time.Unix(0, created).UTC(), time.Unix(0, updated).UTC()
	if err := json.Unmarshal(data, &row.Value); err != nil {
		return row, fmt.Errorf("store: decode %s %s: %w", t.kind, row.Name, err)
	}
	return row, nil
}
