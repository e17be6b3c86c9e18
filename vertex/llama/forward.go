package llama

import "math"

// run is one text in progress: the keys and values of its tokens so far, and space for one step. It belongs to one
// goroutine. Its memory grows with the text.
type run struct {
	m            *Model
	keys, values [][]float32 // by layer: kvHeads*head numbers for each token
	length       int         // tokens so far

	x, norm, q, att, out []float32
	gate, up             []float32
	scores               []float32
	logits               []float32
	cos, sin             []float32
}

func (m *Model) start() *run {
	s := m.shape
	f := func(n int) []float32 { return make([]float32, n) }
	return &run{
		m:      m,
		keys:   make([][]float32, s.layers),
		values: make([][]float32, s.layers),
		x:      f(s.width),
		norm:   f(s.width),
		q:      f(s.heads * s.head),
		att:    f(s.heads * s.head),
		out:    f(s.width),
		gate:   f(s.hidden),
		up:     f(s.hidden),
		logits: f(s.vocabulary),
		cos:    f(s.rope / 2),
		sin:    f(s.rope / 2),
	}
}

// step appends a token. With logits, it returns what may follow: one number for each token of the vocabulary, valid
// until the next step.
func (r *run) step(token int, logits bool) []float32 {
	m, s, w := r.m, r.m.shape, &r.m.weights
	copy(r.x, w.embed.row(token))
	for i, a := range m.angles {
		sin, cos := math.Sincos(float64(r.length) * a)
		r.cos[i], r.sin[i] = float32(cos), float32(sin)
	}
	for i := range w.layers {
		l := &w.layers[i]
		normalize(r.norm, r.x, l.attnNorm, s.epsilon)
		l.q.apply(r.q, r.norm)
		k := grow(&r.keys[i], s.kvHeads*s.head)
		l.k.apply(k, r.norm)
		l.v.apply(grow(&r.values[i], s.kvHeads*s.head), r.norm)
		r.rotate(r.q)
		r.rotate(k)
		r.attend(i)
		l.o.apply(r.out, r.att)
		add(r.x, r.out)
		normalize(r.norm, r.x, l.ffnNorm, s.epsilon)
		l.gate.apply(r.gate, r.norm)
		l.up.apply(r.up, r.norm)
		for j, g := range r.gate {
			r.gate[j] = g / (1 + float32(math.Exp(-float64(g)))) * r.up[j]
		}
		l.down.apply(r.out, r.gate)
		add(r.x, r.out)
	}
	r.length++
	if !logits {
		return nil
	}
	normalize(r.norm, r.x, w.norm, s.epsilon)
	w.output.apply(r.logits, r.norm)
	return r.logits
}

// attend sets att to what the heads make of the keys and values of layer i. Several heads share one of them.
func (r *run) attend(i int) {
	s := r.m.shape
	row, shared := s.kvHeads*s.head, s.heads/s.kvHeads
	n := len(r.keys[i]) / row
	scale := 1 / float32(math.Sqrt(float64(s.head)))
	if cap(r.scores) < n {
		r.scores = make([]float32, 2*n)
	}
	scores := r.scores[:n]
	for h := range s.heads {
		at := h / shared * s.head
		q := r.q[h*s.head : (h+1)*s.head]
		for t := range scores {
			scores[t] = dot(q, r.keys[i][t*row+at:t*row+at+s.head]) * scale
		}
		soften(scores)
		out := r.att[h*s.head : (h+1)*s.head]
		clear(out)
		for t, p := range scores {
			for j, v := range r.values[i][t*row+at : t*row+at+s.head] {
				out[j] += p * v
			}
		}
	}
}

// rotate turns the pairs (2i, 2i+1) of each head by the angle of the position: the order that GGUF files of Llama have.
func (r *run) rotate(x []float32) {
	for ; len(x) >= r.m.shape.head; x = x[r.m.shape.head:] {
		for i, c := range r.cos {
			a, b, s := x[2*i], x[2*i+1], r.sin[i]
			x[2*i], x[2*i+1] = a*c-b*s, a*s+b*c
		}
	}
}

// grow appends n numbers and returns them.
func grow(s *[]float32, n int) []float32 {
	*s = append(*s, make([]float32, n)...)
	return (*s)[len(*s)-n:]
}

func add(x, y []float32) {
	for i, v := range y {
		x[i] += v
	}
}

// normalize is RMSNorm.
func normalize(out, x, w []float32, epsilon float64) {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	scale := float32(1 / math.Sqrt(sum/float64(len(x))+epsilon))
	for i, v := range x {
		out[i] = v * scale * w[i]
	}
}

// soften makes probabilities of scores.
func soften(x []float32) {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float32
	for i, v := range x {
		x[i] = float32(math.Exp(float64(v - top)))
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
}
