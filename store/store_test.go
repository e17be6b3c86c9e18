package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"giggle/fault"
	"giggle/store"
)

type thing struct{ Text string }

var things = store.NewTable[thing]("test.thing", "Thing")

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func open(t *testing.T, file string, now func() time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), file, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func create(t *testing.T, s *store.Store, name, text string) store.Row[thing] {
	t.Helper()
	var row store.Row[thing]
	err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
		row, err = things.Create(tx, name, thing{text})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func TestVersions(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), time.Now)
	ctx := t.Context()
	row := create(t, s, "a", "one")
	if row.Version != 1 || row.Cursor != 1 {
		t.Fatalf("a new row is at version %d revision %d, want 1 1", row.Version, row.Cursor)
	}
	// A status write must not spoil a client's read-modify-write.
	err := s.Update(ctx, func(tx *store.Tx) error {
		st := row
		st.Value.Text = "one, ready"
		_, err := things.SetStatus(tx, st)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	update := func(r store.Row[thing]) (out store.Row[thing], err error) {
		err = s.Update(ctx, func(tx *store.Tx) error {
			out, err = things.Update(tx, r)
			return err
		})
		return out, err
	}
	row.Value.Text = "two"
	two, err := update(row)
	if err != nil || two.Version != 2 || two.Cursor != 3 {
		t.Fatalf("update after a status write: version %d revision %d, %v", two.Version, two.Cursor, err)
	}
	if _, err := update(row); !fault.Is(err, fault.Aborted) {
		t.Errorf("update of an old version = %v, want ABORTED", err)
	}
	for name, fn := range map[string]func(tx *store.Tx) error{
		"create twice":   func(tx *store.Tx) error { _, err := things.Create(tx, "a", thing{}); return err },
		"delete missing": func(tx *store.Tx) error { return things.Delete(tx, "b") },
	} {
		err := s.Update(ctx, fn)
		if !fault.Is(err, fault.AlreadyExists) && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s = %v", name, err)
		}
	}
}

func TestFailedUpdateWritesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), time.Now)
	boom := errors.New("boom")
	for name, fn := range map[string]func(tx *store.Tx) error{
		"error": func(tx *store.Tx) error { _, _ = things.Put(tx, "x", thing{}); return boom },
		"panic": func(tx *store.Tx) error { _, _ = things.Put(tx, "x", thing{}); panic(boom) },
	} {
		if err := s.Update(t.Context(), fn); err == nil {
			t.Errorf("%s: no error", name)
		}
		err := s.View(t.Context(), func(tx *store.Tx) error { _, err := things.Get(tx, "x"); return err })
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: the row is there (%v)", name, err)
		}
	}
	err := s.View(t.Context(), func(tx *store.Tx) error { _, err := things.Put(tx, "x", thing{}); return err })
	if err == nil {
		t.Error("a write in View succeeded")
	}
}

func TestListByPrefix(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), time.Now)
	for _, n := range []string{"p/a/1", "p/a/2", "p/a/3", "p/ab/1", "q/1"} {
		create(t, s, n, n)
	}
	for _, tt := range []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"p/a/", "", 0, "[p/a/1 p/a/2 p/a/3]"}, {"p/a/", "p/a/1", 1, "[p/a/2]"}, {"", "p/ab/1", 0, "[q/1]"},
		{"z", "", 0, "[]"},
	} {
		var got []string
		err := s.View(t.Context(), func(tx *store.Tx) error {
			rows, err := things.List(tx, tt.prefix, tt.after, tt.limit)
			for _, r := range rows {
				got = append(got, r.Name)
			}
			return err
		})
		if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("List(%q, %q, %d) = %v, %v, want %s", tt.prefix, tt.after, tt.limit, got, err, tt.want)
		}
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error { return things.Delete(tx, "p/a/2") })
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"p/a/": 2, "": 4, "z": 0} {
		var got int
		err := s.View(t.Context(), func(tx *store.Tx) (err error) { got, err = things.Count(tx, prefix); return err })
		if err != nil || got != want {
			t.Errorf("Count(%q) = %d, %v, want %d", prefix, got, err, want)
		}
	}
}

// Many writers, one reader that follows by Watch: at the end it must know every row, and each deletion.
func TestWatchMissesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), time.Now)
	const writers, each = 8, 20
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := s.Watch(things.Kind())
	defer w.Close()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				name := fmt.Sprintf("%d/%d", i, j)
				err := s.Update(ctx,
					func(tx *store.Tx) error { _, err := things.Create(tx, name, thing{}); return err })
				if err == nil && j%2 == 1 {
					err = s.Update(ctx, func(tx *store.Tx) error { return things.Delete(tx, name) })
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	live, gone := map[string]bool{}, 0
	var cursor int64
	for len(live) < writers*each/2 || gone < writers*each/2 {
		select {
		case <-w.C:
		case <-ctx.Done():
			t.Fatalf("%d live and %d deleted rows seen, want %d of each", len(live), gone, writers*each/2)
		}
		err := s.View(ctx, func(tx *store.Tx) error {
			rows, next, err := things.Changes(tx, "", cursor)
			for _, r := range rows {
				if r.Deleted {
					delete(live, r.Name)
					gone++
				} else {
					live[r.Name] = true
				}
			}
			cursor = next
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func TestPurgeMovesTheHorizon(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	s := open(t, filepath.Join(t.TempDir(), "db"), c.now)
	create(t, s, "a", "")
	create(t, s, "b", "")
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return things.Delete(tx, "a") }); err != nil {
		t.Fatal(err)
	}
	changes := func(after int64) (n int, err error) {
		err = s.View(t.Context(), func(tx *store.Tx) error {
			rows, _, err := things.Changes(tx, "", after)
			n = len(rows)
			return err
		})
		return n, err
	}
	if n, err := changes(2); n != 1 || err != nil {
		t.Fatalf("changes after 2 = %d, %v, want the deletion", n, err)
	}
	c.t = c.t.Add(2 * time.Hour)
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := changes(2); !fault.Is(err, fault.OutOfRange) {
		t.Errorf("changes after the purge = %v, want OUT_OF_RANGE", err)
	}
	if n, err := changes(3); n != 0 || err != nil {
		t.Errorf("changes after 3 = %d, %v", n, err)
	}
}

func TestReopenKeepsRowsAndNewerSchemaIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	s := open(t, file, time.Now)
	create(t, s, "a", "kept")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(*store.Tx) error { return nil }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("update after close = %v, want UNAVAILABLE", err)
	}
	s = open(t, file, time.Now)
	err := s.View(t.Context(), func(tx *store.Tx) error {
		r, err := things.Get(tx, "a")
		if r.Value.Text != "kept" {
			t.Errorf("value = %q", r.Value.Text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()

	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	if _, err := store.Open(t.Context(), file, time.Now); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("open of a newer schema = %v, want FAILED_PRECONDITION", err)
	}
}
