package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
	"giggle/store"
)

type full struct{ Text string }

var fulls = store.NewTable[full]("test.full",
	"Full").By(func(_ string, f full) string { return f.Text[:min(len(f.Text), 1)] })

// smallDisk is a file system of its own, of the given bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes the last byte of a file system.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 512} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// On a disk without a free byte whatever adds is told so, whatever removes works when there is a ballast, and the
// file can be opened again, whether the platform was stopped or killed.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 24<<20)
	ballast := filepath.Join(dir, "ballast")
	dropped := 0
	cfg := store.Config{File: filepath.Join(dir, "s.db"), Now: time.Now, Full: func() bool {
		if os.Remove(ballast) != nil {
			return false
		}
		dropped++
		return true
	}}
	s, err := store.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	big := full{strings.Repeat("x", 100<<10)}
	create := func(i int) error {
		return s.Update(t.Context(), func(tx *store.Tx) error {
			_, err := fulls.Create(tx, fmt.Sprintf("n/%03d", i), big)
			return err
		})
	}
	n := 0
	for ; n < 10; n++ {
		if err := create(n); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, dir)
	for i := 0; err == nil; i++ { // the write-ahead log has room in its file for some
		if i > 200 {
			t.Fatal("the disk is never full")
		}
		if err = create(n); err == nil {
			n++
		}
	}
	if e := fault.From(err); e.Code != fault.ResourceExhausted || e.Reason != fault.ReasonDiskFull {
		t.Fatalf("a write on a full disk: %v", err)
	}
	if dropped != 0 {
		t.Errorf("a ballast that is not there was let go %d times", dropped)
	}
	remove := func(name string) error {
		return s.Update(t.Context(), func(tx *store.Tx) error { return fulls.Delete(tx, name) })
	}
	// With a ballast.
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	for i := range n {
		if err := remove(fmt.Sprintf("n/%03d", i)); err != nil {
			t.Fatalf("delete row %d: %v", i, err)
		}
	}
	if dropped == 0 {
		t.Error("the ballast was not needed: the disk was not full")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	// The start needs room, too: for what SQLite's processes share.
	if _, err := store.New(t.Context(), cfg); err != nil && !fault.Is(err, fault.ResourceExhausted) {
		t.Errorf("open on a full disk = %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, "filler"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, dir)
	if s, err = store.New(t.Context(), cfg); err != nil {
		t.Fatalf("open with a ballast: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Only what adds rows and removes none asks for room.
func TestAdmitRows(t *testing.T) {
	refusal := fault.DiskFull(nil)
	var refuse error
	s, err := store.New(t.Context(), store.Config{
		File:  filepath.Join(t.TempDir(), "s.db"),
		Now:   time.Now,
		Admit: func() error { return refuse },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	create := func(tx *store.Tx) error { _, err := fulls.Create(tx, "new", full{"a"}); return err }
	for _, name := range []string{"one", "two"} {
		if err := s.Update(t.Context(),
			func(tx *store.Tx) error { _, err := fulls.Create(tx, name, full{name}); return err }); err != nil {
			t.Fatal(err)
		}
	}
	refuse = refusal
	for _, c := range []struct {
		name string
		do   func(tx *store.Tx) error
		want error
	}{
		{"create", create, refusal},
		{"change", func(tx *store.Tx) error { _, err := fulls.Put(tx, "one", full{"other"}); return err }, nil},
		{"status", func(tx *store.Tx) error {
			_, err := fulls.SetStatus(tx,
				store.Row[full]{Name: "one"})
			return err
		}, nil},
		{"delete with an operation", func(tx *store.Tx) error {
			return errors.Join(create(tx),
				fulls.Delete(tx, "two"))
		}, nil},
		{"delete what was made", func(tx *store.Tx) error { return fulls.Delete(tx, "new") }, nil},
		{"mark for deletion with an operation", func(tx *store.Tx) error { tx.Frees(); return create(tx) }, nil},
	} {
		if err := s.Update(t.Context(), c.do); !errors.Is(err, c.want) {
			t.Errorf("%s = %v, want %v", c.name, err, c.want)
		}
	}
}

func TestCountBy(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "s.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		for _, v := range []string{"a1", "a2", "a3", "b1", ""} {
			if _, err := fulls.Create(tx, "n/"+v, full{v}); err != nil {
				return err
			}
		}
		if _, err := fulls.Put(tx, "n/a1", full{"b"}); err != nil {
			return err
		}
		return fulls.Delete(tx, "n/a2")
	})
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]int{"a": 1, "b": 2, "": 0, "c": 0} {
		err := s.View(t.Context(), func(tx *store.Tx) error {
			n, err := fulls.CountBy(tx, ref, 10)
			if n != want {
				t.Errorf("%q is referred to %d times, want %d", ref, n, want)
			}
			if n, _ := fulls.CountBy(tx, "b", 1); n != 1 {
				t.Errorf("with a limit of 1: %d", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What older platforms wrote is in the index, too: else a blob that an object has would be taken for nobody's.
func TestIndexOfOlderRows(t *testing.T) {
	type object struct {
		Digest string
		Size   int64
	}
	type blob struct{ Size int64 }
	type bucket struct{ Project string }
	type key struct{ UniqueID string }
	objects := store.NewTable[object]("storage.object",
		"Object").By(func(_ string, o object) string { return o.Digest })
	manifests := store.NewTable[object]("artifacts.manifest",
		"Manifest").By(func(_ string, o object) string { return o.Digest })
	blobs := store.NewTable[blob]("artifacts.blob", "Blob")
	buckets := store.NewTable[bucket]("storage.bucket", "Bucket")
	accounts := store.NewTable[bucket]("iam.serviceAccount", "Account")
	keys := store.NewTable[key]("iam.serviceAccountKey", "Key")
	file := filepath.Join(t.TempDir(), "s.db")
	s, err := store.Open(t.Context(), file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		_, e1 := objects.Create(tx, "b/o", object{"sha256:1", 1})
		_, e2 := objects.Create(tx, "b/log", object{})
		_, e3 := manifests.Create(tx, "projects/p/m", object{"sha256:2", 20})
		_, e4 := blobs.Create(tx, "projects/p/locations/l/repositories/r/blobs/sha256:3", blob{300})
		_, e5 := buckets.Create(tx, "b", bucket{"p"})
		_, e6 := accounts.Create(tx, "a@p", bucket{"p"})
		_, e7 := keys.Create(tx, "k", key{"1"})
		_, e8 := objects.Create(tx, "b/gone", object{"sha256:4", 4000})
		return errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, objects.Delete(tx, "b/gone"))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	// Back to the first schema: without what later ones have added.
	for _, q := range []string{
		"DROP INDEX objects_by_ref", "ALTER TABLE objects DROP COLUMN ref", "DROP TABLE journal", "DROP TABLE sums",
		"DELETE FROM goose_db_version WHERE version_id > 1",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(t.Context(), file, time.Now); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		name  string
		count func(tx *store.Tx, ref string, limit int) (int, error)
		ref   string
		want  int
	}{
		{"object", objects.CountBy, "sha256:1", 1}, {"deleted object", objects.CountBy, "sha256:4", 0},
		{"manifest", manifests.CountBy, "sha256:2", 1},
		{"blob", blobs.CountBy, "sha256:3", 1}, {"bucket", buckets.CountBy, "p", 1},
		{"account", accounts.CountBy, "p", 1}, {"key", keys.CountBy, "1", 1},
	} {
		err := s.View(t.Context(), func(tx *store.Tx) error {
			n, err := c.count(tx, c.ref, 10)
			if n != c.want {
				t.Errorf("%s: %d rows refer to %s, want %d", c.name, n, c.ref, c.want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	err = s.View(t.Context(), func(tx *store.Tx) error {
		n, err := store.Sum(tx, "stored-bytes/p")
		if n != 321 {
			t.Errorf("the project stores %d bytes, want 321", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
