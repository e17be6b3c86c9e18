package library_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"giggle/fault"
	"giggle/store"
	"giggle/vertex/library"
	"giggle/vertex/llama/gguf"
)

var added = time.Date(2026, 11, 27, 1, 2, 3, 0, time.UTC)

func open(t *testing.T, dir string) *library.Library {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(dir, "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	l, err := library.Open(t.Context(), filepath.Join(dir, "models"), st, func() time.Time { return added })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// file is a GGUF file of its own for each title.
func file(t testing.TB, title string) []byte {
	t.Helper()
	var b bytes.Buffer
	f := gguf.File{
		Tensors: []gguf.Tensor{{Name: "a", Dims: []int{3, 2}, Type: gguf.F32, Data: gguf.Encode(gguf.F32,
			make([]float32, 6))}},
	}
	say := func(key string, value any) { f.Metadata = append(f.Metadata, gguf.KeyValue{Key: key, Value: value}) }
	say("general.architecture", "llama")
	say("general.name", title)
	say("general.license", "mit")
	say("general.file_type", uint32(15))
	say("llama.context_length", uint32(512))
	say("tokenizer.ggml.tokens", []string{"a", "b"})
	say("tokenizer.chat_template", "{{ <|im_start|> }}")
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fit(string) (string, error) { return "", nil }

func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "models", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, "models", "*", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(found, hidden...) {
		out = append(out, filepath.Base(f))
	}
	return out
}

func TestAddGetListRemove(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	content := file(t, "Tiny\nOne\x1b[31m")
	m, err := l.Add(t.Context(), "p", "gemma3:4b", "tiny.gguf", bytes.NewReader(content),
		func(path string) (string, error) {
			b, err := os.ReadFile(path)
			if !bytes.Equal(b, content) {
				t.Errorf("the check sees %d bytes", len(b))
			}
			return "only Ollama", err
		})
	if err != nil {
		t.Fatal(err)
	}
	want := library.Model{
		Project:      "p",
		Name:         "gemma3:4b",
		Source:       "tiny.gguf",
		Digest:       fmt.Sprintf("sha256:%x", sha256.Sum256(content)),
		Size:         int64(len(content)),
		Added:        added,
		Unfit:        "only Ollama",
		Title:        "Tiny One [31m",
		License:      "mit",
		Architecture: "llama",
		Parameters:   6,
		Precision:    "Q4_K_M",
		Context:      512,
		Template:     "{{ <|im_start|> }}",
	}
	if m != want {
		t.Errorf("added\n%+v, want\n%+v", m, want)
	}
	if got, err := l.Get(t.Context(), "p", "gemma3:4b"); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if b, err := os.ReadFile(l.Path(m)); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := l.Get(t.Context(), "other", "gemma3:4b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("another project: %v", err)
	}
	if all, err := l.List(t.Context(), "p"); err != nil || len(all) != 1 || all[0] != want {
		t.Errorf("list: %+v, %v", all, err)
	}
	if _, err := l.Add(t.Context(), "p", "gemma3:4b", "x", bytes.NewReader(file(t, "other")), fit); !fault.Is(err,
		fault.AlreadyExists) {
		t.Errorf("again: %v", err)
	}
	if err := l.Remove(t.Context(), "p", "gemma3:4b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(t.Context(), "p", "gemma3:4b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed again: %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatIsRefusedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	broken := errors.New("the connection broke")
	for _, tt := range []struct {
		name, model string
		content     io.Reader
		check       func(string) (string, error)
		want        func(error) bool
	}{
		{"no name", "", bytes.NewReader(file(t, "a")), fit, is(fault.InvalidArgument)},
		{"a name that is a path", "../../etc/passwd", bytes.NewReader(file(t, "a")), fit, is(fault.InvalidArgument)},
		{"a name with a hidden file's dot", ".a", bytes.NewReader(file(t, "a")), fit, is(fault.InvalidArgument)},
		{"no GGUF", "a", strings.NewReader("hello"), fit, is(fault.InvalidArgument)},
		{"cut off", "a", bytes.NewReader(file(t, "a")[:40]), fit, is(fault.InvalidArgument)},
		{"broken off", "a", io.MultiReader(bytes.NewReader(file(t, "a")),
			iotest.ErrReader(broken)), fit, func(err error) bool { return errors.Is(err, broken) }},
		{"checked", "a", bytes.NewReader(file(t,
			"a")), func(string) (string, error) { return "", broken },
			func(err error) bool { return errors.Is(err, broken) }},
	} {
		if _, err := l.Add(t.Context(), "p", tt.model, "x.gguf", tt.content, tt.check); !tt.want(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func is(code fault.Code) func(error) bool { return func(err error) bool { return fault.Is(err, code) } }

func TestOneOfManyIsKept(t *testing.T) {
	l := open(t, t.TempDir())
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for n := range cap(results) {
		wg.Go(func() {
			_, err := l.Add(context.Background(), "p", "same", "x", bytes.NewReader(file(t, fmt.Sprint(n))), fit)
			results <- err
		})
	}
	wg.Wait()
	close(results)
	kept := 0
	for err := range results {
		if err == nil {
			kept++
		} else if !fault.Is(err, fault.AlreadyExists) {
			t.Error(err)
		}
	}
	m, err := l.Get(t.Context(), "p", "same")
	if err != nil || kept != 1 {
		t.Fatalf("%d were kept, %v", kept, err)
	}
	if b, err := os.ReadFile(l.Path(m)); err != nil || fmt.Sprintf("sha256:%x", sha256.Sum256(b)) != m.Digest {
		t.Errorf("the file is another one's: %v", err)
	}
}

// A kill leaves a part of a file that was being received, or a whole one that has its name and not yet its row, as the
// platforms of before kept all of theirs.
func TestOpenAfterAKill(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if _, err := l.Add(t.Context(), "p", "kept", "x", bytes.NewReader(file(t, "a")), fit); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".adding-123.gguf", "lost.gguf"} {
		if err := os.WriteFile(filepath.Join(dir, "models", "p", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := file(t, "whole")
	if err := os.WriteFile(filepath.Join(dir, "models", "p", "whole.gguf"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if m, err := l.Get(t.Context(), "p",
		"whole"); err != nil || m.Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(whole)) ||
		m.Size != int64(len(whole)) || m.Title != "whole" {
		t.Errorf("adopted: %+v, %v", m, err)
	}
	if err := l.Remove(t.Context(), "p", "whole"); err != nil {
		t.Error(err)
	}
	if left := files(t, dir); len(left) != 1 || left[0] != "kept.gguf" {
		t.Errorf("left: %v", left)
	}
	if _, err := l.Get(t.Context(), "p", "kept"); err != nil {
		t.Error(err)
	}
}
