package main

import (
	"encoding/gob"
	"errors"
	"io/fs"
	"log"
	"math"
	"os"
	"sync"
	"time"

	"giggle/vertex/llama"
)

// How the model is trained: AdamW, with a rate that rises, stays, and falls at the end. What
// was trained does not depend on the number of steps before the fall, so that it can be chosen late.
const (
	batch     = 2 // sequences of a step
	topRate   = 3e-3
	rise      = 100 // steps
	fall      = 4   // the last quarter of the steps
	beta1     = 0.9
	beta2     = 0.98
	decay     = 0.05
	clip      = 1.0
	saveEvery = 200
)

// state is all that is needed to go on after an interruption.
type state struct {
	Step       int
	Weights    []float32
	Mean, Var  []float32
	Seconds    float64
	KernelName string
}

func load(path string) (*state, error) {
	n := newNet()
	n.start(1)
	s := &state{Weights: n.all, Mean: make([]float32, len(n.all)), Var: make([]float32, len(n.all)), KernelName: kernel}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := gob.NewDecoder(f).Decode(s); err != nil {
		return nil, err
	}
	if s.KernelName != kernel || len(s.Weights) != len(n.all) {
		return nil, errors.New("the checkpoint is of another shape or another kernel: remove it to begin anew")
	}
	return s, nil
}

func (s *state) save(path string) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(gob.NewEncoder(f).Encode(s), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// train runs the given number of steps, those of the checkpoint included. The gradients of the sequences are summed in
// their order, so that the result does not depend on the number of threads.
func train(c *corpus, t *llama.Tokenizer, checkpoint string, steps, threads int) (*net, error) {
	s, err := load(checkpoint)
	if err != nil {
		return nil, err
	}
	n, turned := newNet(), turnedNet{newNet()}
	copy(n.all, s.Weights)
	s.Weights = n.all
	r := &reader{tokens: t, next: c.epoch}
	for range s.Step * batch {
		r.sequence()
	}
	held := &reader{tokens: t, next: func(int) []talk { return c.heldOut() }}
	test := []*sequence{held.sequence(), held.sequence(), held.sequence(), held.sequence()}
	a := newAngles()
	passes := make([]*pass, threads)
	for i := range passes {
		passes[i] = newPass(a)
	}
	grads := make([]*net, batch)
	for i := range grads {
		grads[i] = newNet()
	}
	for s.Step < steps {
		begin := time.Now()
		batch := make([]*sequence, batch)
		for i := range batch {
			batch[i] = r.sequence()
		}
		turned.update(n)
		loss, asked := each(n, turned, passes, batch, grads)
		s.Step++
		gradient := grads[0].all
		for _, g := range grads[1:] {
			for i, v := range g.all {
				gradient[i] += v
			}
		}
		s.update(gradient, float64(asked), steps)
		s.Seconds += time.Since(begin).Seconds()
		if s.Step%50 == 0 {
			log.Printf("step %d of %d, epoch %d: loss %.3f, %.0f s", s.Step, steps, r.epoch, loss/float64(asked),
				s.Seconds)
		}
		if s.Step%saveEvery == 0 || s.Step == steps {
			if err := s.save(checkpoint); err != nil {
				return nil, err
			}
			turned.update(n)
			loss, asked := each(n, turned, passes, test, nil)
			log.Printf("held out: loss %.3f, perplexity %.2f", loss/float64(asked), math.Exp(loss/float64(asked)))
		}
	}
	return n, nil
}

// each runs the sequences, one goroutine for each pass. With grads it also goes back.
func each(n *net, turned turnedNet, passes []*pass, batch []*sequence, grads []*net) (loss float64, asked int) {
	losses, counts := make([]float64, len(batch)), make([]int, len(batch))
	var wg sync.WaitGroup
	for p := range passes {
		wg.Go(func() {
			for i := p; i < len(batch); i += len(passes) {
				losses[i], counts[i] = passes[p].forward(n, turned, batch[i])
				if grads != nil {
					clear(grads[i].all)
					passes[p].backward(n, batch[i], grads[i])
				}
			}
		})
	}
	wg.Wait()
	for i := range losses {
		loss, asked = loss+losses[i], asked+counts[i]
	}
	return loss, asked
}

// update is one step of AdamW with a gradient that is the sum over asked tokens.
func (s *state) update(gradient []float32, asked float64, steps int) {
	var norm float64
	for _, g := range gradient {
		norm += float64(g) * float64(g)
	}
	norm = math.Sqrt(norm) / asked
	factor := float32(1 / asked * min(1, clip/norm))
	rate := topRate * min(1, float64(s.Step)/rise)
	if left := steps - s.Step; left < steps/fall {
		rate = topRate * float64(left+1) / float64(steps/fall)
	}
	c1, c2 := 1-math.Pow(beta1, float64(s.Step)), 1-math.Pow(beta2, float64(s.Step))
	r1, r2 := float32(rate/c1), float32(1/math.Sqrt(c2))
	shrink := float32(1 - rate*decay)
	for i, g := range gradient {
		g *= factor
		m := beta1*s.Mean[i] + (1-beta1)*g
		v := beta2*s.Var[i] + (1-beta2)*g*g
		s.Mean[i], s.Var[i] = m, v
		s.Weights[i] = s.Weights[i]*shrink - r1*m/(float32(math.Sqrt(float64(v)))*r2+1e-8)
	}
}
