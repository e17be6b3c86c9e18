package audit

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"giggle/store"
)

// Journal keeps entries in the transactions that they are about: *store.Store.
type Journal interface {
	Journal(ctx context.Context) ([]store.Line, error)
	Written(id string)
}

// maxChanged is how many names of what it changed an entry has.
const maxChanged = 20

// Pending is the event of a call that is being served. What the call writes to the store, it writes together with an
// entry: a change whose call never ends, since the platform is killed, is in the log when the platform is back.
type Pending struct {
	log *Log

	mu    sync.Mutex
	event Event
	kept  bool // there is an entry in the journal
}

type pendingKey struct{}

// Begin returns the context to serve a call with that may change something. End is to follow.
func (l *Log) Begin(ctx context.Context, e Event) (context.Context, *Pending) {
	p := &Pending{log: l, event: e}
	if l.cfg.Journal == nil {
		return context.WithValue(ctx, pendingKey{}, p), p
	}
	return store.WithJournal(context.WithValue(ctx, pendingKey{}, p), p.line), p
}

// Note adds to the entry of the call that ctx belongs to, if there is one, what only its handler knows.
func Note(ctx context.Context, fn func(e *Event)) {
	if p, ok := ctx.Value(pendingKey{}).(*Pending); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		fn(&p.event)
	}
}

// line is the entry as it is if nothing more happens: the change is made.
func (p *Pending) line(changed []store.Changed) (store.Line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changed {
		p.event.change(c.Kind + " " + c.Name)
	}
	p.kept = true
	entry, err := p.event.entry(p.log.cfg.Now())
	if err != nil {
		return store.Line{}, err
	}
	text, err := encode(entry)
	return store.Line{ID: p.event.RequestID, Text: text}, err
}

// change adds the name of something that the call has changed.
func (e *Event) change(name string) {
	for _, have := range e.Changed {
		if have == name {
			return
		}
	}
	switch {
	case len(e.Changed) < maxChanged:
		e.Changed = append(e.Changed, name)
	case len(e.Changed) == maxChanged:
		e.Changed = append(e.Changed, "…")
	}
}

// End writes what came of the call, as Record does.
func (p *Pending) End(e Event) error {
	p.mu.Lock()
	e.Changed, e.Delta = p.event.Changed, p.event.Delta
	if e.Project == "" {
		e.Project = p.event.Project
	}
	if e.Resource == "" {
		e.Resource = p.event.Resource
	}
	kept := p.kept
	p.mu.Unlock()
	err := p.log.Record(e)
	if err == nil && kept {
		p.log.cfg.Journal.Written(e.RequestID)
	}
	return err
}

// recover writes what is in the journal and not in the log: entries of calls that had no end.
func (l *Log) recover(ctx context.Context) error {
	if l.cfg.Journal == nil {
		return nil
	}
	lines, err := l.cfg.Journal.Journal(ctx)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return nil
	}
	var newest []byte
	for _, s := range l.streams {
		text, err := s.newest()
		if err != nil {
			return err
		}
		newest = append(newest, text...)
	}
	for _, line := range lines {
		if !bytes.Contains(newest, []byte(`"insertId":"`+line.ID+`"`)) {
			if err := l.streams[activity].append(line.Text); err != nil {
				return fmt.Errorf("an entry of the journal: %w", err)
			}
		}
		l.cfg.Journal.Written(line.ID)
	}
	return nil
}
