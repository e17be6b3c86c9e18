// Package blobtest is the contract of a content-addressed store, as a test suite.
//
// It serves every implementation of Store, and tells their users what they may rely on. It says nothing about speed or
// about what survives a power cut.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"giggle/blob"
	"giggle/fault"
)

// Store is what the contract covers: the verbs of blob.Dir.
type Store interface {
	Put(ctx context.Context, r io.Reader, want blob.Digest) (blob.Info, error)
	Open(ctx context.Context, dg blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	Stat(ctx context.Context, dg blob.Digest) (blob.Info, error)
	Delete(ctx context.Context, dg blob.Digest) error
	Walk(ctx context.Context, fn func(blob.Info) error) error

	BeginUpload(ctx context.Context) (string, error)
	AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (int64, error)
	UploadSize(ctx context.Context, id string) (int64, error)
	CommitUpload(ctx context.Context, id string, want blob.Digest) (blob.Info, error)
	AbortUpload(ctx context.Context, id string) error
	ExpireUploads(ctx context.Context, since time.Time) (int, error)
}

// Run runs the suite; open returns an empty store for each test.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"PutOpenStatDelete": putOpenStatDelete,
		"Mismatch":          mismatch,
		"BrokenReader":      brokenReader,
		"Walk":              walk,
		"SamePutAtOnce":     samePutAtOnce,
		"Upload":            upload,
		"UploadSHA512":      uploadSHA512,
		"UploadOffsets":     uploadOffsets,
		"UploadMismatch":    uploadMismatch,
		"UploadAbort":       uploadAbort,
		"UploadExpire":      uploadExpire,
		"Strangers":         strangers,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func read(t *testing.T, s Store, dg blob.Digest) string {
	t.Helper()
	f, info, err := s.Open(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(len(b)) || info.Digest != dg {
		t.Errorf("Open(%s) described %s with %d bytes, content has %d", dg, info.Digest, info.Size, len(b))
	}
	return string(b)
}

func wantCode(t *testing.T, err error, code fault.Code, what string) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("%s: got %v, want %v", what, err, code)
	}
}

// empty checks that a failed write left nothing.
func empty(t *testing.T, s Store) {
	t.Helper()
	if err := s.Walk(t.Context(), func(i blob.Info) error { return fmt.Errorf("found %s", i.Digest) }); err != nil {
		t.Errorf("the store should be empty: %v", err)
	}
}

func putOpenStatDelete(t *testing.T, s Store) {
	ctx := t.Context()
	for _, content := range []string{"", "a joke", strings.Repeat("ha", 1<<20)} {
		want := blob.FromBytes([]byte(content))
		for _, asked := range []blob.Digest{"", want, want} {
			info, err := s.Put(ctx, strings.NewReader(content), asked)
			if err != nil || info.Digest != want || info.Size != int64(len(content)) {
				t.Fatalf("Put(%q) = %+v, %v, want digest %s", asked, info, err, want)
			}
		}
		if got := read(t, s, want); got != content {
			t.Errorf("content differs: %d bytes, want %d", len(got), len(content))
		}
		if info, err := s.Stat(ctx, want); err != nil || info.Size != int64(len(content)) || info.ModTime.IsZero() {
			t.Errorf("Stat = %+v, %v", info, err)
		}
		if err := s.Delete(ctx, want); err != nil {
			t.Error(err)
		}
		wantCode(t, s.Delete(ctx, want), fault.NotFound, "second Delete")
		_, err := s.Stat(ctx, want)
		wantCode(t, err, fault.NotFound, "Stat after Delete")
		_, _, err = s.Open(ctx, want)
		wantCode(t, err, fault.NotFound, "Open after Delete")
	}
	wide := sum512("wide")
	if info, err := s.Put(ctx, strings.NewReader("wide"), wide); err != nil || info.Digest != wide {
		t.Errorf("Put under sha512 = %+v, %v", info, err)
	}
	if read(t, s, wide) != "wide" {
		t.Error("content under sha512 differs")
	}
}

func sum512(s string) blob.Digest {
	return blob.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512([]byte(s))))
}

func mismatch(t *testing.T, s Store) {
	_, err := s.Put(t.Context(), strings.NewReader("tea"), blob.FromBytes([]byte("coffee")))
	wantCode(t, err, fault.InvalidArgument, "Put of other content")
	empty(t, s)
}

func brokenReader(t *testing.T, s Store) {
	broken := errors.New("line cut")
	r := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
	if _, err := s.Put(t.Context(), r, ""); !errors.Is(err, broken) {
		t.Errorf("Put returned %v, want the reader's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, strings.NewReader("late"), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with an ended context returned %v", err)
	}
	empty(t, s)
}

func walk(t *testing.T, s Store) {
	var want []blob.Digest
	for i := range 20 {
		info, err := s.Put(t.Context(), strings.NewReader(fmt.Sprint(i)), "")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, info.Digest)
	}
	slices.Sort(want)
	var got []blob.Digest
	if err := s.Walk(t.Context(), func(i blob.Info) error { got = append(got, i.Digest); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Walk saw %v, want %v", got, want)
	}
	stop := errors.New("enough")
	if err := s.Walk(t.Context(), func(blob.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Walk returned %v, want the callback's error", err)
	}
}

func samePutAtOnce(t *testing.T, s Store) {
	content := bytes.Repeat([]byte("again"), 50_000)
	dg := blob.FromBytes(content)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Put(t.Context(), bytes.NewReader(content), dg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if read(t, s, dg) != string(content) {
		t.Error("content differs")
	}
}

func begin(t *testing.T, s Store, parts ...string) string {
	t.Helper()
	id, err := s.BeginUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	offset := int64(0)
	for _, p := range parts {
		size, err := s.AppendUpload(t.Context(), id, offset, strings.NewReader(p))
		if err != nil || size != offset+int64(len(p)) {
			t.Fatalf("AppendUpload at %d = %d, %v", offset, size, err)
		}
		offset = size
	}
	return id
}

func upload(t *testing.T, s Store) {
	for _, want := range []blob.Digest{"", blob.FromBytes([]byte("onetwo"))} {
		id := begin(t, s, "one", "", "two")
		if n, err := s.UploadSize(t.Context(), id); err != nil || n != 6 {
			t.Errorf("UploadSize = %d, %v", n, err)
		}
		info, err := s.CommitUpload(t.Context(), id, want)
		if err != nil || info.Size != 6 {
			t.Fatalf("CommitUpload = %+v, %v", info, err)
		}
		if read(t, s, blob.FromBytes([]byte("onetwo"))) != "onetwo" {
			t.Error("content differs")
		}
		_, err = s.UploadSize(t.Context(), id)
		wantCode(t, err, fault.NotFound, "UploadSize after commit")
		_, err = s.CommitUpload(t.Context(), id, want)
		wantCode(t, err, fault.NotFound, "second commit")
	}
}

func uploadSHA512(t *testing.T, s Store) {
	id := begin(t, s, "wi", "de")
	if info, err := s.CommitUpload(t.Context(), id, sum512("wide")); err != nil || info.Digest != sum512("wide") {
		t.Errorf("CommitUpload = %+v, %v", info, err)
	}
}

func uploadOffsets(t *testing.T, s Store) {
	id := begin(t, s, "abc")
	for _, offset := range []int64{0, 2, 4, -1} {
		size, err := s.AppendUpload(t.Context(), id, offset, strings.NewReader("x"))
		wantCode(t, err, fault.OutOfRange, fmt.Sprintf("offset %d", offset))
		if size != 3 {
			t.Errorf("a refused append returned size %d, want 3", size)
		}
	}
	// A line that breaks keeps what came, and the client goes on from there.
	size, err := s.AppendUpload(t.Context(), id, 3,
		io.MultiReader(strings.NewReader("de"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if !errors.Is(err, io.ErrUnexpectedEOF) || size != 5 {
		t.Errorf("broken append = %d, %v", size, err)
	}
	if _, err := s.AppendUpload(t.Context(), id, size, strings.NewReader("f")); err != nil {
		t.Error(err)
	}
	if _, err := s.CommitUpload(t.Context(), id, blob.FromBytes([]byte("abcdef"))); err != nil {
		t.Error(err)
	}
}

func uploadMismatch(t *testing.T, s Store) {
	id := begin(t, s, "tea")
	_, err := s.CommitUpload(t.Context(), id, blob.FromBytes([]byte("coffee")))
	wantCode(t, err, fault.InvalidArgument, "commit of other content")
	empty(t, s)
	if _, err := s.CommitUpload(t.Context(), id, blob.FromBytes([]byte("tea"))); err != nil {
		t.Errorf("the upload should have stayed: %v", err)
	}
}

func uploadAbort(t *testing.T, s Store) {
	id := begin(t, s, "never")
	if err := s.AbortUpload(t.Context(), id); err != nil {
		t.Error(err)
	}
	_, err := s.AppendUpload(t.Context(), id, 5, strings.NewReader("x"))
	wantCode(t, err, fault.NotFound, "append after abort")
	wantCode(t, s.AbortUpload(t.Context(), id), fault.NotFound, "second abort")
	empty(t, s)
}

func uploadExpire(t *testing.T, s Store) {
	id := begin(t, s, "old")
	if n, err := s.ExpireUploads(t.Context(), time.Unix(0, 0)); n != 0 || err != nil {
		t.Errorf("ExpireUploads of 1970 = %d, %v", n, err)
	}
	if n, err := s.ExpireUploads(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("ExpireUploads of the next hour = %d, %v", n, err)
	}
	_, err := s.UploadSize(t.Context(), id)
	wantCode(t, err, fault.NotFound, "UploadSize after expiry")
}

func strangers(t *testing.T, s Store) {
	for _, id := range []string{"", ".", "..", "../sha256", "a/b", strings.Repeat("A", 26), strings.Repeat("A", 4096)} {
		_, err := s.UploadSize(t.Context(), id)
		wantCode(t, err, fault.NotFound, fmt.Sprintf("upload id %.30q", id))
	}
	for _, dg := range []blob.Digest{"", "sha256:", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err := s.Stat(t.Context(), dg)
		wantCode(t, err, fault.InvalidArgument, fmt.Sprintf("Stat(%q)", dg))
		_, _, err = s.Open(t.Context(), dg)
		wantCode(t, err, fault.InvalidArgument, fmt.Sprintf("Open(%q)", dg))
		wantCode(t, s.Delete(t.Context(), dg), fault.InvalidArgument, fmt.Sprintf("Delete(%q)", dg))
		if dg != "" {
			_, err = s.Put(t.Context(), strings.NewReader("x"), dg)
			wantCode(t, err, fault.InvalidArgument, fmt.Sprintf("Put(%q)", dg))
		}
	}
}
