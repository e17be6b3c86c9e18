package main

import (
	"slices"
	"testing"

	"giggle/vertex/llama"
)

func firstBatch(t *testing.T) []*sequence {
	t.Helper()
	c, err := readCorpus()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := llama.NewTokenizer(c.vocabulary(vocabularySize))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{tokens: tok, next: c.epoch}
	return []*sequence{r.sequence(), r.sequence()}
}

// The weights do not depend on how many processors there are.
func TestThreadsChangeNothing(t *testing.T) {
	data := firstBatch(t)
	n, turned := newNet(), turnedNet{newNet()}
	n.start(1)
	turned.update(n)
	var grads [2][]*net
	var losses [2]float64
	for i := range grads {
		grads[i] = []*net{newNet(), newNet()}
		passes := []*pass{newPass(newAngles()), newPass(newAngles())}
		losses[i], _ = each(n, turned, passes[:i+1], data, grads[i])
	}
	if losses[0] != losses[1] {
		t.Errorf("the loss is %v with one thread, %v with two", losses[0], losses[1])
	}
	for i := range data {
		if !slices.Equal(grads[0][i].all, grads[1][i].all) {
			t.Errorf("the gradient of sequence %d depends on the number of threads", i)
		}
	}
}

// The same files make the same text: what is held out is never trained.
func TestTheCorpusIsSplit(t *testing.T) {
	c, err := readCorpus()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.held) < 200 || len(c.train) < 5000 {
		t.Fatal(c.size())
	}
	held := make(map[string]bool)
	for _, j := range c.held {
		held[j.text] = true
	}
	for _, talk := range c.epoch(3) {
		for _, turn := range talk.turns {
			if held[turn.answer] {
				t.Errorf("%q is held out, and trained", turn.answer)
			}
		}
	}
}
