package models

import (
	"context"
	"strings"
)

// Local is the model that runs in a child process of the platform: *embedded.Runner, behind an adapter of cloud's.
type Local interface {
	Name() string
	// Complete goes on with a conversation, each turn's text behind the name of who says it: "system", "user", "model".
	Complete(ctx context.Context, turns [][2]string, c Generation, emit func(text string) error) (Answer, error)
	Count(ctx context.Context, turns [][2]string) (int, error)
}

// FromLocal makes a backend of a local model. It takes text only.
func FromLocal(l Local) Backend { return local{l} }

type local struct{ model Local }

func (l local) Abilities() Abilities { return Abilities{} }

func (l local) Generate(ctx context.Context, r *Request, emit func(Chunk) error) (Answer, error) {
	a, err := l.model.Complete(ctx, turns(r), r.Config, func(text string) error { return emit(Chunk{Text: text}) })
	a.Model = l.model.Name()
	return a, err
}

func (l local) Count(ctx context.Context, r *Request) (int, error) {
	return l.model.Count(ctx, turns(r))
}

func turns(r *Request) [][2]string {
	var out [][2]string
	if r.System != "" {
		out = append(out, [2]string{"system", r.System})
	}
	for _, t := range r.Turns {
		out = append(out, [2]string{string(t.Role), t.Text()})
	}
	return out
}

// Text is the texts of a turn, joined.
func (t Turn) Text() string {
	var b strings.Builder
	for _, p := range t.Parts {
		b.WriteString(p.Text)
	}
	return b.String()
}
