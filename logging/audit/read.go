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
)

// Filter says which entries are wanted. The zero Filter wants the whole log.
type Filter struct {
	Project   string // id
	Principal string // e-mail address or member
	Method    string // a part of the method's name, any case
	RequestID string
	Refused   bool // refused calls only
	Limit     int  // of the newest; 0 for all that there are
}

func (f Filter) wants(e Entry) bool {
	p := e.Payload
	return (f.Project == "" || e.Resource.Labels["project_id"] == f.Project) &&
		(f.Principal == "" || p.Authentication.PrincipalEmail == f.Principal || p.Authentication.PrincipalSubject == f.Principal) &&
		(f.Method == "" || strings.Contains(strings.ToLower(p.ServiceName+"/"+p.MethodName), strings.ToLower(f.Method))) &&
		(f.RequestID == "" || e.InsertID == f.RequestID) &&
		(!f.Refused || e.Refused())
}

// Read returns the entries that a filter wants, oldest first.
func (l *Log) Read(f Filter) (_ []Entry, err error) {
	defer fault.Wrap(&err, "audit.Read")
	var all []Entry
	for _, s := range l.streams {
		entries, err := s.read(f)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Timestamp.Compare(b.Timestamp) })
	if f.Limit > 0 && len(all) > f.Limit {
		all = all[len(all)-f.Limit:]
	}
	return all, nil
}

// read goes through the files from the newest until there is enough.
func (s *stream) read(f Filter) ([]Entry, error) {
	s.mu.Lock()
	numbers, err := s.segments()
	newest, size := s.number, s.size
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var out []Entry
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

func readFile(path string, most int64, f Filter) ([]Entry, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // removed by now
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var out []Entry
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
		if f.RequestID != "" && !bytes.Contains(line, []byte(f.RequestID)) { // spares the decoding
			continue
		}
		var e Entry
		if json.Unmarshal(line, &e) == nil && f.wants(e) {
			out = append(out, e)
		}
	}
}

// maxFollowBacklog is how many entries a reader that follows may be behind.
const maxFollowBacklog = 1024

// subscriber is a reader that follows.
type subscriber struct {
	entries chan Entry
	behind  chan struct{} // closed when entries were lost
}

// offerLocked gives an entry to the subscriber. The lock is the log's.
func (s *subscriber) offerLocked(e Entry) {
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
func (l *Log) Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		sub := &subscriber{make(chan Entry, maxFollowBacklog), make(chan struct{})}
		l.mu.Lock()
		l.subscribers[sub] = true
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			delete(l.subscribers, sub)
			l.mu.Unlock()
		}()
		old, err := l.Read(f)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		seen := make(map[key]bool, len(old)) // what is read and offered comes once
		for _, e := range old {
			seen[e.key()] = true
			if !yield(e, nil) {
				return
			}
		}
		for {
			select {
			case e := <-sub.entries:
				if f.wants(e) && !seen[e.key()] && !yield(e, nil) {
					return
				}
			case <-sub.behind:
				yield(Entry{}, fault.New(fault.ResourceExhausted, "Entries came faster than they were read. Follow again."))
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

func (e Entry) key() key { return key{e.InsertID, e.Payload.MethodName, e.Timestamp.UnixNano()} }
