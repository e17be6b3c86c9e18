package storage_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/storage"
)

// versioned makes a bucket that keeps what is replaced or deleted.
func (w *world) versioned(t *testing.T, name string, versioning bool, softDelete time.Duration) {
	t.Helper()
	if _, err := w.CreateBucket(t.Context(), storage.Bucket{Name: name, Project: "proj-1", Versioning: versioning,
		SoftDelete: softDelete}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) list(t *testing.T, q storage.Query) string {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var out []string
	for {
		page, err := w.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Objects {
			state := ""
			switch {
			case !o.SoftDeleted.IsZero():
				state = "~"
			case !o.Replaced.IsZero():
				state = "-"
			}
			out = append(out, fmt.Sprintf("%s%s%d", o.Name, state, o.Size))
		}
		out = append(out, page.Prefixes...)
		if page.Next == "" {
			return strings.Join(out, " ")
		}
		q.After = page.Next
	}
}

// What becomes of an object that is replaced or deleted
// (https://cloud.google.com/storage/docs/object-versioning#behavior, https://cloud.google.com/storage/docs/soft-delete).
func TestWhatIsReplacedOrDeletedStays(t *testing.T) {
	for _, row := range []struct {
		what            string
		versioning      bool
		retention       time.Duration
		do              string // put a longer one, delete the live one, delete the 1st generation
		live, all, soft string // as list says it
		needed          bool   // whether the first content is
	}{
		{"nothing kept", false, 0, "pd", "", "", "", false},
		{"replaced", true, 0, "p", "x2", "x-1 x2", "", true},
		{"deleted", true, 0, "d", "", "x-1", "", true},
		{"replaced and deleted", true, 0, "pd", "", "x-1 x-2", "", true},
		{"replaced twice", true, 0, "pp", "x3", "x-1 x-2 x3", "", true},
		{"a noncurrent one deleted", true, 0, "p1", "x2", "x2", "", false},
		{"a live one deleted by its generation", true, 0, "1", "", "", "", false},
		{"soft-deleted", false, time.Hour, "d", "", "", "x~1", true},
		{"replaced and soft-deleted", false, time.Hour, "p", "x2", "x2", "x~1", true},
		{"both, replaced", true, time.Hour, "p", "x2", "x-1 x2", "", true},
		{"both, and a noncurrent one deleted", true, time.Hour, "p1", "x2", "x2", "x~1", true},
		{"both, and the live one deleted by its generation", true, time.Hour, "1", "", "", "x~1", true},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			w.versioned(t, "keeps", row.versioning, row.retention)
			size := 1
			put := func() storage.Object {
				o, err := w.Put(t.Context(), storage.Insert{Bucket: "keeps", Name: "x"},
					strings.NewReader(strings.Repeat("a", size)))
				if err != nil {
					t.Fatal(err)
				}
				size++
				return o
			}
			first := put()
			for _, c := range row.do {
				var err error
				switch c {
				case 'p':
					put()
				case 'd':
					err = w.Delete(t.Context(), "keeps", "x", 0, storage.Conditions{})
				case '1':
					err = w.Delete(t.Context(), "keeps", "x", first.Generation, storage.Conditions{})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			got := [3]string{w.list(t, storage.Query{Bucket: "keeps"}),
				w.list(t, storage.Query{Bucket: "keeps", Versions: true, Limit: 1}),
				w.list(t, storage.Query{Bucket: "keeps", SoftDeleted: true, Limit: 1})}
			if want := [3]string{row.live, row.all, row.soft}; got != want {
				t.Errorf("live, all, soft-deleted: %q, want %q", got, want)
			}
			var needed []blob.Digest
			keep := func(d blob.Digest) { needed = append(needed, d) }
			if err := w.Needed(t.Context(), []blob.Digest{first.Digest}, keep); err != nil ||
				(len(needed) == 1) != row.needed {
				t.Errorf("needed: %v, %v", needed, err)
			}
			if err := w.Mark(t.Context(), keep); err != nil || strings.Contains(fmt.Sprint(needed), string(first.Digest)) != row.needed {
				t.Errorf("marked: %v, %v", needed, err)
			}
		})
	}
}

func TestRestoreAndForget(t *testing.T) {
	w := newWorld(t)
	w.versioned(t, "keeps", false, time.Hour)
	put := func(content string) storage.Object {
		o, err := w.Put(t.Context(), storage.Insert{Bucket: "keeps", Name: "x"}, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	old := put("old")
	none := storage.Conditions{}
	if err := w.Delete(t.Context(), "keeps", "x", 0, none); err != nil {
		t.Fatal(err)
	}
	_, err := w.Object(t.Context(), "keeps", "x", old.Generation, none)
	is(t, err, fault.NotFound, "") // only as a soft-deleted one
	o, err := w.SoftDeleted(t.Context(), "keeps", "x", old.Generation)
	if err != nil || o.HardDelete.Sub(o.SoftDeleted) != time.Hour {
		t.Errorf("soft-deleted: %+v, %v", o, err)
	}
	_, err = w.Restore(t.Context(), old.Generation, storage.Insert{Bucket: "keeps", Name: "x",
		If: storage.Conditions{GenerationMatch: ptr(old.Generation)}})
	is(t, err, fault.FailedPrecondition, storage.ReasonPrecondition)
	back, err := w.Restore(t.Context(), old.Generation, storage.Insert{Bucket: "keeps", Name: "x"})
	if err != nil || back.Generation <= old.Generation || back.Digest != old.Digest || !back.SoftDeleted.IsZero() {
		t.Errorf("restored: %+v, %v", back, err)
	}
	if got := w.list(t, storage.Query{Bucket: "keeps", SoftDeleted: true}); got != "x~3" {
		t.Errorf("the soft-deleted one: %q", got)
	}
	is(t, w.DeleteBucket(t.Context(), "keeps", none), fault.Aborted, storage.ReasonNotEmpty)
	put("newer")
	forget := func(all bool, want int) {
		t.Helper()
		if n, err := w.ForgetDeleted(t.Context(), all); err != nil || n != want {
			t.Errorf("forgot %d, want %d: %v", n, want, err)
		}
	}
	forget(false, 0)
	w.now = w.now.Add(2 * time.Hour)
	if _, err := w.Restore(t.Context(), old.Generation, storage.Insert{Bucket: "keeps", Name: "x"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("restored after its time: %v", err)
	}
	forget(false, 2)
	if err := w.Delete(t.Context(), "keeps", "x", 0, none); err != nil {
		t.Fatal(err)
	}
	forget(true, 1)
	if err := w.DeleteBucket(t.Context(), "keeps", none); err != nil {
		t.Error(err)
	}
}

func TestMove(t *testing.T) {
	w := newWorld(t)
	w.versioned(t, "keeps", true, 0)
	put := func(name, content string) storage.Object {
		o, err := w.Put(t.Context(), storage.Insert{Bucket: "keeps", Name: name}, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	a := put("a", "1")
	put("b", "22")
	from := storage.Source{Bucket: "keeps", Name: "a", If: storage.Conditions{GenerationMatch: ptr(a.Generation + 1)}}
	_, err := w.Move(t.Context(), from, storage.Insert{Bucket: "keeps", Name: "b"})
	is(t, err, fault.FailedPrecondition, storage.ReasonPrecondition)
	from.If = storage.Conditions{GenerationMatch: &a.Generation}
	if _, err := w.Move(t.Context(), from, storage.Insert{Bucket: "keeps", Name: "a"}); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("onto itself: %v", err)
	}
	o, err := w.Move(t.Context(), from, storage.Insert{Bucket: "keeps", Name: "b"})
	if err != nil || o.Name != "b" || o.Size != 1 {
		t.Errorf("moved: %+v, %v", o, err)
	}
	if got := w.list(t, storage.Query{Bucket: "keeps", Versions: true}); got != "a-1 b-2 b1" {
		t.Errorf("after the move: %q", got)
	}
}
