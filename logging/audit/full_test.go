package audit_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
	"giggle/logging/audit"
)

// On a full disk an entry is kept as long as somebody makes room for it; then Record says that it isn't.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Config{
		Dir:  filepath.Join(dir, "audit"),
		Now:  time.Now,
		Full: func() bool { return os.Remove(ballast) == nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kept := 0
	for err == nil && kept < 100_000 {
		if err = l.Record(audit.Event{
			Member:  "user:you@giggle.test",
			Service: "run.googleapis.com",
			Method:  "google.cloud.run.v2.Services.DeleteService",
		}); err == nil {
			kept++
		}
	}
	if e := fault.From(err); e.Code != fault.ResourceExhausted || e.Reason != fault.ReasonDiskFull {
		t.Errorf("an entry that is not kept: %v", err)
	}
	if _, err := os.Stat(ballast); !os.IsNotExist(err) {
		t.Errorf("%d entries were kept without the room that could be made: %v", kept, err)
	}
}
