package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"giggle/vertex/llama"
)

// The first tokens of the vocabulary, in the usual order, and the marks of turns behind the bytes.
const (
	unknown = iota
	begin
	end
	firstByte
)

var marks = []string{"<|system|>", "<|user|>", "<|assistant|>"}

// words cuts a text as the training of the vocabulary sees it: a word has the mark of the space before it, and letters
// are never in one piece with anything else.
func words(text string, count map[string]int) {
	text = "▁" + strings.ReplaceAll(text, " ", "▁")
	start, letters := 0, true
	for i, r := range text {
		is := unicode.IsLetter(r)
		if i > start && (r == '▁' || is != letters && text[start:i] != "▁") {
			count[text[start:i]]++
			start = i
		}
		letters = is
	}
	count[text[start:]]++
}

// learn makes a sentencepiece vocabulary of the given size: the most frequent pair of neighbors becomes a piece, until
// there are enough. Ties go to the pair that comes first in the alphabet, so that the result is always the same.
func learn(count map[string]int, size int) llama.Vocabulary {
	v := llama.Vocabulary{
		Model:       "llama",
		BOS:         begin,
		EOS:         end,
		EOT:         -1,
		SpacePrefix: true,
	}
	add := func(text string, kind llama.TokenType, score float32) {
		v.Tokens, v.Types, v.Scores = append(v.Tokens, text), append(v.Types, kind), append(v.Scores, score)
	}
	add("<unk>", llama.Unknown, 0)
	add("<s>", llama.Control, 0)
	add("</s>", llama.Control, 0)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), llama.Byte, 0)
	}
	for _, m := range marks {
		add(m, llama.Control, 0)
	}
	keys := slices.Sorted(maps.Keys(count))
	pieces := make([][]string, len(keys))
	chars := make(map[string]int)
	for i, w := range keys {
		for _, r := range w {
			pieces[i] = append(pieces[i], string(r))
			chars[string(r)] += count[w]
		}
	}
	pairs := len(v.Tokens) + len(chars)
	var merged []string
	for range size - pairs {
		type two struct{ l, r string }
		seen := make(map[two]int)
		for i, p := range pieces {
			for j := 1; j < len(p); j++ {
				seen[two{p[j-1], p[j]}] += count[keys[i]]
			}
		}
		best := slices.MaxFunc(slices.Collect(maps.Keys(seen)), func(a, b two) int {
			return cmp.Or(cmp.Compare(seen[a], seen[b]), -cmp.Compare(a.l, b.l), -cmp.Compare(a.r, b.r))
		})
		merged = append(merged, best.l+best.r)
		for i, p := range pieces {
			out := p[:0]
			for j := 0; j < len(p); j++ {
				if j+1 < len(p) && p[j] == best.l && p[j+1] == best.r {
					out = append(out, p[j]+p[j+1])
					j++
					continue
				}
				out = append(out, p[j])
			}
			pieces[i] = out
		}
	}
	// Sentencepiece merges by score: the pair that was found first has the best.
	for i, m := range merged {
		add(m, llama.Normal, -float32(i))
	}
	for _, c := range slices.SortedFunc(maps.Keys(chars),
		func(a, b string) int { return cmp.Or(chars[b]-chars[a], cmp.Compare(a, b)) }) {
		add(c, llama.Normal, -float32(len(merged)))
	}
	return v
}

// vocabulary learns from the texts of the training.
func (c *corpus) vocabulary(size int) llama.Vocabulary {
	count := make(map[string]int)
	for _, talk := range c.epoch(0) {
		for _, t := range talk.turns {
			words(t.ask, count)
			words(t.answer, count)
		}
		words(talk.system, count)
	}
	return learn(count, size)
}
