package storage_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/storage"
	"giggle/store"
)

// world is a storage on a directory that can be opened again, as after a crash.
type world struct {
	*storage.Storage
	dir   string
	store *store.Store
	now   time.Time
	full  error
	room  int64 // bytes that there is room for; 0 for any
}

func (w *world) open(t *testing.T) {
	t.Helper()
	if w.store != nil {
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	now := func() time.Time { return w.now }
	st, err := store.Open(t.Context(), filepath.Join(w.dir, "state.db"), now)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(filepath.Join(w.dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	w.store = st
	w.Storage, err = storage.New(t.Context(), storage.Options{
		Store: st,
		Blobs: blobs,
		Logs:  filepath.Join(w.dir, "logs"),
		Now:   now,
		Admit: func(n int64) error {
			if w.room > 0 && n > w.room {
				return fault.DiskFull(nil)
			}
			return w.full
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.open(t)
	t.Cleanup(func() { _ = w.store.Close() })
	if _, err := w.CreateBucket(t.Context(),
		storage.Bucket{Name: "bucket", Project: "proj-1", Location: "europe-north1"}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) put(t *testing.T, name, content string) storage.Object {
	t.Helper()
	o, err := w.Put(t.Context(), storage.Insert{Bucket: "bucket", Name: name}, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (w *world) read(t *testing.T, name string) string {
	t.Helper()
	o, r, err := w.Open(t.Context(), "bucket", name, 0, storage.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != o.Size {
		t.Fatalf("%s: %d bytes of %d, %v", name, len(b), o.Size, err)
	}
	return string(b)
}

func is(t *testing.T, err error, code fault.Code, reason string) {
	t.Helper()
	if f := fault.From(err); f == nil || f.Code != code || f.Reason != reason {
		t.Errorf("got %v, want %v %q", err, code, reason)
	}
}

func ptr[T any](v T) *T { return &v }

func TestBuckets(t *testing.T) {
	w := newWorld(t)
	_, err := w.CreateBucket(t.Context(), storage.Bucket{Name: "bucket", Project: "proj-2"})
	is(t, err, fault.AlreadyExists, "")
	for _, name := range []string{"abc", "abd", "b-2.example"} {
		if _, err := w.CreateBucket(t.Context(), storage.Bucket{Name: name, Project: "proj-2"}); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "ab", "Ab1", "a_b-", "-ab", "a..b", "a/b", "192.168.1.1", "goog-x",
		strings.Repeat("a", 64), "a." + strings.Repeat("b", 64)} {
		_, err := w.CreateBucket(t.Context(), storage.Bucket{Name: name, Project: "p"})
		if !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("bucket %q: %v", name, err)
		}
	}
	got, more, err := w.Buckets(t.Context(), "proj-2", "ab", "", 1)
	if err != nil || len(got) != 1 || got[0].Name != "abc" || !more {
		t.Errorf("list: %v %v %v", got, more, err)
	}
	got, more, err = w.Buckets(t.Context(), "proj-2", "ab", "abc", 5)
	if err != nil || len(got) != 1 || got[0].Name != "abd" || more {
		t.Errorf("list: %v %v %v", got, more, err)
	}
	w.put(t, "x", "1")
	is(t, w.DeleteBucket(t.Context(), "bucket", storage.Conditions{}), fault.Aborted, storage.ReasonNotEmpty)
	if err := w.Delete(t.Context(), "bucket", "x", 0, storage.Conditions{}); err != nil {
		t.Fatal(err)
	}
	b, err := w.UpdateBucket(t.Context(), "bucket", storage.Conditions{}, func(b *storage.Bucket) error {
		b.Labels, b.Project = map[string]string{"a": "b"}, "stolen"
		return nil
	})
	if err != nil || b.Metageneration != 2 || b.Project != "proj-1" || b.Location != "EUROPE-NORTH1" {
		t.Errorf("update: %+v %v", b, err)
	}
	is(t, w.DeleteBucket(t.Context(), "bucket", storage.Conditions{MetagenerationMatch: ptr(int64(1))}),
		fault.FailedPrecondition, storage.ReasonPrecondition)
	if err := w.DeleteBucket(t.Context(), "bucket", storage.Conditions{}); err != nil {
		t.Error(err)
	}
	_, err = w.BucketProject(t.Context(), "bucket")
	is(t, err, fault.NotFound, "")
}

func TestPutAndPreconditions(t *testing.T) {
	w := newWorld(t)
	first := w.put(t, "a/b", "hello")
	sum := md5.Sum([]byte("hello"))
	if !bytes.Equal(first.MD5, sum[:]) ||
		first.CRC32C != crc32.Checksum([]byte("hello"), crc32.MakeTable(crc32.Castagnoli)) || first.Size != 5 {
		t.Errorf("hashes: %+v", first)
	}
	if again := w.put(t, "a/b", "hello"); again.Generation <= first.Generation { // the clock stands still
		t.Error("the generation did not grow")
	}
	cur, err := w.Object(t.Context(), "bucket", "a/b", 0, storage.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Object(t.Context(), "bucket", "a/b", first.Generation, storage.Conditions{})
	is(t, err, fault.NotFound, "")
	put := func(name string, c storage.Conditions) error {
		_, err := w.Put(t.Context(), storage.Insert{Bucket: "bucket", Name: name, If: c}, strings.NewReader("x"))
		return err
	}
	is(t, put("a/b", storage.Conditions{GenerationMatch: ptr(int64(0))}), fault.FailedPrecondition,
		storage.ReasonPrecondition)
	is(t, put("a/b", storage.Conditions{GenerationMatch: &first.Generation}), fault.FailedPrecondition,
		storage.ReasonPrecondition)
	is(t, put("a/b", storage.Conditions{GenerationNotMatch: &cur.Generation}), fault.FailedPrecondition,
		storage.ReasonPrecondition)
	is(t, put("a/b", storage.Conditions{MetagenerationMatch: ptr(int64(9))}), fault.FailedPrecondition,
		storage.ReasonPrecondition)
	_, err = w.Object(t.Context(), "bucket", "a/b", 0, storage.Conditions{GenerationNotMatch: &cur.Generation})
	is(t, err, fault.FailedPrecondition, storage.ReasonNotModified)
	if err := put("a/b", storage.Conditions{GenerationMatch: &cur.Generation}); err != nil {
		t.Error(err)
	}
	if err := put("new", storage.Conditions{GenerationMatch: ptr(int64(0))}); err != nil {
		t.Error(err)
	}
	_, err = w.Put(t.Context(), storage.Insert{Bucket: "nosuch", Name: "x"}, strings.NewReader("x"))
	is(t, err, fault.NotFound, "")
	_, err = w.Put(t.Context(), storage.Insert{Bucket: "bucket", Name: "bad", MD5: sum[:]}, strings.NewReader("other"))
	is(t, err, fault.InvalidArgument, "")
	_, err = w.Put(t.Context(), storage.Insert{Bucket: "bucket", Name: "bad", CRC32C: ptr(uint32(1))},
		strings.NewReader("other"))
	is(t, err, fault.InvalidArgument, "")
	if _, err := w.Object(t.Context(), "bucket", "bad", 0, storage.Conditions{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a refused object exists: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a\nb", "\xff", strings.Repeat("x", 1025)} {
		is(t, put(name, storage.Conditions{}), fault.InvalidArgument, "")
	}
	w.full = fault.New(fault.ResourceExhausted, "The disk is nearly full.")
	is(t, put("full", storage.Conditions{}), fault.ResourceExhausted, "")
	w.full = nil
	// What is announced counts before the first byte of it.
	w.room = 1000
	_, err = w.BeginUpload(t.Context(), storage.Insert{Bucket: "bucket", Name: "announced"}, 1001)
	is(t, err, fault.ResourceExhausted, fault.ReasonDiskFull)
	if _, err := w.BeginUpload(t.Context(), storage.Insert{Bucket: "bucket", Name: "announced"}, 1000); err != nil {
		t.Error(err)
	}
	is(t, w.Room(t.Context(), storage.Upload{Insert: storage.Insert{Bucket: "bucket", Name: "announced"}}, 1001),
		fault.ResourceExhausted, fault.ReasonDiskFull)
	w.room = 0

	o, err := w.UpdateObject(t.Context(), "bucket", "new", 0, storage.Conditions{}, func(a *storage.Attrs) error {
		a.ContentType, a.Metadata = "text/plain", map[string]string{"k": "v"}
		return nil
	})
	if err != nil || o.Metageneration != 2 || o.ContentType != "text/plain" {
		t.Errorf("update: %+v %v", o, err)
	}
	c, err := w.Copy(t.Context(), storage.Source{Bucket: "bucket", Name: "new"},
		storage.Insert{Bucket: "bucket", Name: "copy"}, nil)
	if err != nil || c.Metadata["k"] != "v" || c.Metageneration != 1 || c.Generation <= o.Generation ||
		w.read(t, "copy") != "x" {
		t.Errorf("copy: %+v %v", c, err)
	}
	w.put(t, "p1", "one ")
	w.put(t, "p2", "two")
	m, err := w.Compose(t.Context(), storage.Insert{Bucket: "bucket", Name: "sum"}, []storage.Source{{
		Name: "p1",
	}, {Name: "p2"}, {Name: "p1"}})
	if err != nil || m.Components != 3 || m.MD5 != nil || w.read(t, "sum") != "one twoone " ||
		m.CRC32C != crc32.Checksum([]byte("one twoone "), crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("compose: %+v %v", m, err)
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	if _, err := w.CreateBucket(t.Context(), storage.Bucket{Name: "bucket2", Project: "proj-1"}); err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b/", "b/1", "b/2", "b/c/3", "d", "é"}
	for i := range 300 { // more than a batch under one prefix
		names = append(names, fmt.Sprintf("many/%03d", i))
	}
	for _, n := range names {
		w.put(t, n, "x")
	}
	all := func(q storage.Query) (got []string) {
		q.Bucket = "bucket"
		for pages := 0; ; pages++ {
			p, err := w.List(t.Context(), q)
			if err != nil || pages > 400 {
				t.Fatal(pages, err)
			}
			if len(p.Objects)+len(p.Prefixes) > q.Limit+1 {
				t.Errorf("%+v: a page of %d", q, len(p.Objects)+len(p.Prefixes))
			}
			for _, o := range p.Objects {
				got = append(got, o.Name)
			}
			got = append(got, p.Prefixes...)
			if p.Next == "" {
				slices.Sort(got)
				return got
			}
			q.After = p.Next
		}
	}
	for _, limit := range []int{1, 2, 1000} {
		for _, row := range []struct {
			q    storage.Query
			want string
		}{
			{storage.Query{Delimiter: "/"}, "a b/ d many/ é"},
			{storage.Query{Delimiter: "/", Prefix: "b/"}, "b/ b/1 b/2 b/c/"},
			{storage.Query{Prefix: "b/"}, "b/ b/1 b/2 b/c/3"},
			{storage.Query{Prefix: "b/", Delimiter: "/", StartOffset: "b/2"}, "b/2 b/c/"},
			{storage.Query{EndOffset: "b/2", Prefix: "b"}, "b/ b/1"},
			{storage.Query{Prefix: "zzz"}, ""},
			{storage.Query{Prefix: "many/29"}, "many/290 many/291 many/292 many/293 many/294 many/295 many/296 many/297 many/298 many/299"},
		} {
			row.q.Limit = limit
			if got := strings.Join(all(row.q), " "); got != row.want {
				t.Errorf("%+v: %q, want %q", row.q, got, row.want)
			}
		}
	}
	p, err := w.List(t.Context(), storage.Query{
		Bucket:    "bucket",
		Delimiter: "/",
		Trailing:  true,
		Prefix:    "b",
		Limit:     9,
	})
	if err != nil || len(p.Prefixes) != 1 || len(p.Objects) != 1 || p.Objects[0].Name != "b/" {
		t.Errorf("trailing: %+v %v", p, err)
	}
	_, err = w.List(t.Context(), storage.Query{Bucket: "nosuch", Limit: 1})
	is(t, err, fault.NotFound, "")
}

// TestResumable sends an upload in pieces, over a restart, with a lost answer and a broken connection in between.
func TestResumable(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("0123456789", 1000)
	u, err := w.BeginUpload(t.Context(), storage.Insert{Bucket: "bucket", Name: "big"}, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	step := func(offset, end int) (storage.Upload, int64, error) {
		return w.Append(t.Context(), "bucket", u.ID, int64(offset), -1, strings.NewReader(content[offset:end]), storage.Sender{})
	}
	if got, size, err := step(0, 3000); err != nil || size != 3000 || got.Done != nil {
		t.Fatal(got, size, err)
	}
	if _, size, err := step(1000, 4000); err != nil || size != 4000 { // the answer was lost: 2,000 bytes come again
		t.Fatal(size, err)
	}
	_, size, err := step(5000, 6000)
	is(t, err, fault.OutOfRange, "")
	if size != 4000 {
		t.Errorf("size = %d", size)
	}
	broken := io.MultiReader(strings.NewReader(content[4000:5000]), iotestErr{})
	if _, _, err := w.Append(t.Context(), "bucket", u.ID, 4000, -1, broken, storage.Sender{}); err == nil {
		t.Error("a broken connection went unnoticed")
	}
	w.open(t)
	if _, size, err := w.Upload(t.Context(), "bucket", u.ID); err != nil || size != 5000 {
		t.Fatal(size, err)
	}
	_, _, err = w.Append(t.Context(), "bucket", u.ID, 5000, -1, strings.NewReader(content[5000:]+"more"), storage.Sender{})
	is(t, err, fault.InvalidArgument, "")
	done, size, err := step(5000, len(content))
	if err != nil || done.Done == nil || size != int64(len(content)) {
		t.Fatal(done, size, err)
	}
	sum := md5.Sum([]byte(content))
	if !bytes.Equal(done.Done.MD5, sum[:]) || w.read(t, "big") != content {
		t.Errorf("content or hash: %+v", done.Done)
	}
	if again, _, err := step(9000, len(content)); err != nil || again.Done == nil ||
		again.Done.Generation != done.Done.Generation {
		t.Errorf("the last piece again: %+v %v", again, err)
	}
	_, _, err = w.Append(t.Context(), "other", u.ID, 0, -1, strings.NewReader("x"), storage.Sender{})
	is(t, err, fault.NotFound, storage.ReasonUploadGone)

	v, err := w.BeginUpload(t.Context(), storage.Insert{Bucket: "bucket", Name: "small"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Append(t.Context(), "bucket", v.ID, 0, -1, strings.NewReader("abc"), storage.Sender{}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := w.Append(t.Context(), "bucket", v.ID, 3, 3, strings.NewReader(""), storage.Sender{}); err != nil ||
		got.Done == nil || w.read(t, "small") != "abc" {
		t.Errorf("an unknown total: %+v %v", got, err)
	}
	x, err := w.BeginUpload(t.Context(), storage.Insert{Bucket: "bucket", Name: "never"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AbortUpload(t.Context(), "bucket", x.ID); err != nil {
		t.Error(err)
	}
	_, _, err = w.Upload(t.Context(), "bucket", x.ID)
	is(t, err, fault.NotFound, storage.ReasonUploadGone)
	w.now = w.now.Add(8 * 24 * time.Hour)
	if n, err := w.ExpireUploads(t.Context()); err != nil || n != 2 {
		t.Errorf("expired %d %v", n, err)
	}
	if w.read(t, "small") != "abc" {
		t.Error("an expired upload took its object away")
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestLogGrowsAndSurvivesACrash(t *testing.T) {
	w := newWorld(t)
	l, err := w.CreateLog(t.Context(), storage.Insert{
		Bucket: "bucket",
		Name:   "log-1.txt",
		Attrs:  storage.Attrs{ContentType: "text/plain"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(l, line); err != nil {
			t.Fatal(err)
		}
		if got := w.read(t, "log-1.txt"); got != "one\ntwo\n"[:4*(i+1)] {
			t.Errorf("after %d lines: %q", i+1, got)
		}
	}
	if p, err := w.List(t.Context(), storage.Query{Bucket: "bucket", Limit: 5}); err != nil || p.Objects[0].Size != 8 {
		t.Errorf("list: %+v %v", p, err)
	}
	_, err = w.Copy(t.Context(), storage.Source{Bucket: "bucket", Name: "log-1.txt"},
		storage.Insert{Bucket: "bucket", Name: "c"}, nil)
	is(t, err, fault.FailedPrecondition, "")
	if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	o, err := w.Object(t.Context(), "bucket", "log-1.txt", 0, storage.Conditions{})
	if err != nil || o.Log != "" || o.Size != 8 || o.MD5 == nil || w.read(t, "log-1.txt") != "one\ntwo\n" {
		t.Errorf("finished: %+v %v", o, err)
	}
	if _, err := l.Write(nil); err == nil {
		t.Error("a closed log took a write")
	}

	crashed, err := w.CreateLog(t.Context(), storage.Insert{Bucket: "bucket", Name: "log-2.txt"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(crashed, "last words"); err != nil {
		t.Fatal(err)
	}
	replaced, err := w.CreateLog(t.Context(), storage.Insert{Bucket: "bucket", Name: "log-3.txt"})
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, "log-3.txt", "an upload came in between")
	if err := replaced.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	if got := w.read(t, "log-2.txt"); got != "last words" {
		t.Errorf("after a crash: %q", got)
	}
	if got := w.read(t, "log-3.txt"); got != "an upload came in between" {
		t.Errorf("replaced: %q", got)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, "logs")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
