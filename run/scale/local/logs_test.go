package local

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"giggle/engine"
	"giggle/resource"
)

var rev = resource.Revision{Service: resource.Service("giggle", "europe-north1", "jokes"), ID: "jokes-00001-abc"}

func lines(t *testing.T, path string) []Entry {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []Entry
	for scan := bufio.NewScanner(f); scan.Scan(); {
		var e Entry
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v in %q", path, err, scan.Text())
		}
		out = append(out, e)
	}
	return out
}

func TestLogs(t *testing.T) {
	l := NewLogs(t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if got, err := l.Read(rev, 10); err != nil || len(got) != 0 {
		t.Errorf("a log that is not there: %v, %v", got, err)
	}
	at := time.Date(2026, 11, 24, 16, 0, 0, 0, time.FixedZone("", 3600))
	one, two := l.Open(rev, "i1"), l.Open(rev, "i2")
	one.Write(engine.Line{Time: at, Stream: "stdout", Text: `{"severity":"ERROR"}`})
	two.Write(engine.Line{Time: at, Stream: "stderr", Text: "two\x00\xff\nlines <&>"})
	got := lines(t, l.Path(rev))
	if len(got) != 2 || got[0] != (Entry{at.UTC(), "i1", "stdout", `{"severity":"ERROR"}`}) || got[1].Instance != "i2" || !strings.HasPrefix(got[1].Text, "two\x00") {
		t.Errorf("written: %+v", got)
	}
	if st, err := os.Stat(l.Path(rev)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: a log may hold secrets", st.Mode(), err)
	}
	// What a crash cut off is no entry, and does not spoil the next.
	f, err := os.OpenFile(l.Path(rev), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{\"time\":\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	one.Write(engine.Line{Time: at, Stream: "stdout", Text: "after"})
	if got, err := l.Read(rev, 2); err != nil || len(got) != 2 || got[1].Text != "after" || got[0].Instance != "i2" {
		t.Errorf("the last two: %+v, %v", got, err)
	}
}

func TestLogsAreBounded(t *testing.T) {
	l := NewLogs(t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	l.max = 4000
	log := l.Open(rev, "i1")
	const n = 500
	for i := range n {
		log.Write(engine.Line{Stream: "stdout", Text: fmt.Sprint(i)})
	}
	var kept int64
	for _, path := range []string{l.Path(rev), l.Path(rev) + ".1"} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		kept += st.Size()
	}
	if kept > 2*(l.max+200) {
		t.Errorf("%d bytes are kept of at most %d", kept, 2*l.max)
	}
	got, err := l.Read(rev, 20) // they reach over both files or lie in the newer
	if err != nil || len(got) != 20 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for i, e := range got {
		if e.Text != fmt.Sprint(n-20+i) {
			t.Errorf("entry %d is %q", i, e.Text)
		}
	}
	if all, err := l.Read(rev, n); err != nil || len(all) >= n || len(all) < 20 {
		t.Errorf("%d entries are left of %d, %v", len(all), n, err)
	}
	// A file that was there before goes on, and counts.
	again := NewLogs(l.dir, l.log)
	again.max = 1
	again.Open(rev, "i2").Write(engine.Line{Text: "a"})
	again.Open(rev, "i2").Write(engine.Line{Text: "b"})
	if got, err := again.Read(rev, 2); err != nil || got[0].Text != "a" || got[1].Text != "b" {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

func TestDroppedLogStaysGone(t *testing.T) {
	l := NewLogs(t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	log := l.Open(rev, "i1")
	log.Write(engine.Line{Text: "one"})
	l.Drop(rev)
	log.Write(engine.Line{Text: "said while leaving"})
	if _, err := os.Stat(l.Path(rev)); !os.IsNotExist(err) {
		t.Errorf("the file of a revision that is gone: %v", err)
	}
	l.Open(rev, "i2").Write(engine.Line{Text: "anew"})
	if got, err := l.Read(rev, 5); err != nil || len(got) != 1 || got[0].Text != "anew" {
		t.Errorf("a revision of the same name: %+v, %v", got, err)
	}
}
