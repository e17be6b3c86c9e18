// Package library keeps the files of the language models that were added to a platform, and what each file is.
//
// It serves the platform's own runtime, which runs the ones that it can, and vertex/registry, which hands them to
// Ollama. A file is streamed in, its digest taken on the way, and it is on disk before the table names it. A model's
// name is what the user wants it to be called; what the file was called, and what it says of itself, is kept beside it
// and never lost.
package library

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"giggle/fault"
	"giggle/store"
	"giggle/vertex/llama/gguf"
)

// Limits. The files of the largest open models have some 40 GB.
const (
	maxFile     = 64 << 30 // bytes
	maxSource   = 255      // bytes of what a file was called
	maxTemplate = 64 << 10 // bytes of a chat template that is kept
	maxSaying   = 1 << 10  // bytes of any other text of a file that is kept
)

// Model is a model's file under a name.
type Model struct {
	Project, Name string
	Source        string // what the file was called where it came from
	Digest        string // "sha256:…" of the file
	Size          int64  // bytes
	Added         time.Time
	Unfit         string // why the platform can't run it itself, "" where it can

	// What the file says.
	Title, License, Architecture string
	Parameters                   uint64
	Precision                    string // of its numbers: "F16", "Q4_K_M", …
	Context                      uint64 // tokens that it was made for
	Template                     string // of a conversation, a Jinja program
}

var table = store.NewTable[Model]("models.file", "Model file")

// name is what a model may be called: it is a file's name too.
var name = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,62}$`)

// CheckName fails with InvalidArgument on what is no name of an added model.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return fault.Invalid("name", "%.100q is not 1 to 63 letters, digits and any of . _ : -", s)
	}
	return nil
}

// Library is the added models of a platform. It is safe for concurrent use by one process.
type Library struct {
	dir   string
	store *store.Store
	now   func() time.Time
	guard func(io.Writer) io.Writer

	mu sync.Mutex // held while a file gets its name and its row, or loses them
}

// adding is the pattern of the files that are being added. A kill leaves one; the next start removes it.
const adding = ".adding-*.gguf"

// Open returns the library in the directory dir. It removes what an Add that was cut off has left there; a whole file
// that has its name and no row becomes a model: a kill came in between, or the platform of before kept no rows.
func Open(ctx context.Context, dir string, s *store.Store, now func() time.Time) (_ *Library, err error) {
	defer fault.Wrap(&err, "library.Open")
	l := &Library{dir: dir, store: s, now: now, guard: func(w io.Writer) io.Writer { return w }}
	known := make(map[string]bool)
	err = s.View(ctx, func(tx *store.Tx) error {
		rows, err := table.List(tx, "", "", 0)
		for _, r := range rows {
			known[l.path(r.Value.Project, r.Value.Name)] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, pattern := range []string{adding, "*.gguf"} {
		found, err := filepath.Glob(filepath.Join(dir, "*", pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range found {
			if known[file] {
				continue
			}
			if pattern != adding && l.adopt(ctx, file) == nil {
				continue
			}
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) { // both patterns may find it
				return nil, err
			}
		}
	}
	return l, nil
}

// adopt makes a model of a file that has its name and no row.
func (l *Library) adopt(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	base := filepath.Base(file)
	m := Model{
		Project: filepath.Base(filepath.Dir(file)),
		Name:    strings.TrimSuffix(base, ".gguf"),
		Source:  saying(base, maxSource),
		Added:   l.now().UTC(),
	}
	if err := CheckName(m.Name); err != nil {
		return err
	}
	sum := sha256.New()
	if m.Size, err = io.Copy(sum, f); err != nil {
		return err
	}
	m.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h, err := gguf.ReadHeader(f, m.Size)
	if err != nil {
		return err
	}
	m.describe(h)
	return l.store.Update(ctx, func(tx *store.Tx) error {
		_, err := table.Put(tx, rowName(m.Project, m.Name), m)
		return err
	})
}

func rowName(project, name string) string { return "projects/" + project + "/files/" + name }

func (l *Library) path(project, name string) string {
	return filepath.Join(l.dir, project, name+".gguf")
}

// Guard puts something before the files that are written, for the disk reserve. It is called before anything else.
func (l *Library) Guard(guard func(io.Writer) io.Writer) { l.guard = guard }

// Path is where a model's file is.
func (l *Library) Path(m Model) string { return l.path(m.Project, m.Name) }

// Get returns a model. It fails with NotFound.
func (l *Library) Get(ctx context.Context, project, name string) (m Model, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) error {
		row, err := table.Get(tx, rowName(project, name))
		m = row.Value
		return err
	})
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "No model %.100q was added to project %.60s.", name, project)
	}
	return m, err
}

// List returns a project's models, by name.
func (l *Library) List(ctx context.Context, project string) (out []Model, err error) {
	defer fault.Wrap(&err, "library.List(%s)", project)
	err = l.store.View(ctx, func(tx *store.Tx) error {
		rows, err := table.List(tx, rowName(project, ""), "", 0)
		for _, r := range rows {
			out = append(out, r.Value)
		}
		return err
	})
	return out, err
}

// Add keeps a file under a name. Source is what it was called. Check looks at the file before it is kept: it says why
// the platform can't run it itself, or fails. Faults: InvalidArgument for what is no GGUF file, AlreadyExists,
// ResourceExhausted when the disk is full.
func (l *Library) Add(
	ctx context.Context,
	project, name, source string,
	file io.Reader,
	check func(path string) (unfit string, err error),
) (m Model, err error) {
	defer fault.Wrap(&err, "library.Add(%s)", name)
	if err := CheckName(name); err != nil {
		return m, err
	}
	if _, err := l.Get(ctx, project, name); !fault.Is(err, fault.NotFound) {
		return m, errors.Join(err, exists(project, name))
	}
	dir := filepath.Join(l.dir, project)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	tmp, err := os.CreateTemp(dir, adding)
	if err != nil {
		return m, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone when all went well
	m, err = receive(tmp, l.guard(tmp), file)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return m, err
	}
	m.Project, m.Name, m.Source, m.Added = project, name, saying(source, maxSource), l.now().UTC()
	if m.Unfit, err = check(tmp.Name()); err != nil {
		return m, err
	}
	return m, l.keep(ctx, tmp.Name(), m)
}

func exists(project, name string) error {
	return fault.New(fault.AlreadyExists,
		"A model %s was added to project %s already. `giggle models rm %s` first, or add this one under another name.",
		name, project, name)
}

// receive writes a file to disk by way of w, and reads what it is.
func receive(to *os.File, w io.Writer, from io.Reader) (m Model, err error) {
	sum := sha256.New()
	m.Size, err = io.Copy(io.MultiWriter(w, sum), io.LimitReader(from, maxFile+1))
	if err != nil {
		return m, err
	}
	if m.Size > maxFile {
		return m, fault.Invalid("file", "is bigger than %d GiB", maxFile>>30)
	}
	m.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return m, err
	}
	h, err := gguf.ReadHeader(to, m.Size)
	if err != nil {
		return m, err
	}
	m.describe(h)
	return m, to.Sync()
}

// keep gives a file its name and its row. A kill in between leaves a file without a row, which the next start removes.
func (l *Library) keep(ctx context.Context, tmp string, m Model) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.Get(ctx, m.Project, m.Name); !fault.Is(err, fault.NotFound) { // another one was faster
		return errors.Join(err, exists(m.Project, m.Name))
	}
	to := l.Path(m)
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	return l.store.Update(ctx, func(tx *store.Tx) error {
		_, err := table.Put(tx, rowName(m.Project, m.Name), m)
		return err
	})
}

// Remove forgets a model and removes its file. It fails with NotFound. Who has the file open reads on.
func (l *Library) Remove(ctx context.Context, project, name string) (err error) {
	defer fault.Wrap(&err, "library.Remove(%s)", name)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.store.Update(ctx,
		func(tx *store.Tx) error { return table.Delete(tx, rowName(project, name)) }); err != nil {
		return err
	}
	if err := os.Remove(l.path(project, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// describe takes from a header what is worth knowing.
func (m *Model) describe(h *gguf.Header) {
	m.Architecture = saying(h.Text("general.architecture"), maxSaying)
	m.Title, m.License = saying(h.Text("general.name"), maxSaying), saying(h.Text("general.license"), maxSaying)
	m.Parameters, m.Context = h.Parameters, h.Uint(m.Architecture+".context_length")
	if kind, ok := h.Get("general.file_type").(uint32); ok {
		m.Precision = precisions[kind]
	}
	if t := h.Text("tokenizer.chat_template"); len(t) <= maxTemplate {
		m.Template = t
	}
}

// precisions are the names that llama.cpp has for general.file_type (enum llama_ftype in its llama.h).
var precisions = map[uint32]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
	13: "Q3_K_L", 14: "Q4_K_S",
	15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}

// saying is a text of a stranger's in one line that can be printed.
func saying(s string, limit int) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s), "")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
