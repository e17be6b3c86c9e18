package blob_test

import (
	"strings"
	"testing"
	"time"

	"giggle/blob"
	"giggle/fault"
)

// What is reserved survives a collection that spares nothing, from before it is there until it is let go.
func TestReserve(t *testing.T) {
	d, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const digest = blob.Digest("sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1") // of "text"
	release := d.Reserve(digest)
	if _, err := d.Put(t.Context(), strings.NewReader("text"), digest); err != nil {
		t.Fatal(err)
	}
	all := time.Now().Add(time.Hour)
	if c, err := d.Collect(t.Context(), all); err != nil || c.Removed != 0 {
		t.Fatalf("a reserved blob: %+v, %v", c, err)
	}
	release()
	if c, err := d.Collect(t.Context(), all); err != nil || c.Removed != 1 {
		t.Errorf("one that was let go: %+v, %v", c, err)
	}
	d.Reserve(digest)() // one that never comes
	if _, err := d.Stat(t.Context(), digest); !fault.Is(err, fault.NotFound) {
		t.Errorf("a blob that is gone: %v", err)
	}
}
