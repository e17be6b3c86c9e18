// Package audit is the platform's audit log: who called what, on which resource, and what came of it. Its entries are
// those of package logging with a payload in the form of Cloud Audit Logs, and it is read as logging reads.
//
// The guard of the APIs and the registry write to it; `giggle audit` reads it. An event is on the disk when Record
// returns, and one that was begun is there with the change that it is about. It keeps no bodies of requests and no
// tokens, and it does not decide what is worth an entry. Two logs, as in Google Cloud: "activity" for calls about
// resources, "data_access" for those about data and for unauthenticated ones. What was refused lies in files of its
// own: no flood of refusals pushes out what was done.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"giggle/fault"
)

// The streams.
const (
	activity   = "activity"
	dataAccess = "data_access"
	refused    = "refused"
)

// Config is what Open needs.
type Config struct {
	Dir     string // of its own
	Now     func() time.Time
	Segment int64 // bytes of one file; 0 for 8 MB
	// Most is how many bytes the entries of what was done may take, before the oldest go ahead of their time; 0 for
	// any.
	Most int64
	// Journal keeps the entries of calls whose end is still to come; nil does without.
	Journal Journal
	// Full makes room when the disk is full, and reports whether it could: then the entry is written again. It may be
	// nil.
	Full func() bool
}

// retention is which files of a stream stay when another is begun.
type retention struct {
	files int           // the newest; 0 for all
	age   time.Duration // 0 for any
	bytes int64         // of all together; 0 for any
}

// kept is what stays of each stream. What was done stays as long as in Google Cloud
// (https://cloud.google.com/logging/quotas#logs_retention_periods), whatever else is written; but see Config.Most.
var kept = map[string]retention{
	activity:   {age: 400 * 24 * time.Hour},
	dataAccess: {files: 16},
	refused:    {files: 4},
}

// The refusals that are written each second: of one caller, the unauthenticated ones being one, and in all. The rest is
// counted only.
const (
	refusedOfOne = 50
	refusedOfAll = 500
)

// Log is an open audit log.
type Log struct {
	cfg     Config
	streams map[string]*stream

	mu          sync.Mutex
	second      int64          // the second that refusals are counted in
	written     map[string]int // in it, by member
	all         int            // in it
	omitted     map[string]int // by member, since the last that was written
	subscribers map[*subscriber]bool
}

// Open opens the log in a directory, which it makes. What was half written at a crash is cut off.
func Open(cfg Config) (_ *Log, err error) {
	defer fault.Wrap(&err, "audit.Open")
	if cfg.Segment == 0 {
		cfg.Segment = 8 << 20
	}
	if cfg.Full == nil {
		cfg.Full = func() bool { return false }
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{
		cfg:         cfg,
		streams:     make(map[string]*stream),
		written:     make(map[string]int),
		omitted:     make(map[string]int),
		subscribers: make(map[*subscriber]bool),
	}
	for name, keep := range kept {
		if name == activity {
			keep.bytes = cfg.Most
		}
		s, err := openStream(cfg, name, keep)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		s.full = cfg.Full
		l.streams[name] = s
	}
	if err := l.recover(context.Background()); err != nil {
		return nil, errors.Join(err, l.Close())
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

// Record writes an event and returns when it is on the disk. Too many refusals of one caller in a second are only
// counted: the next one that is written says how many.
func (l *Log) Record(e Event) (err error) {
	defer fault.Wrap(&err, "audit.Record")
	now := l.cfg.Now()
	entry, err := e.entry(now)
	if err != nil {
		return err
	}
	if e.Refused() {
		omitted, ok := l.admit(now, e.Member)
		if !ok {
			return nil
		}
		if omitted > 0 {
			entry.Labels = map[string]string{"giggle.dev/omitted": strconv.Itoa(omitted)}
		}
	}
	line, err := encode(entry)
	if err != nil {
		return err
	}
	if err := l.streams[e.stream()].append(line); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.subscribers {
		s.offerLocked(entry)
	}
	return nil
}

// encode is an entry, or its payload, as a line.
func encode(x any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // six bytes for one
	err := enc.Encode(x)
	return b.Bytes(), err
}

// admit counts a refusal, and says whether it is written and how many of the caller's were not since the last.
func (l *Log) admit(now time.Time, member string) (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now.Unix(); s != l.second {
		l.second, l.all = s, 0
		clear(l.written)
	}
	l.written[member]++
	l.all++
	if l.written[member] > refusedOfOne || l.all > refusedOfAll {
		l.omitted[member]++
		return 0, false
	}
	omitted = l.omitted[member]
	delete(l.omitted, member)
	return omitted, true
}

// stream is one log: files NAME-N.jsonl of one entry a line, the highest N being written.
type stream struct {
	dir, name string
	keep      retention
	segment   int64
	now       func() time.Time
	full      func() bool

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

func openStream(cfg Config, name string, keep retention) (*stream, error) {
	s := &stream{
		dir:     cfg.Dir,
		name:    name,
		keep:    keep,
		segment: cfg.Segment,
		now:     cfg.Now,
		next:    new(batch),
	}
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
	return s, errors.Join(err, s.prune())
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
	return errors.Join(err, s.prune())
}

// prune removes the files that are not to stay, the oldest first. The newest does, and counts as what it may become.
func (s *stream) prune() error {
	numbers, err := s.segments()
	if err != nil || len(numbers) == 0 {
		return err
	}
	older := numbers[:len(numbers)-1]
	files := make([]os.FileInfo, len(older))
	all := s.segment
	for i, number := range older {
		if files[i], err = os.Stat(s.path(number)); err != nil {
			return err
		}
		all += files[i].Size()
	}
	for i, number := range older {
		old := s.keep.files > 0 && len(numbers)-i > s.keep.files ||
			s.keep.age > 0 && s.now().Sub(files[i].ModTime()) > s.keep.age ||
			s.keep.bytes > 0 && all > s.keep.bytes
		if !old {
			break
		}
		if err := os.Remove(s.path(number)); err != nil {
			return err
		}
		all -= files[i].Size()
	}
	return nil
}

// newest is what the two newest files hold: what was written last.
func (s *stream) newest() (text []byte, err error) {
	numbers, err := s.segments()
	if err != nil {
		return nil, err
	}
	for _, number := range numbers[max(0, len(numbers)-2):] {
		part, err := os.ReadFile(s.path(number))
		if err != nil {
			return nil, err
		}
		text = append(text, part...)
	}
	return text, nil
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
			s.flushLocked()
		}
	}
	return b.err
}

// flushLocked writes what waits. Its lock is free while the disk works.
func (s *stream) flushLocked() {
	b := s.next
	s.next, s.writing = new(batch), true
	file, at := s.file, s.size
	s.mu.Unlock()
	write := func() error {
		_, err := file.WriteAt(b.lines, at)
		if err == nil {
			err = file.Sync()
		}
		return err
	}
	err := write()
	if errors.Is(err, syscall.ENOSPC) && s.full() {
		err = write()
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
