package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Line is a text about a change that is kept in the change's own transaction until it is written down elsewhere: an
// entry of the audit log.
type Line struct {
	ID   string
	Text []byte
}

// Changed is a row that a transaction has written.
type Changed struct {
	Kind, Name string
}

type journalKey struct{}

// WithJournal returns a context whose updates, as far as they write anything, keep the line that write returns in their
// transaction: the change and the line are there, or neither is. A line replaces one of the same ID.
func WithJournal(ctx context.Context, write func([]Changed) (Line, error)) context.Context {
	return context.WithValue(ctx, journalKey{}, write)
}

// journaled is fn and the line about what it does.
func journaled(ctx context.Context, fn func(*Tx) error) func(*Tx) error {
	write, ok := ctx.Value(journalKey{}).(func([]Changed) (Line, error))
	if !ok {
		return fn
	}
	return func(tx *Tx) error {
		if err := fn(tx); err != nil || len(tx.changed) == 0 {
			return err
		}
		line, err := write(slices.SortedFunc(maps.Keys(tx.changed), func(a, b Changed) int {
			return strings.Compare(a.Kind+"\x00"+a.Name, b.Kind+"\x00"+b.Name)
		}))
		if err != nil {
			return err
		}
		if _, err = tx.sql.ExecContext(tx.ctx, "INSERT OR REPLACE INTO journal (id, line) VALUES (?, ?)", line.ID,
			line.Text); err != nil {
			return fmt.Errorf("store: journal: %w", err)
		}
		return nil
	}
}

// Journal returns the lines that nobody has said are written down.
func (s *Store) Journal(ctx context.Context) (out []Line, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		rows, err := tx.sql.QueryContext(tx.ctx, "SELECT id, line FROM journal ORDER BY id")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var l Line
			if err := rows.Scan(&l.ID, &l.Text); err != nil {
				return err
			}
			out = append(out, l)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("store.Journal: %w", err)
	}
	return out, nil
}

// Written says that a line is written down elsewhere. It goes with the next commit, so that it costs none of its own.
func (s *Store) Written(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = append(s.written, id)
}

// forget removes the lines that are written down, in the transaction that tx is of.
func (s *Store) forget(tx *Tx, ids []string) error {
	for _, id := range ids {
		if _, err := tx.sql.ExecContext(tx.ctx, "DELETE FROM journal WHERE id = ?", id); err != nil {
			return fmt.Errorf("store: journal: %w", err)
		}
	}
	return nil
}

// OnCommit has fn called when the transaction is on disk, before the update's caller gets its answer and in the order
// of the commits: for what keeps rows in memory as well. Fn must not wait for the store.
func (tx *Tx) OnCommit(fn func()) { tx.after = append(tx.after, fn) }

// OnDelete has fn called in every transaction that deletes a row of a kind, while the row is still there: for what must
// not outlive it. It is called before the store is used.
func (s *Store) OnDelete(kind string, fn func(tx *Tx, name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.deleting)
	if next == nil {
		next = make(map[string][]func(*Tx, string) error)
	}
	next[kind] = append(slices.Clip(next[kind]), fn)
	s.deleting = next
}

// Exists reports whether there is a row of that kind and name.
func Exists(tx *Tx, kind, name string) (bool, error) {
	var n int
	q := tx.sql.QueryRowContext(tx.ctx, "SELECT count(*) FROM objects WHERE kind = ? AND name = ? AND deleted = 0",
		kind, name)
	if err := q.Scan(&n); err != nil {
		return false, fmt.Errorf("store: look for %s: %w", kind, err)
	}
	return n > 0, nil
}
