package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"giggle/fault"
	"giggle/logging"
)

// Calls is which calls are wanted. Empty fields want all.
type Calls struct {
	Principal string // e-mail address or member
	Method    string // a part of the method's name, any case
	Refused   bool   // refused calls only
}

// Match reports whether an entry is of such a call, for a logging.Filter.
func (c Calls) Match(e *logging.Entry) bool {
	p, err := PayloadOf(e)
	return err == nil &&
		(c.Principal == "" || p.Authentication.PrincipalEmail == c.Principal ||
			p.Authentication.PrincipalSubject == c.Principal) &&
		(c.Method == "" || strings.Contains(strings.ToLower(p.ServiceName+"/"+p.MethodName),
			strings.ToLower(c.Method))) &&
		(!c.Refused || p.Refused())
}

var _ logging.Reader = (*Log)(nil)

// Read yields the entries that a filter wants, oldest first.
func (l *Log) Read(_ context.Context, f logging.Filter) iter.Seq2[logging.Entry, error] {
	return func(yield func(logging.Entry, error) bool) {
		all, err := l.read(&f)
		if err != nil {
			yield(logging.Entry{}, err)
			return
		}
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (l *Log) read(f *logging.Filter) (_ []logging.Entry, err error) {
	defer fault.Wrap(&err, "audit.Read")
	var all []logging.Entry
	for _, s := range l.streams {
		entries, err := s.read(f)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b logging.Entry) int { return a.Time.Compare(b.Time) })
	if f.Limit > 0 && len(all) > f.Limit {
		all = all[len(all)-f.Limit:]
	}
	return all, nil
}

// read goes through the files from the newest until there is enough.
func (s *stream) read(f *logging.Filter) ([]logging.Entry, error) {
	s.mu.Lock()
	numbers, err := s.segments()
	newest, size := s.number, s.size
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var out []logging.Entry
	for _, number := range slices.Backward(numbers) {
		if number > newest {
			continue
		}
		most := int64(1 << 40)
		if number == newest {
			most = size // what is beyond may be half written
		}
		part, err := readFile(s.path(number), most, f)
		if err != nil {
			return nil, err
		}
		out = append(part, out...)
		if f.Limit > 0 && len(out) >= f.Limit {
			break
		}
	}
	return out, nil
}

func readFile(path string, most int64, f *logging.Filter) ([]logging.Entry, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // removed by now
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var out []logging.Entry
	in := bufio.NewReader(io.LimitReader(file, most))
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			rest, err := in.ReadBytes('\n')
			if err != nil {
				return out, nil
			}
			line = append(slices.Clone(line), rest...)
		}
		if f.ID != "" && !bytes.Contains(line, []byte(f.ID)) { // spares the decoding
			continue
		}
		var e logging.Entry
		if json.Unmarshal(line, &e) == nil && f.Wants(&e) {
			out = append(out, e)
		}
	}
}

// maxFollowBacklog is how many entries a reader that follows may be behind.
const maxFollowBacklog = 1024

// subscriber is a reader that follows.
type subscriber struct {
	entries chan logging.Entry
	behind  chan struct{} // closed when entries were lost
}

// offerLocked gives an entry to the subscriber. The lock is the log's.
func (s *subscriber) offerLocked(e logging.Entry) {
	select {
	case s.entries <- e:
	default:
		select {
		case <-s.behind:
		default:
			close(s.behind)
		}
	}
}

// Follow yields the entries that a filter wants as Read does, and then those that come, until ctx ends. It ends with
// ResourceExhausted when its reader is too slow.
func (l *Log) Follow(ctx context.Context, f logging.Filter) iter.Seq2[logging.Entry, error] {
	return func(yield func(logging.Entry, error) bool) {
		sub := &subscriber{make(chan logging.Entry, maxFollowBacklog), make(chan struct{})}
		l.mu.Lock()
		l.subscribers[sub] = true
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			delete(l.subscribers, sub)
			l.mu.Unlock()
		}()
		old, err := l.read(&f)
		if err != nil {
			yield(logging.Entry{}, err)
			return
		}
		seen := make(map[key]bool, len(old)) // what is read and offered comes once
		for _, e := range old {
			seen[keyOf(&e)] = true
			if !yield(e, nil) {
				return
			}
		}
		for {
			select {
			case e := <-sub.entries:
				if f.Wants(&e) && !seen[keyOf(&e)] && !yield(e, nil) {
					return
				}
			case <-sub.behind:
				yield(logging.Entry{},
					fault.New(fault.ResourceExhausted, "Entries came faster than they were read. Follow again."))
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// key tells entries apart: one request can have several.
type key struct {
	request, method string
	nanoseconds     int64
}

func keyOf(e *logging.Entry) key {
	return key{e.ID, e.Resource.Labels["method"], e.Time.UnixNano()}
}
