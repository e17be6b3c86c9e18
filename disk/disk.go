// Package disk keeps a part of the data directory's file system free, so that a full disk stops what grows and nothing
// else: requests are served, deletes work, and the platform starts again.
//
// A writer of bytes that may become many asks Admit before and meanwhile. It knows no products: what takes the space
// and how it is given back, for the text of a refusal, it is told. What deletes need when even the part that is kept
// back is gone is a Ballast.
package disk

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// What is kept back: 2 % of the file system, within these bounds; of a very small one an eighth at most.
const (
	share       = 50
	leastKept   = 32 << 20
	mostKept    = 1 << 30
	smallShare  = 8
	leastInodes = 1000
)

// Part is one use of the disk.
type Part struct {
	Name string   // what users call it, such as "images and objects"
	Dirs []string // where its bytes are
	Fix  string   // how its bytes come back, such as "`gcloud storage rm`"
}

// Space is what a file system has.
type Space struct {
	Free, Total        int64 // bytes
	FreeInodes, Inodes int64 // 0 of 0 where there is no limit
	// bytes that are kept back from what grows, and of them those kept back from new rows, too
	Reserve, RowReserve int64
}

// Config is what New needs.
type Config struct {
	Dir   string // on the file system
	Parts []Part // what can be big there
	// Full is called when a writer was refused, to look for what can go. It must not block, and may be nil.
	Full func()
	// Measure replaces asking the kernel; nil asks it.
	Measure func(dir string) (Space, error)
}

// Disk is one file system. It is safe for concurrent use.
type Disk struct {
	cfg Config

	mu      sync.Mutex
	biggest string
	at      time.Time // when biggest was found
	finding bool
}

// New returns the file system of a directory.
func New(cfg Config) *Disk {
	if cfg.Full == nil {
		cfg.Full = func() {}
	}
	if cfg.Measure == nil {
		cfg.Measure = statfs
	}
	return &Disk{cfg: cfg}
}

func statfs(dir string) (s Space, err error) {
	var st unix.Statfs_t
	for {
		if err = unix.Statfs(dir, &st); err != unix.EINTR { //nolint:errorlint // a bare errno
			break
		}
	}
	if err != nil {
		return s, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return Space{
		Free:       int64(st.Bavail) * st.Bsize,
		Total:      int64(st.Blocks) * st.Bsize,
		FreeInodes: int64(st.Ffree),
		Inodes:     int64(st.Files),
	}, nil
}

// Space returns what there is now.
func (d *Disk) Space() (Space, error) {
	s, err := d.cfg.Measure(d.cfg.Dir)
	s.Reserve = min(max(s.Total/share, leastKept), mostKept, s.Total/smallShare)
	s.RowReserve = s.Reserve / 2
	return s, err
}

// Admit fails with ResourceExhausted when n more bytes would go into what is kept back. It costs a microsecond.
func (d *Disk) Admit(n int64) error {
	s, err := d.Space()
	if err != nil {
		return err
	}
	if s.Free-n >= s.Reserve && enoughInodes(s) {
		return nil
	}
	return d.refuse(s)
}

// AdmitRows is Admit for rows of the store: being small, they may take half of what is kept back.
func (d *Disk) AdmitRows() error {
	s, err := d.Space()
	if err != nil || s.Free >= s.RowReserve {
		return err
	}
	return d.refuse(s)
}

func enoughInodes(s Space) bool {
	return s.Inodes == 0 || s.FreeInodes >= min(leastInodes, s.Inodes/share)
}

// Low reports whether what grows is about to be refused: time to give back what isn't needed.
func (d *Disk) Low() bool {
	s, err := d.Space()
	return err == nil && (s.Free < 2*s.Reserve || !enoughInodes(s))
}

func (d *Disk) refuse(s Space) error {
	d.cfg.Full()
	e := fault.DiskFull(nil)
	if enoughInodes(s) {
		e.Message = fmt.Sprintf("The platform's disk is full: %s are free, and %s are kept back so that services go on and deletes work.", size(s.Free), size(s.Reserve))
	} else {
		e.Message = "The platform's disk is full: its file system has no inodes left for more files."
	}
	if biggest := d.uses(); biggest != "" {
		e.Message += " " + biggest
	}
	return e
}

// How old an answer about what is big may be, how long it is looked for, and how long a refusal waits for the first
// one.
const (
	usesAge  = time.Minute
	usesTime = 5 * time.Second
	usesWait = 500 * time.Millisecond
)

// uses says what takes most of the disk and how it comes back, as of a short while ago; "" if that isn't known yet.
func (d *Disk) uses() string {
	d.mu.Lock()
	known, stale := d.biggest, time.Since(d.at) > usesAge
	if !stale || d.finding {
		d.mu.Unlock()
		return known
	}
	d.finding = true
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		text := d.measure()
		d.mu.Lock()
		d.biggest, d.at, d.finding = text, time.Now(), false
		d.mu.Unlock()
	}()
	if known == "" {
		select {
		case <-done:
		case <-time.After(usesWait):
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.biggest
}

// measure looks how big each part is.
func (d *Disk) measure() string {
	ctx, cancel := context.WithTimeout(context.Background(), usesTime)
	defer cancel()
	type used struct {
		Part
		bytes int64
	}
	var all []used
	for _, p := range d.cfg.Parts {
		u := used{Part: p}
		for _, dir := range p.Dirs {
			u.bytes += Usage(ctx, dir)
		}
		if u.bytes > 0 {
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b used) int { return cmp.Compare(b.bytes, a.bytes) })
	var parts []string
	for _, u := range all[:min(len(all), 3)] {
		text := fmt.Sprintf("%s (%s)", u.Name, size(u.bytes))
		if u.Fix != "" {
			text += ", which " + u.Fix + " gives back"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return ""
	}
	return "Most is taken by " + strings.Join(parts, "; ") + "."
}

// Usage returns the bytes of disk that a directory takes. Files that come and go meanwhile may be missed, and all that
// is not seen when ctx ends.
func Usage(ctx context.Context, dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil // gone already
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", max(n, 0)>>10)
}

// Writer is w, which fails as Admit does before it writes what there is no room for.
func (d *Disk) Writer(w io.Writer) io.Writer { return writer{d, w} }

type writer struct {
	d *Disk
	w io.Writer
}

func (w writer) Write(p []byte) (int, error) {
	if err := w.d.Admit(int64(len(p))); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// watchEvery is how often Watch looks.
const watchEvery = 250 * time.Millisecond

// Watch returns a context that ends when the disk is full, with Admit's fault as its cause: for work that writes by
// means of other programs. The caller calls stop at the end; Cause tells why the work failed.
func (d *Disk) Watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case <-tick.C:
				if err := d.Admit(0); fault.Is(err, fault.ResourceExhausted) {
					cancel(err)
					return
				}
			}
		}
	}()
	return watched, func() { cancel(nil) }
}

// Cause is why the work under a context of Watch failed: the full disk where it was that, else err.
func Cause(watched context.Context, err error) error {
	if cause := context.Cause(watched); err != nil && fault.Is(cause, fault.ResourceExhausted) {
		return cause
	}
	return err
}
