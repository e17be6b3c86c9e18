package vertex

import (
	"context"
	"strings"

	"giggle/vertex/embedded"
	"giggle/vertex/llama"
)

// FromRunner makes a backend of a model that runs in a child process. It takes text only.
func FromRunner(r *embedded.Runner) Backend { return local{r} }

type local struct{ *embedded.Runner }

func (local) Abilities() Abilities { return Abilities{} }

func (l local) Generate(ctx context.Context, r *Request, emit func(Chunk) error) (Answer, error) {
	res, err := l.Runner.Generate(ctx, embedded.Prompt{Turns: turns(r), Sampling: sampling(r.Config)},
		func(text string) error { return emit(Chunk{Text: text}) })
	a := Answer{Finish: Stop, Usage: Usage{Prompt: res.PromptTokens, Output: res.OutputTokens}, Model: l.Name()}
	if res.Finish == llama.FinishLength {
		a.Finish = Length
	}
	return a, err
}

func (l local) Count(ctx context.Context, r *Request) (int, error) {
	return l.Runner.Count(ctx, turns(r))
}

// sampling fills in what llama.cpp does by default.
func sampling(g Generation) llama.Sampling {
	s := llama.Sampling{Temperature: 0.8, TopP: 0.95, MaxTokens: g.MaxTokens, Stop: g.Stop}
	for to, v := range map[*float64]*float64{
		&s.Temperature: g.Temperature, &s.TopP: g.TopP, &s.PresencePenalty: g.PresencePenalty,
		&s.FrequencyPenalty: g.FrequencyPenalty,
	} {
		if v != nil {
			*to = *v
		}
	}
	if g.TopK != nil {
		s.TopK = *g.TopK
	}
	if g.Seed != nil {
		s.Seed = *g.Seed
	}
	return s
}

func turns(r *Request) []embedded.Turn {
	var out []embedded.Turn
	if r.System != "" {
		out = append(out, embedded.Turn{Role: embedded.System, Text: r.System})
	}
	for _, t := range r.Turns {
		out = append(out, embedded.Turn{Role: string(t.Role), Text: t.Text()})
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
