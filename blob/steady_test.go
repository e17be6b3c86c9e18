package blob

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
)

// What is written steadily is what was given, in whatever pieces.
func TestSteady(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 3*maxDirty+12345)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	id, err := d.BeginUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(content); {
		end := min(len(content), at+rnd.IntN(2*maxDirty))
		n, err := d.AppendUpload(t.Context(), id, int64(at), bytes.NewReader(content[at:end]))
		if err != nil || n != int64(end) {
			t.Fatal(n, err)
		}
		at = end
	}
	for name, write := range map[string]func() (Info, error){
		"put":    func() (Info, error) { return d.Put(context.Background(), bytes.NewReader(content), "") },
		"upload": func() (Info, error) { return d.CommitUpload(context.Background(), id, "") },
	} {
		info, err := write()
		if err != nil {
			t.Fatal(name, err)
		}
		r, _, err := d.Open(t.Context(), info.Digest)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes (%v) are not what was given", name, len(got), err)
		}
		_ = r.Close()
	}
}
