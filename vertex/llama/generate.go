package llama

import (
	"context"
	"strings"

	"giggle/fault"
)

// Result says how an answer was made.
type Result struct {
	PromptTokens int
	OutputTokens int
	Finish       string // "stop": the model or a stop text ended it; "length": there was no more room
}

// The ways in which an answer ends.
const (
	FinishStop   = "stop"
	FinishLength = "length"
)

// Generate continues the prompt and gives emit the text of the answer piece by piece, in whole characters. It ends when
// the model is done, when MaxTokens or the context is used up, when emit returns an error (which is returned), or with
// ctx. A prompt for which there is no room is an InvalidArgument fault.
func (m *Model) Generate(ctx context.Context, prompt []int, s Sampling, emit func(piece string) error) (Result, error) {
	res := Result{PromptTokens: len(prompt)}
	if len(prompt) == 0 {
		return res, fault.New(fault.InvalidArgument, "the prompt is empty")
	}
	if len(prompt) >= m.shape.context {
		return res, fault.New(fault.InvalidArgument,
			"the prompt has %d tokens, and the model's context has %d for prompt and answer together", len(prompt),
			m.shape.context)
	}
	for _, id := range prompt {
		if id < 0 || id >= m.shape.vocabulary {
			return res, fault.New(fault.InvalidArgument, "token %d is not one of the model's %d", id,
				m.shape.vocabulary)
		}
	}
	room := m.shape.context - len(prompt)
	if s.MaxTokens > 0 {
		room = min(room, s.MaxTokens)
	}
	r, choose := m.start(), newSampler(s)
	out := &stream{stop: s.Stop, emit: emit, trim: m.tokens.vocabulary.SpacePrefix}
	var logits []float32
	for i, id := range prompt {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		logits = r.step(id, i == len(prompt)-1)
	}
	for {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		id := choose.next(logits)
		if m.tokens.Ends(id) {
			res.Finish = FinishStop
			return res, out.close()
		}
		res.OutputTokens++
		stopped, err := out.write(m.tokens.Decode(id))
		if err != nil {
			return res, err
		}
		if stopped {
			res.Finish = FinishStop
			return res, nil
		}
		if res.OutputTokens == room {
			res.Finish = FinishLength
			return res, out.close()
		}
		logits = r.step(id, true)
	}
}

// stream holds back what may be a part of a character or of a stop text.
type stream struct {
	stop []string
	emit func(string) error
	trim bool // the space before the text belongs to the vocabulary, not to the text
	held []byte
}

// write takes bytes and emits what is sure. It reports whether a stop text came; what was before it is emitted.
func (s *stream) write(piece string) (stopped bool, err error) {
	if s.trim && piece != "" {
		piece = strings.TrimPrefix(piece, " ")
		s.trim = false
	}
	s.held = append(s.held, piece...)
	text := string(s.held)
	end := -1
	for _, stop := range s.stop {
		if i := strings.Index(text, stop); stop != "" && i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end >= 0 {
		s.held = nil
		return true, s.say(text[:end])
	}
	sure := whole(s.held)
	for _, stop := range s.stop {
		for n := min(len(stop)-1, len(text)); n > 0; n-- {
			if strings.HasPrefix(stop, text[len(text)-n:]) {
				sure = min(sure, len(text)-n)
				break
			}
		}
	}
	sure = whole(s.held[:sure])
	s.held = append([]byte(nil), s.held[sure:]...)
	return false, s.say(text[:sure])
}

// close emits what was held back: the answer is over.
func (s *stream) close() error { return s.say(string(s.held)) }

func (s *stream) say(text string) error {
	if text == "" {
		return nil
	}
	return s.emit(strings.ToValidUTF8(text, "�"))
}

// Teacher runs a fixed text and calls see after every token with the logits of what may follow it. It is for
// comparisons.
func (m *Model) Teacher(tokens []int, see func(position int, logits []float32)) error {
	if len(tokens) > m.shape.context {
		return fault.New(fault.InvalidArgument, "the text has %d tokens, and the model's context has %d", len(tokens),
			m.shape.context)
	}
	r := m.start()
	for i, id := range tokens {
		if id < 0 || id >= m.shape.vocabulary {
			return fault.New(fault.InvalidArgument, "token %d is not one of the model's %d", id, m.shape.vocabulary)
		}
		see(i, r.step(id, true))
	}
	return nil
}
