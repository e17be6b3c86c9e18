package logging

import (
	"context"
	"iter"
	"strconv"
)

// Log is where entries are kept: *Ring in memory.
type Log interface {
	Reader
	// Append keeps an entry. It never waits for a reader.
	Append(e Entry)
}

// Reader is a log as those who read it see it: *Ring, and *audit.Log.
type Reader interface {
	// Read yields the newest entries that a filter wants, in the order of time. An error is the last that it yields.
	Read(ctx context.Context, f Filter) iter.Seq2[Entry, error]
	// Follow yields what Read does and then what comes, until ctx ends. A Lost in the place of the error says that
	// entries were overwritten before they could be read; it goes on. Any other error is the last that it yields.
	Follow(ctx context.Context, f Filter) iter.Seq2[Entry, error]
}

// Lost is how many entries a reader was too slow for.
type Lost int64

func (l Lost) Error() string { return strconv.FormatInt(int64(l), 10) + " entries were lost" }

// Collect returns the entries of a Read.
func Collect(entries iter.Seq2[Entry, error]) ([]Entry, error) {
	var out []Entry
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Filter says which entries are wanted. Empty fields want all.
type Filter struct {
	Project  string
	Log      string
	Resource Resource // its type, and labels that it has among others
	Severity Severity // and what is worse
	Trace    string   // hexadecimal id
	ID       string   // insertId
	Match    func(e *Entry) bool
	Limit    int // of the newest; 0 for all that there are
}

// Wants reports whether an entry is wanted, if there aren't too many newer ones.
func (f *Filter) Wants(e *Entry) bool { return f.plain(e) && (f.Match == nil || f.Match(e)) }

// plain is Wants for all but Match, which may take its time.
func (f *Filter) plain(e *Entry) bool {
	if f.Project != "" && e.Project != f.Project || f.Log != "" && e.Log != f.Log || e.Severity < f.Severity ||
		f.Trace != "" && e.Trace != f.Trace || f.ID != "" && e.ID != f.ID ||
		f.Resource.Type != "" && e.Resource.Type != f.Resource.Type {
		return false
	}
	for k, v := range f.Resource.Labels {
		if e.Resource.Labels[k] != v {
			return false
		}
	}
	return true
}
