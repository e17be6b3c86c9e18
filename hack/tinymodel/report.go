package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"

	"giggle/vertex/llama"
)

// answers is how many of them the report looks at.
const answers = 50

// report writes what the model is worth: its perplexity on the jokes that were held out, and answers to as many
// requests, each with whether it stands in the training text, in what was held out, or nowhere.
func report(w io.Writer, c *corpus, m *llama.Model) error {
	t := m.Tokenizer()
	talks := c.heldOut()
	loss, count := 0.0, 0
	for _, talk := range talks {
		tokens, asked := encode(t, talk)
		err := m.Teacher(tokens, func(at int, logits []float32) {
			if at+1 < len(tokens) && asked[at+1] {
				loss += crossEntropy(logits, tokens[at+1])
				count++
			}
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "held out: %d jokes, %d tokens, perplexity %.2f\n", len(talks), count, math.Exp(loss/float64(count)))

	source := make(map[string]string)
	for _, j := range c.held {
		source[j.text] = "held out"
	}
	for _, j := range c.train {
		source[j.text] = "verbatim"
	}
	for _, s := range c.small {
		source[s[1]] = "verbatim"
	}
	kinds := make(map[string]int)
	for i, talk := range talks[:answers] {
		prompt, _ := encode(t, talk)
		for end := len(prompt) - 1; ; end-- { // up to the mark of the answer
			if prompt[end] == t.Control("<|assistant|>") {
				prompt = prompt[:end+1]
				break
			}
		}
		var text strings.Builder
		_, err := m.Generate(context.Background(), prompt, llama.Sampling{Temperature: 0.8, Seed: int64(i + 1)},
			func(piece string) error {
				text.WriteString(piece)
				return nil
			})
		if err != nil {
			return err
		}
		kind := source[strings.TrimPrefix(text.String(), "I only know jokes. ")]
		if kind == "" {
			kind = "new"
		}
		kinds[kind]++
		fmt.Fprintf(w, "%2d %-8s  %s → %s\n", i+1, kind, talk.turns[0].ask, text.String())
	}
	fmt.Fprintf(w, "of %d answers: %d verbatim from the training text, %d equal to one that was held out, %d new\n",
		answers, kinds["verbatim"], kinds["held out"], kinds["new"])
	return nil
}
