package logging

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Log is where entries are kept: *Ring in memory, a store later.
type Log interface {
	// Append keeps an entry. It never waits for a reader.
	Append(e Entry)
	// Read returns the newest entries that a filter wants, in the order of time.
	Read(f Filter) ([]Entry, error)
	// Follow yields what Read returns and then what comes, until ctx ends. A Lost in the place of the error says that
	// entries were overwritten before they could be read; it goes on.
	Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error]
}

// Lost is how many entries a reader was too slow for.
type Lost int64

func (l Lost) Error() string { return strconv.FormatInt(int64(l), 10) + " entries were lost" }

// Filter says which entries of a project are wanted. Empty fields want all.
type Filter struct {
	Project  string // required
	Region   string
	Service  string
	Revision string
	Severity Severity // and what is worse
	Trace    string   // hexadecimal id
	Limit    int      // of the newest; 0 for all that there are
}

func (f *Filter) wants(e *Entry) bool {
	r := &e.Resource
	return (f.Region == "" || r.Region == f.Region) && (f.Service == "" || r.Service == f.Service) && (f.Revision == "" || r.Revision == f.Revision) &&
		e.Severity >= f.Severity && (f.Trace == "" || e.Trace == f.Trace)
}

// Ring keeps the newest entries of each project in memory.
type Ring struct {
	entries, bytes int
	prefix         string   // of ids, so that they don't repeat after a restart
	projects       sync.Map // id → *ring
}

var _ Log = (*Ring)(nil)

// NewRing returns a log that keeps at most so many entries and about so many bytes of each project.
func NewRing(entries, bytes int) *Ring {
	return &Ring{entries: max(entries, 1), bytes: bytes, prefix: strconv.FormatUint(rand.Uint64(), 36)}
}

// ring is one project's entries. Entry number n (from 0, of all that there ever were) is at all[n%len(all)].
type ring struct {
	following atomic.Int32

	mu    sync.Mutex
	all   []Entry       // grows up to the limit, then is written round
	from  int64         // the oldest that is there
	to    int64         // the number of the next
	bytes int           // about what they take
	added chan struct{} // closed with the next entry, when somebody follows
}

func (l *Ring) project(id string) *ring {
	if r, ok := l.projects.Load(id); ok {
		return r.(*ring)
	}
	r, _ := l.projects.LoadOrStore(id, &ring{added: make(chan struct{})})
	return r.(*ring)
}

// Append keeps an entry, in the place of the oldest ones where there are too many.
func (l *Ring) Append(e Entry) {
	r := l.project(e.Resource.Project)
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.ID == "" {
		e.ID = l.prefix + strings.Repeat("0", 8-min(8, digits(r.to))) + strconv.FormatInt(r.to, 36)
	}
	size := e.size()
	for n := r.to - r.from; n > 0 && (n >= int64(l.entries) || r.bytes+size > l.bytes); n-- {
		old := &r.all[r.from%int64(len(r.all))]
		r.bytes -= old.size()
		*old = Entry{}
		r.from++
	}
	if int64(len(r.all)) == r.to-r.from {
		r.growLocked(l.entries)
	}
	r.all[r.to%int64(len(r.all))] = e
	r.to++
	r.bytes += size
	if r.following.Load() > 0 {
		close(r.added)
		r.added = make(chan struct{})
	}
}

// digits is how many digits a number has in base 36.
func digits(n int64) int {
	d := 1
	for ; n >= 36; n /= 36 {
		d++
	}
	return d
}

// growLocked doubles the room, up to a most.
func (r *ring) growLocked(most int) {
	more := make([]Entry, min(max(2*len(r.all), 64), most))
	for n := r.from; n < r.to; n++ {
		more[n%int64(len(more))] = r.all[n%int64(len(r.all))]
	}
	r.all = more
}

// Read returns the newest entries that f wants, in the order of time.
func (l *Ring) Read(f Filter) ([]Entry, error) {
	out, _ := l.read(f)
	return out, nil
}

// read is Read, and says what number the next entry will have.
func (l *Ring) read(f Filter) ([]Entry, int64) {
	r := l.project(f.Project)
	var out []Entry
	r.mu.Lock()
	// Requests are appended when they end and are as old as their start. So that the newest by time are found, some more
	// are looked at than are asked for.
	for n := r.to - 1; n >= r.from && (f.Limit <= 0 || len(out) < 2*f.Limit+64); n-- {
		if e := &r.all[n%int64(len(r.all))]; f.wants(e) {
			out = append(out, *e)
		}
	}
	next := r.to
	r.mu.Unlock()
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	return out, next
}

// Follow yields what Read returns, and then what comes in the order in which it comes.
func (l *Ring) Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := l.project(f.Project)
		r.following.Add(1)
		defer r.following.Add(-1)
		first, next := l.read(f)
		for _, e := range first {
			if !yield(e, nil) {
				return
			}
		}
		for {
			batch, lost, at, added := r.since(next, &f)
			next = at
			if lost > 0 && !yield(Entry{}, Lost(lost)) {
				return
			}
			for _, e := range batch {
				if !yield(e, nil) {
					return
				}
			}
			if added == nil {
				continue // there is more
			}
			select {
			case <-added:
			case <-ctx.Done():
				return
			}
		}
	}
}

// followBatch is how many entries a follower looks at before it lets go of the lock.
const followBatch = 256

// since returns what a filter wants of the entries from number next on, how many are gone, the number to go on with, and
// what is closed when there is more; nil when there is already.
func (r *ring) since(next int64, f *Filter) (out []Entry, lost, at int64, added chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next < r.from {
		lost, next = r.from-next, r.from
	}
	at = min(next+followBatch, r.to)
	for ; next < at; next++ {
		if e := &r.all[next%int64(len(r.all))]; f.wants(e) {
			out = append(out, *e)
		}
	}
	if at == r.to {
		added = r.added
	}
	return out, lost, at, added
}
