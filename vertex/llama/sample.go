package llama

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling says how the next token is chosen.
type Sampling struct {
	Temperature      float64  // 0: always the likeliest token
	TopP             float64  // only the likeliest tokens that together have this probability; 0 or 1: all
	TopK             int      // only so many; 0: all
	MaxTokens        int      // of the answer; 0: as many as there is room for
	Seed             int64    // the same seed gives the same answer
	Stop             []string // texts that end the answer; they don't belong to it
	PresencePenalty  float64  // taken once from the logit of a token that the answer has
	FrequencyPenalty float64  // taken for each time that it has it
}

// sampler chooses tokens for one answer.
type sampler struct {
	Sampling
	rng   *rand.Rand
	count map[int]int // tokens of the answer
	order []candidate
}

type candidate struct {
	id    int
	logit float64
	p     float64
}

func newSampler(s Sampling) *sampler {
	return &sampler{
		Sampling: s,
		rng:      rand.New(rand.NewPCG(uint64(s.Seed), 0x9e3779b97f4a7c15)),
		count:    make(map[int]int),
	}
}

// next chooses one of the tokens and counts it. Of equal ones the lowest id comes first.
func (s *sampler) next(logits []float32) int {
	id := s.choose(logits)
	s.count[id]++
	return id
}

func (s *sampler) choose(logits []float32) int {
	for id, n := range s.count {
		logits[id] -= float32(s.PresencePenalty + float64(n)*s.FrequencyPenalty)
	}
	if s.Temperature <= 0 || s.TopK == 1 {
		best := 0
		for id, v := range logits {
			if v > logits[best] {
				best = id
			}
		}
		return best
	}
	s.order = s.order[:0]
	for id, v := range logits {
		s.order = append(s.order, candidate{id: id, logit: float64(v)})
	}
	slices.SortFunc(s.order, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.logit, a.logit),
			cmp.Compare(a.id, b.id))
	})
	kept := s.order
	if s.TopK > 0 && s.TopK < len(kept) {
		kept = kept[:s.TopK]
	}
	var sum float64
	for i := range kept {
		kept[i].p = math.Exp((kept[i].logit - kept[0].logit) / s.Temperature)
		sum += kept[i].p
	}
	if s.TopP > 0 && s.TopP < 1 {
		var part float64
		for i := range kept {
			if part += kept[i].p; part >= s.TopP*sum {
				kept, sum = kept[:i+1], part
				break
			}
		}
	}
	at := s.rng.Float64() * sum
	for _, c := range kept {
		if at -= c.p; at < 0 {
			return c.id
		}
	}
	return kept[len(kept)-1].id
}
