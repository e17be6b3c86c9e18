package store

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Sum returns the table with what each of its rows adds to a sum, and to which: the bytes of an object to those of its
// project. Every write keeps the sums, in its own transaction. What a row adds must not change but by writing the row.
// As with By, a table that has rows already needs a migration.
func (t Table[T]) Sum(adds func(tx *Tx, name string, v T) (sum string, n int64, err error)) Table[T] {
	t.adds = adds
	return t
}

// Sum returns the present value of a sum, 0 where nothing adds to it.
func Sum(tx *Tx, name string) (n int64, err error) {
	err = tx.sql.QueryRowContext(tx.ctx, "SELECT value FROM sums WHERE name = ?", name).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("store: sum %s: %w", name, err)
	}
	return n + tx.sums[name], nil
}

// count notes what it does to the sums that a row is written in place of another; either may be nil.
func (t Table[T]) count(tx *Tx, was, is *Row[T]) error {
	if t.adds == nil {
		return nil
	}
	note := func(row *Row[T], sign int64) error {
		if row == nil {
			return nil
		}
		sum, n, err := t.adds(tx, row.Name, row.Value)
		if err != nil {
			return fmt.Errorf("store: what %s %s adds: %w", t.kind, row.Name, err)
		}
		if n == 0 {
			return nil
		}
		if tx.sums == nil {
			tx.sums = make(map[string]int64)
		}
		tx.sums[sum] += sign * n
		return nil
	}
	return errors.Join(note(was, -1), note(is, 1))
}

// keepSums writes the sums that the transaction has changed. Those that grew are asked about, but not for what deletes
// rows, too.
func (tx *Tx) keepSums() error {
	for _, name := range slices.Sorted(maps.Keys(tx.sums)) {
		change := tx.sums[name]
		if change == 0 {
			continue
		}
		var value int64
		q := tx.sql.QueryRowContext(tx.ctx,
			"INSERT INTO sums (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2 RETURNING value", name, change)
		if err := q.Scan(&value); err != nil {
			return fmt.Errorf("store: sum %s: %w", name, err)
		}
		if change > 0 && !tx.frees {
			if err := tx.grown(name, value-change, change); err != nil {
				return err
			}
		}
	}
	return nil
}
