package main

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// The gradients are those of the differences of the loss, for a weight of each kind of tensor.
func TestGradientsAreTheSlopeOfTheLoss(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	n, d, turned := newNet(), newNet(), turnedNet{newNet()}
	n.start(1)
	s := &sequence{}
	for i := range s.tokens {
		s.tokens[i], s.want[i] = rng.IntN(vocabularySize), -1
		if i%3 == 0 {
			s.want[i] = rng.IntN(vocabularySize)
		}
		if i > 0 {
			s.start[i] = s.start[i-1]
			if i%50 == 0 {
				s.start[i] = i
			}
		}
	}
	p := newPass(newAngles())
	turned.update(n)
	p.forward(n, turned, s)
	p.backward(n, s, d)
	slopes := make(map[string][]float32)
	d.names(func(name string, w *[]float32, _, _ int) { slopes[name] = *w })
	n.names(func(name string, w *[]float32, _, _ int) {
		if strings.HasPrefix(name, "blk.") && !strings.HasPrefix(name, "blk.2.") {
			return // all layers are done by the same lines
		}
		best := 0
		for i, v := range slopes[name] {
			if math.Abs(float64(v)) > math.Abs(float64(slopes[name][best])) {
				best = i
			}
		}
		const h = 1e-2
		old := (*w)[best]
		at := func(v float32) float64 {
			(*w)[best] = v
			turned.update(n)
			loss, _ := p.forward(n, turned, s)
			return loss
		}
		up, down := at(old+h), at(old-h)
		(*w)[best] = old
		slope, got := (up-down)/(2*h), float64(slopes[name][best])
		if math.Abs(slope-got) > 0.02*math.Abs(slope)+0.02 {
			t.Errorf("%s[%d]: gradient %v, the loss has slope %v", name, best, got, slope)
		}
	})
}

func TestExp(t *testing.T) {
	for x := float32(-86); x < 87; x += 0.0137 {
		want := math.Exp(float64(x))
		if got := float64(exp(x)); math.Abs(got/want-1) > 4e-7 {
			t.Fatalf("exp(%v) = %v, not %v", x, got, want)
		}
	}
}
