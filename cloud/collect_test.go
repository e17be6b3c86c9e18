package cloud

import (
	"io"
	"strings"
	"testing"
	"time"

	"giggle/blob"
	"giggle/cloud/garbage"
	"giggle/fault"
	"giggle/storage"
)

// Objects, images in repositories and images that only a revision still runs stay; the rest goes.
func TestCollectKeepsWhatIsNeeded(t *testing.T) {
	c := newCloud(t)
	ctx := t.Context()
	if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: "kept", Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.storage.Put(ctx, storage.Insert{Bucket: "kept", Name: "o"},
		strings.NewReader("an object")); err != nil {
		t.Fatal(err)
	}
	orphan, err := c.blobs.Put(ctx, strings.NewReader("nobody's"), "")
	if err != nil {
		t.Fatal(err)
	}
	// Young, it stays; old, it goes. The file system's clock decides, so the time is one to come.
	if err := c.garbage.Collect(ctx, time.Now().Add(-garbage.Young)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.blobs.Stat(ctx, orphan.Digest); err != nil {
		t.Errorf("a young blob is gone: %v", err)
	}
	if err := c.garbage.Collect(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.blobs.Stat(ctx, orphan.Digest); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old blob that nobody needs: %v, want NotFound", err)
	}
	_, r, err := c.storage.Open(ctx, "kept", "o", 0, storage.Conditions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if b, err := io.ReadAll(r); err != nil || string(b) != "an object" {
		t.Errorf("the object is %q, %v", b, err)
	}
	var marked []blob.Digest
	if err := c.garbage.Revisions().Mark(ctx, func(d blob.Digest) { marked = append(marked, d) }); err != nil ||
		len(marked) != 0 {
		t.Errorf("without revisions, marked %v, %v", marked, err)
	}
}
