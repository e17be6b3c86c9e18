package logging

import (
	"context"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Ring keeps the newest entries in memory: so many of each project's services, builds, and all else, so that none
// pushes out another's. A build that writes much takes nothing of what services say.
type Ring struct {
	entries, bytes int
	prefix         string // of ids, so that they don't repeat after a restart
	last           atomic.Int64

	rings     atomic.Pointer[map[share]*ring] // copied when there is another
	followers atomic.Pointer[[]*follower]     // likewise
	mu        sync.Mutex                      // of who changes those
}

var _ Log = (*Ring)(nil)

// NewRing returns a log that keeps at most so many entries and about so many bytes of each share.
func NewRing(entries, bytes int) *Ring {
	l := &Ring{entries: max(entries, 1), bytes: bytes, prefix: strconv.FormatUint(rand.Uint64(), 36)}
	l.rings.Store(new(map[share]*ring))
	l.followers.Store(new([]*follower))
	return l
}

// share is whose entries a ring has. Types of resources that the platform doesn't write about have one together: who
// writes entries chooses their types.
type share struct{ project, resource string }

func shareOf(project, resource string) share {
	if resource != RevisionType && resource != BuildType {
		resource = ""
	}
	return share{project, resource}
}

// wantedBy reports whether a filter may want entries of the share.
func (s share) wantedBy(f *Filter) bool {
	return (f.Project == "" || f.Project == s.project) &&
		(f.Resource.Type == "" || shareOf(s.project, f.Resource.Type) == s)
}

// ring is the entries of one share. Entry number n (from 0, of all that there ever were) is at all[n%len(all)].
type ring struct {
	mu    sync.Mutex
	all   []Entry // grows up to the limit, then is written round
	from  int64   // the oldest that is there
	to    int64   // the number of the next
	bytes int     // about what they take
}

// follower is a reader that waits for more.
type follower struct {
	filter Filter
	more   chan struct{} // holds one once there is something that it may want
}

func (l *Ring) of(s share) *ring {
	if r := (*l.rings.Load())[s]; r != nil {
		return r
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := *l.rings.Load()
	if r := all[s]; r != nil {
		return r
	}
	if all = maps.Clone(all); all == nil {
		all = make(map[share]*ring)
	}
	all[s] = new(ring)
	l.rings.Store(&all)
	return all[s]
}

// Append keeps an entry, in the place of the oldest ones where there are too many.
func (l *Ring) Append(e Entry) {
	if e.ID == "" {
		n := l.last.Add(1)
		e.ID = l.prefix + strings.Repeat("0", 8-min(8, digits(n))) + strconv.FormatInt(n, 36)
	}
	s := shareOf(e.Project, e.Resource.Type)
	l.of(s).append(e, l.entries, l.bytes)
	for _, f := range *l.followers.Load() {
		if s.wantedBy(&f.filter) {
			f.wake()
		}
	}
}

func (f *follower) wake() {
	select {
	case f.more <- struct{}{}:
	default: // it knows
	}
}

func (r *ring) append(e Entry, entries, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := e.size()
	for n := r.to - r.from; n > 0 && (n >= int64(entries) || r.bytes+size > bytes); n-- {
		old := r.atLocked(r.from)
		r.bytes -= old.size()
		*old = Entry{}
		r.from++
	}
	if int64(len(r.all)) == r.to-r.from {
		r.growLocked(entries)
	}
	*r.atLocked(r.to) = e
	r.to++
	r.bytes += size
}

func (r *ring) atLocked(n int64) *Entry { return &r.all[n%int64(len(r.all))] }

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
		more[n%int64(len(more))] = *r.atLocked(n)
	}
	r.all = more
}

// Read yields the newest entries that f wants, in the order of time.
func (l *Ring) Read(_ context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		l.read(&f, make(map[*ring]int64), yield)
	}
}

// read is Read, and notes what number the next entry of each ring will have. It reports whether there is to be more.
func (l *Ring) read(f *Filter, next map[*ring]int64, yield func(Entry, error) bool) bool {
	var out []Entry
	for s, r := range *l.rings.Load() {
		if s.wantedBy(f) {
			var some []Entry
			some, next[r] = r.newest(f)
			out = append(out, some...)
		}
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	for _, e := range out {
		if !yield(e, nil) {
			return false
		}
	}
	return true
}

// batch is how many entries a reader looks at before it lets go of a ring's lock.
const batch = 256

// newest returns the newest entries that a filter wants, in the order in which they came, and the number of the next.
func (r *ring) newest(f *Filter) (out []Entry, next int64) {
	r.mu.Lock()
	next = r.to
	r.mu.Unlock()
	// Requests are appended when they end and are as old as their start. So that the newest by time are found, some
	// more are looked at than are asked for.
	most := 2*f.Limit + 64
	for end := next; end > 0 && (f.Limit <= 0 || len(out) < most); end -= batch {
		some, lost, _, _ := r.between(end-batch, end, f)
		slices.Reverse(some)
		out = append(out, some...)
		if lost > 0 {
			break // it is the oldest
		}
	}
	slices.Reverse(out)
	return out, next
}

// between returns what a filter wants of the entries from one number to another, how many of them are gone or never
// were, the number to go on with, and whether that is the next that comes.
func (r *ring) between(from, to int64, f *Filter) (out []Entry, lost, next int64, last bool) {
	r.mu.Lock()
	if from < r.from {
		lost, from = r.from-from, r.from
	}
	next = max(from, min(to, r.to))
	for n := from; n < next; n++ {
		if e := r.atLocked(n); e.Resource != nil && f.plain(e) { // one that was deleted has none
			out = append(out, *e)
		}
	}
	last = next == r.to
	r.mu.Unlock()
	if f.Match != nil {
		out = slices.DeleteFunc(out, func(e Entry) bool { return !f.Match(&e) })
	}
	return out, lost, next, last
}

// Delete forgets the entries of one of a project's logs.
func (l *Ring) Delete(project, log string) {
	for s, r := range *l.rings.Load() {
		if s.project == project {
			r.delete(log)
		}
	}
}

// delete takes out the entries of a log. Numbers don't change: what is gone leaves no entry that anybody wants.
func (r *ring) delete(log string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.from; n < r.to; n++ {
		if e := r.atLocked(n); e.Log == log && e.Resource != nil {
			r.bytes -= e.size()
			*e = Entry{}
			r.bytes += e.size()
		}
	}
}

// Follow yields what Read does, and then what comes: of each project and type in the order in which it comes.
func (l *Ring) Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		me := &follower{f, make(chan struct{}, 1)}
		l.follow(func(all []*follower) []*follower { return append(all, me) })
		defer l.follow(func(all []*follower) []*follower {
			return slices.DeleteFunc(all, func(x *follower) bool { return x == me })
		})
		next := make(map[*ring]int64) // 0 for a ring that is made meanwhile
		if !l.read(&f, next, yield) {
			return
		}
		for ctx.Err() == nil {
			for s, r := range *l.rings.Load() {
				if s.wantedBy(&f) && !r.since(next, &f, yield) {
					return
				}
			}
			select {
			case <-me.more:
			case <-ctx.Done():
				return
			}
		}
	}
}

// follow changes who follows.
func (l *Ring) follow(change func(all []*follower) []*follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := change(slices.Clone(*l.followers.Load()))
	l.followers.Store(&all)
}

// since yields what has come since a reader was there, and reports whether there is to be more.
func (r *ring) since(next map[*ring]int64, f *Filter, yield func(Entry, error) bool) bool {
	for last := false; !last; {
		var some []Entry
		var lost int64
		some, lost, next[r], last = r.between(next[r], next[r]+batch, f)
		if lost > 0 && !yield(Entry{}, Lost(lost)) {
			return false
		}
		for _, e := range some {
			if !yield(e, nil) {
				return false
			}
		}
	}
	return true
}
