package disk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"giggle/disk"
	"giggle/fault"
)

// What is kept back follows the file system's size: enough on a small one, not too much on a big one.
func TestReserve(t *testing.T) {
	for _, c := range []struct{ total, reserve int64 }{
		{100 << 20, 100 << 20 / 8}, {300 << 20, 32 << 20}, {3 << 30, 3 << 30 / 50}, {40 << 30, 40 << 30 / 50},
		{4 << 40, 1 << 30},
	} {
		s := disk.Space{Total: c.total}
		d := disk.New(disk.Config{Measure: func(string) (disk.Space, error) { return s, nil }})
		if got, err := d.Space(); err != nil || got.Reserve != c.reserve || got.RowReserve != c.reserve/2 {
			t.Errorf("of %d bytes %d are kept back (%d of rows, %v), want %d", c.total, got.Reserve, got.RowReserve,
				err, c.reserve)
		}
		for _, at := range []struct {
			free, n                int64
			bytes, rows, low, full bool
		}{
			{free: 3 * c.reserve, bytes: true, rows: true},
			{free: 3 * c.reserve, n: 2*c.reserve + 1, rows: true},
			{free: 2*c.reserve - 1, bytes: true, rows: true, low: true},
			{free: c.reserve, bytes: true, rows: true, low: true},
			{free: c.reserve, n: 1, rows: true, low: true},
			{free: c.reserve - 1, rows: true, low: true},
			{free: c.reserve / 2, rows: true, low: true},
			{free: c.reserve/2 - 1, low: true},
			{low: true},
		} {
			s.Free = at.free
			if got := d.Admit(at.n); (got == nil) != at.bytes ||
				got != nil && fault.From(got).Reason != fault.ReasonDiskFull {
				t.Errorf("%d free of %d, %d more: %v", at.free, c.total, at.n, got)
			}
			if got := d.AdmitRows(); (got == nil) != at.rows ||
				got != nil && fault.CodeOf(got) != fault.ResourceExhausted {
				t.Errorf("%d free of %d, rows: %v", at.free, c.total, got)
			}
			if d.Low() != at.low {
				t.Errorf("%d free of %d: low = %t", at.free, c.total, !at.low)
			}
		}
	}
}

// Many small files use up a file system, too.
func TestInodes(t *testing.T) {
	s := disk.Space{Free: 1 << 40, Total: 1 << 40, Inodes: 1 << 20, FreeInodes: 1001}
	d := disk.New(disk.Config{Measure: func(string) (disk.Space, error) { return s, nil }})
	if err := d.Admit(1); err != nil || d.Low() {
		t.Errorf("1001 inodes: %v", err)
	}
	s.FreeInodes = 999
	if err := d.Admit(1); !fault.Is(err, fault.ResourceExhausted) || !strings.Contains(err.Error(), "inodes") ||
		!d.Low() {
		t.Errorf("999 inodes: %v", err)
	}
	s.Inodes, s.FreeInodes = 0, 0 // as btrfs says
	if err := d.Admit(1); err != nil {
		t.Errorf("no limit of inodes: %v", err)
	}
}

// A refusal says what is big and how it comes back, and whoever can make room hears of it.
func TestRefusal(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"blobs": 3 << 20, "layers": 5 << 20, "empty": 0} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "f"), bytes.Repeat([]byte{1}, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	d := disk.New(disk.Config{
		Dir:     dir,
		Full:    func() { told++ },
		Measure: func(string) (disk.Space, error) { return disk.Space{Free: 7 << 20, Total: 1 << 30}, nil },
		Parts: []disk.Part{
			{Name: "objects", Dirs: []string{filepath.Join(dir, "blobs")}, Fix: "`gcloud storage rm`"},
			{Name: "layers", Dirs: []string{filepath.Join(dir, "layers")}},
			{Name: "nothing", Dirs: []string{filepath.Join(dir, "missing"), filepath.Join(dir, "empty")}},
		},
	})
	err := d.Admit(0)
	for _, want := range []string{"The platform's disk is full: 7 MiB are free, and 32 MiB are kept back",
		"Most is taken by layers (5 MiB); objects (3 MiB), which `gcloud storage rm` gives back"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	if told != 1 {
		t.Errorf("who can make room heard of it %d times", told)
	}
}

// Writers stop at what is kept back, in the middle of what they write, and so does work that others do for us.
func TestWriterAndWatch(t *testing.T) {
	s := disk.Space{Free: 1 << 30, Total: 1 << 30}
	d := disk.New(disk.Config{Measure: func(string) (disk.Space, error) { return s, nil }})
	var b bytes.Buffer
	w := d.Writer(&b)
	if _, err := w.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	s.Free = 0
	if n, err := w.Write([]byte("two")); n != 0 || !fault.Is(err, fault.ResourceExhausted) || b.String() != "one" {
		t.Errorf("Write = %d, %v; %q was written", n, err, b.String())
	}
	ctx, stop := d.Watch(t.Context())
	defer stop()
	<-ctx.Done()
	if err := disk.Cause(ctx, errors.New("killed")); !fault.Is(err, fault.ResourceExhausted) {
		t.Errorf("work that the full disk ended: %v", err)
	}
	if err := disk.Cause(ctx, nil); err != nil {
		t.Errorf("work that had ended well: %v", err)
	}
	s.Free = 1 << 30
	ctx, stop = d.Watch(t.Context())
	stop()
	if err := disk.Cause(ctx, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("work that failed by itself: %v", err)
	}
}

// The ballast is there when there is room, gives its bytes back once, and comes again when there is room again.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	d := disk.New(disk.Config{Dir: dir})
	path := filepath.Join(dir, "ballast")
	b, err := d.Ballast(path, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	const size = 2 << 20 // 1/32
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Size != size || st.Blocks*512 < size {
		t.Fatalf("the ballast has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
	filler := filepath.Join(dir, "filler")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
		if e := fault.From(fmt.Errorf("write: %w", err)); e.Code != fault.ResourceExhausted ||
			e.Reason != fault.ReasonDiskFull {
			t.Fatalf("a full disk is said as %v", e)
		}
	}
	fill()
	if !b.Drop() || b.Drop() {
		t.Error("the ballast was not let go once")
	}
	if s, err := d.Space(); err != nil || s.Free < size {
		t.Errorf("%d bytes are free then, %v", s.Free, err)
	}
	if err := b.Restore(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it was made again although the disk is nearly full: %v", err)
	}
	// A start on a full disk lets it go for what the start itself needs.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(); err != nil {
		t.Fatal(err)
	}
	fill()
	if b, err = d.Ballast(path, 16<<20); err != nil || b.Drop() {
		t.Errorf("Ballast on a full disk: %v; it was kept", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(); err != nil || !b.Drop() {
		t.Errorf("it did not come back: %v", err)
	}
}
