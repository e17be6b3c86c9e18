package blob_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/blob"
	"giggle/fault"
)

type needed []blob.Digest

func (n needed) Mark(_ context.Context, keep func(blob.Digest)) error {
	for _, d := range n {
		keep(d)
	}
	return nil
}

func TestCollect(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	put := func(s string) blob.Digest {
		t.Helper()
		info, err := d.Put(t.Context(), strings.NewReader(s), "")
		if err != nil {
			t.Fatal(err)
		}
		return info.Digest
	}
	old := time.Now().Add(-time.Hour)
	var all []blob.Digest
	for _, s := range []string{"needed", "garbage", "held", "put again"} {
		dg := put(s)
		all = append(all, dg)
		if err := os.Chtimes(filepath.Join(path, dg.Algorithm(), dg.Hex()[:2], dg.Hex()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	put("young")
	put("put again")
	release, err := d.Hold(t.Context(), all[2])
	if err != nil {
		t.Fatal(err)
	}
	// An upload that took longer than any grace is young when it ends.
	id, err := d.BeginUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.AppendUpload(t.Context(), id, 0, strings.NewReader("slow")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(path, "uploads", id), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CommitUpload(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	c, err := d.Collect(t.Context(), time.Now().Add(-time.Minute), needed{all[0]})
	if err != nil || c.Removed != 1 || c.Kept != 5 || c.Freed != int64(len("garbage")) {
		t.Errorf("Collect = %+v, %v", c, err)
	}
	if _, err := d.Stat(t.Context(), all[1]); !fault.Is(err, fault.NotFound) {
		t.Errorf("the garbage: %v", err)
	}
	if _, err := d.Hold(t.Context(), all[1]); !fault.Is(err, fault.NotFound) {
		t.Errorf("hold what is gone: %v", err)
	}
	release() // young again
	if c, err := d.Collect(t.Context(), time.Now().Add(-time.Minute), needed{all[0]}); err != nil || c.Removed != 0 {
		t.Errorf("Collect after a hold = %+v, %v", c, err)
	}
	// Nothing goes when it isn't known what is needed.
	if c, err := d.Collect(t.Context(), time.Now().Add(time.Hour), broken{}); err == nil || c.Removed != 0 {
		t.Errorf("Collect without knowledge = %+v, %v", c, err)
	}
}

type broken struct{}

func (broken) Mark(context.Context, func(blob.Digest)) error { return context.DeadlineExceeded }
