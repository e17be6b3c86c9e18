// Package audit is the platform's audit log: who called what, on which resource, and what came of it, in the form of
// Cloud Audit Logs.
//
// The guard of the APIs and the registry write to it; `giggle audit` reads it. An event is on the disk when Record
// returns. It keeps no bodies of requests and no tokens, and it does not decide what is worth an entry. Two logs, as
// in Google Cloud: "activity" for calls about resources, "data_access" for those about data and for those of nobody.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"giggle/fault"
)

const (
	activity   = "activity"
	dataAccess = "data_access"
)

// Config is what Open needs.
type Config struct {
	Dir     string // of its own
	Now     func() time.Time
	Segment int64 // bytes of one file; 0 for 8 MB
}

// kept is how many files of each log stay: the oldest is removed when another is begun.
var kept = map[string]int{activity: 32, dataAccess: 4}

// nobodys is how many entries of calls without an identity are written each second; the rest is counted only.
const nobodys = 50

// Log is an open audit log.
type Log struct {
	cfg     Config
	streams map[string]*stream

	mu          sync.Mutex
	second      int64 // the second that nobody's calls are counted in
	written     int   // in it
	omitted     int   // since the last that was written
	subscribers map[*subscriber]bool
}

// Open opens the log in a directory, which it makes. What was half written at a crash is cut off.
func Open(cfg Config) (_ *Log, err error) {
	defer fault.Wrap(&err, "audit.Open")
	if cfg.Segment == 0 {
		cfg.Segment = 8 << 20
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, streams: make(map[string]*stream), subscribers: make(map[*subscriber]bool)}
	for name, keep := range kept {
		s, err := openStream(cfg.Dir, name, keep, cfg.Segment)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.streams[name] = s
	}
	return l, nil
}

// Close closes the files. Record fails after it.
func (l *Log) Close() error {
	var errs []error
	for _, s := range l.streams {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Record writes an event and returns when it is on the disk. Too many events of nobody's in one second are only
// counted: the next one that is written says how many.
func (l *Log) Record(e Event) (err error) {
	defer fault.Wrap(&err, "audit.Record")
	now := l.cfg.Now()
	entry := e.entry(now)
	if e.Member == "" {
		omitted, ok := l.admit(now)
		if !ok {
			return nil
		}
		if omitted > 0 {
			entry.Labels = map[string]string{"giggle.dev/omitted": strconv.Itoa(omitted)}
		}
	}
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	if err := l.streams[e.name()].append(append(line, '\n')); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.subscribers {
		s.offer(entry)
	}
	return nil
}

// admit counts a call of nobody's, and says whether it is written and how many were not since the last.
func (l *Log) admit(now time.Time) (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.written = s, 0
	}
	if l.written++; l.written > nobodys {
		l.omitted++
		return 0, false
	}
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}

// stream is one log: files NAME-N.jsonl of one entry a line, the highest N being written.
type stream struct {
	dir, name string
	keep      int
	segment   int64

	mu      sync.Mutex // the fields below
	synced  *sync.Cond // a batch is over
	file    *os.File
	number  int
	size    int64
	next    *batch // collects lines while another batch is written
	writing bool
	closed  bool
}

// batch is lines that go to the disk together.
type batch struct {
	lines []byte
	over  bool  // on the disk, or not to be had
	err   error // why not
}

func openStream(dir, name string, keep int, segment int64) (*stream, error) {
	s := &stream{dir: dir, name: name, keep: keep, segment: segment, next: new(batch)}
	s.synced = sync.NewCond(&s.mu)
	numbers, err := s.segments()
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return s, s.begin(1)
	}
	s.number = numbers[len(numbers)-1]
	s.file, err = os.OpenFile(s.path(s.number), os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if s.size, err = wholeLines(s.file); err == nil {
		err = s.file.Truncate(s.size)
	}
	return s, err
}

// wholeLines is the length of a file up to the end of its last whole line.
func wholeLines(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for end := st.Size(); end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

func (s *stream) path(number int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%06d.jsonl", s.name, number))
}

// segments are the numbers of the files that are there, oldest first.
func (s *stream) segments() ([]int, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, s.name+"-*.jsonl")) // in order: the numbers have six digits
	var out []int
	for _, n := range names {
		var number int
		if _, err := fmt.Sscanf(filepath.Base(n), s.name+"-%d.jsonl", &number); err == nil {
			out = append(out, number)
		}
	}
	return out, err
}

// begin starts a file and removes those that are too old.
func (s *stream) begin(number int) error {
	f, err := os.OpenFile(s.path(number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if s.file != nil {
		err = s.file.Close()
	}
	s.file, s.number, s.size = f, number, 0
	for old := number - s.keep; old > 0; old-- {
		if e := os.Remove(s.path(old)); errors.Is(e, os.ErrNotExist) {
			break
		} else if e != nil {
			return errors.Join(err, e)
		}
	}
	return err
}

// append adds a line and returns when it is on the disk. Lines that come while another is being written go together:
// one of their callers writes for all.
func (s *stream) append(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "The audit log is closed.")
	}
	b := s.next
	b.lines = append(b.lines, line...)
	for !b.over {
		if s.writing {
			s.synced.Wait()
		} else {
			s.flush()
		}
	}
	return b.err
}

// flush writes what waits. The caller holds s.mu, which is free while the disk works.
func (s *stream) flush() {
	b := s.next
	s.next, s.writing = new(batch), true
	file, at := s.file, s.size
	s.mu.Unlock()
	_, err := file.WriteAt(b.lines, at)
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		err = errors.Join(err, file.Truncate(at)) // the next batch goes where this one would have
	}
	s.mu.Lock()
	s.writing = false
	b.over, b.err = true, err
	if err == nil {
		if s.size = at + int64(len(b.lines)); s.size >= s.segment {
			b.err = s.begin(s.number + 1)
		}
	}
	s.synced.Broadcast()
}

func (s *stream) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.synced.Wait()
	}
	s.closed = true
	return s.file.Close()
}
