package blob_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"giggle/blob"
	"giggle/blob/blobtest"
)

func open(t *testing.T, path string) *blob.Dir {
	t.Helper()
	d, err := blob.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestContract(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.Store { return open(t, t.TempDir()) })
}

// A restart keeps blobs and uploads, and sweeps what a crash left half-written.
func TestReopen(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	kept, err := d.Put(t.Context(), strings.NewReader("kept"), "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.BeginUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.AppendUpload(t.Context(), id, 0, strings.NewReader("first ")); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(path, "tmp", "put-torn")
	if err := os.WriteFile(torn, []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}

	d = open(t, path)
	if _, err := d.Stat(t.Context(), kept.Digest); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("the torn file is still there: %v", err)
	}
	size, err := d.UploadSize(t.Context(), id)
	if err != nil || size != 6 {
		t.Fatalf("UploadSize = %d, %v", size, err)
	}
	if _, err := d.AppendUpload(t.Context(), id, size, strings.NewReader("second")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CommitUpload(t.Context(), id, blob.FromBytes([]byte("first second"))); err != nil {
		t.Error(err)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Add("sha512:")
	f.Add("sha256:../../../etc/passwd")
	f.Add("SHA256:E3B0")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := blob.ParseDigest(s)
		if err != nil {
			if d != "" {
				t.Errorf("ParseDigest(%q) returned %q beside its error", s, d)
			}
			return
		}
		if d.Algorithm()+":"+d.Hex() != s || strings.ContainsAny(s, "/.\\ \n") || strings.ToLower(s) != s {
			t.Errorf("ParseDigest accepted %q", s)
		}
	})
}
