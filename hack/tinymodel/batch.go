package main

import "giggle/vertex/llama"

// reader turns talks into sequences of full length. A talk never sees another one: where it begins stands in start.
type reader struct {
	tokens *llama.Tokenizer
	next   func(epoch int) []talk
	epoch  int
	talks  []talk
}

// encode writes a talk: a mark, the text, the end, for each turn. Only answers are asked of the model.
func encode(t *llama.Tokenizer, talk talk) (tokens []int, asked []bool) {
	add := func(ids []int, answer bool) {
		for _, id := range ids {
			tokens, asked = append(tokens, id), append(asked, answer)
		}
	}
	say := func(mark, text string, answer bool) {
		add([]int{t.Control(mark)}, false)
		add(append(t.Encode(text, false), end), answer)
	}
	add([]int{begin}, false)
	if talk.system != "" {
		say("<|system|>", talk.system, false)
	}
	for _, turn := range talk.turns {
		say("<|user|>", turn.ask, false)
		say("<|assistant|>", turn.answer, true)
	}
	return tokens, asked
}

// sequence returns the next one. What does not fit any more is dropped.
func (r *reader) sequence() *sequence {
	s := &sequence{}
	for at := 0; at < length; {
		if len(r.talks) == 0 {
			r.epoch++
			r.talks = r.next(r.epoch)
		}
		tokens, asked := encode(r.tokens, r.talks[0])
		r.talks = r.talks[1:]
		first := at
		for i := 0; i < len(tokens) && at < length; i++ {
			s.tokens[at], s.start[at], s.want[at] = tokens[i], first, -1
			if i+1 < len(tokens) && asked[i+1] {
				s.want[at] = tokens[i+1]
			}
			at++
		}
	}
	return s
}
