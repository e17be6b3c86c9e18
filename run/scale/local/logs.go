package local

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"giggle/engine"
	"giggle/resource"
)

// maxLog is how large a revision's log file may become before it is set aside; one older file is kept.
const maxLog = 8 << 20

// Logs keeps what containers write: one file of JSON lines for each revision.
type Logs struct {
	dir string
	log *slog.Logger
	max int64 // bytes of a file, then it is set aside

	mu    sync.Mutex
	files map[string]*logFile
}

// NewLogs returns the logs in a directory.
func NewLogs(dir string, log *slog.Logger) *Logs {
	return &Logs{dir: dir, log: log, max: maxLog, files: make(map[string]*logFile)}
}

// Entry is one line of a log file.
type Entry struct {
	Time     time.Time `json:"time"`
	Instance string    `json:"instance"`
	Stream   string    `json:"stream"` // "stdout" or "stderr"; "giggle" for the platform's own remarks, "giggle-error" for failures it tells of
	Text     string    `json:"text"`
}

// Log is where one instance writes.
type Log struct {
	file     *logFile
	instance string
	log      *slog.Logger
}

// Open returns the log of an instance. The file is made with the first line.
func (l *Logs) Open(rev resource.Revision, instance string) *Log {
	path := l.Path(rev)
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[path]
	if f == nil {
		f = &logFile{path: path, max: l.max}
		l.files[path] = f
	}
	return &Log{f, instance, l.log}
}

// Path returns the file of a revision's log.
func (l *Logs) Path(rev resource.Revision) string {
	s := rev.Service
	return filepath.Join(l.dir, s.Project, s.Location.Location, s.ID, rev.ID+".log")
}

// Read returns the entries of a revision's log, oldest first, at most the last n of them.
func (l *Logs) Read(rev resource.Revision, n int) ([]Entry, error) {
	var out []Entry
	for _, path := range []string{l.Path(rev) + ".1", l.Path(rev)} {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 4<<20)
		for scan.Scan() {
			var e Entry
			if json.Unmarshal(scan.Bytes(), &e) == nil { // a line cut off by a crash is no entry
				out = append(out, e)
			}
			if len(out) > 2*n {
				out = append([]Entry(nil), out[len(out)-n:]...)
			}
		}
		err = scan.Err()
		_ = f.Close()
		if err != nil {
			return nil, err
		}
	}
	return out[max(0, len(out)-n):], nil
}

// Write adds a line. A log that can't be written is reported once and then given up for the line: the container must
// not suffer.
func (l *Log) Write(line engine.Line) {
	if err := l.file.write(Entry{line.Time.UTC(), l.instance, line.Stream, line.Text}); err != nil {
		l.log.Error("container log", "file", filepath.Base(l.file.path), "err", err)
	}
}

// logFile is one revision's log file, opened with the first line.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	f    *os.File
	size int64
	gone bool // the revision is: what a leaving instance still says is lost, and makes no new file
}

func (f *logFile) write(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil
	}
	if f.f != nil && f.size > f.max {
		_ = f.f.Close()
		f.f = nil
		if err := os.Rename(f.path, f.path+".1"); err != nil {
			return err
		}
	}
	if f.f == nil {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
			return err
		}
		f.f, err = os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		st, err := f.f.Stat()
		if err != nil {
			return err
		}
		f.size = st.Size()
	}
	n, err := f.f.Write(append(b, '\n'))
	f.size += int64(n)
	return err
}

// Drop forgets the files of a revision that is gone and removes them.
func (l *Logs) Drop(rev resource.Revision) {
	path := l.Path(rev)
	l.mu.Lock()
	f := l.files[path]
	delete(l.files, path)
	l.mu.Unlock()
	if f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.gone = true
		if f.f != nil {
			_ = f.f.Close()
			f.f = nil
		}
	}
	_ = os.Remove(path)
	_ = os.Remove(path + ".1")
}
