package main

import (
	"math"
	"math/rand/v2"
)

// The shape of the model. All widths are multiples of 32, so that Q8_0 can hold every row.
const (
	vocabularySize = 1024
	width          = 128
	layers         = 4
	heads          = 4
	headWidth      = width / heads
	kvHeads        = 2
	kvWidth        = kvHeads * headWidth
	hidden         = 384
	length         = 512 // tokens of one sequence
	epsilon        = 1e-5
	ropeBase       = 10000
	block          = 64 // rows of attention that are done together
)

// layer is the weights of one layer, or their gradients: rows are outputs.
type layer struct {
	attnNorm, q, k, v, o    []float32
	ffnNorm, gate, up, down []float32
}

// net is the weights, or their gradients, as views of one array.
type net struct {
	all    []float32
	embed  []float32 // also the output
	layers [layers]layer
	norm   []float32
}

// names calls do with every tensor, its name in a GGUF file, and its shape: rows (0 for a vector) and columns.
func (n *net) names(do func(name string, t *[]float32, rows, columns int)) {
	do("token_embd.weight", &n.embed, vocabularySize, width)
	for i := range n.layers {
		l, p := &n.layers[i], "blk."+string(rune('0'+i))+"."
		do(p+"attn_norm.weight", &l.attnNorm, 0, width)
		do(p+"attn_q.weight", &l.q, width, width)
		do(p+"attn_k.weight", &l.k, kvWidth, width)
		do(p+"attn_v.weight", &l.v, kvWidth, width)
		do(p+"attn_output.weight", &l.o, width, width)
		do(p+"ffn_norm.weight", &l.ffnNorm, 0, width)
		do(p+"ffn_gate.weight", &l.gate, hidden, width)
		do(p+"ffn_up.weight", &l.up, hidden, width)
		do(p+"ffn_down.weight", &l.down, width, hidden)
	}
	do("output_norm.weight", &n.norm, 0, width)
}

func newNet() *net {
	n, size := &net{}, 0
	n.names(func(_ string, _ *[]float32, rows, columns int) { size += max(rows, 1) * columns })
	n.all = make([]float32, size)
	rest := n.all
	n.names(func(_ string, t *[]float32, rows, columns int) {
		*t, rest = rest[:max(rows, 1)*columns], rest[max(rows, 1)*columns:]
	})
	return n
}

// start sets random weights: small ones, those that add to the residual smaller still; norms are 1.
func (n *net) start(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	n.names(func(name string, t *[]float32, rows, columns int) {
		std := 1 / math.Sqrt(float64(columns))
		switch name[len(name)-9:] {
		case "ut.weight", "wn.weight": // attn_output, ffn_down
			std /= math.Sqrt(2 * layers)
		case "bd.weight":
			std = 0.02
		}
		for i := range *t {
			if rows == 0 {
				(*t)[i] = 1
				continue
			}
			(*t)[i] = float32(rng.NormFloat64() * std)
		}
	})
}

// normalize is RMSNorm: out = x / rms(x) * w; it keeps 1/rms of each row.
func normalize(out, inv, x, w []float32) {
	for t := range inv {
		row := x[t*width : t*width+width]
		var sum float64
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
		r := float32(1 / math.Sqrt(sum/width+epsilon))
		inv[t] = r
		o := out[t*width : t*width+width]
		for i, v := range row {
			o[i] = v * r * w[i]
		}
	}
}

// unnormalize adds to dx and dw what comes back through normalize.
func unnormalize(dx, dw, dout, x, inv, w []float32) {
	for t, r := range inv {
		row, do, d := x[t*width:t*width+width], dout[t*width:t*width+width], dx[t*width:t*width+width]
		var dot float32
		for i, v := range row {
			dw[i] += do[i] * v * r
			dot += do[i] * w[i] * v
		}
		k := dot * r * r * r / width
		for i, v := range row {
			d[i] += do[i]*w[i]*r - v*k
		}
	}
}

// angles are cosine and sine of the positions for each pair of a head.
type angles struct{ cos, sin []float32 }

func newAngles() angles {
	a := angles{make([]float32, length*headWidth/2), make([]float32, length*headWidth/2)}
	for t := range length {
		for i := range headWidth / 2 {
			s, c := math.Sincos(float64(t) * math.Pow(ropeBase, -2*float64(i)/headWidth))
			a.cos[t*headWidth/2+i], a.sin[t*headWidth/2+i] = float32(c), float32(s)
		}
	}
	return a
}

// rotate turns the pairs (2i, 2i+1) of every head by the angle of the row's position; back turns them back.
func (a angles) rotate(x []float32, columns int, back bool) {
	for t := range length {
		row := x[t*columns : (t+1)*columns]
		for i := 0; i < columns; i += 2 {
			p := t*headWidth/2 + i%headWidth/2
			c, s := a.cos[p], a.sin[p]
			if back {
				s = -s
			}
			row[i], row[i+1] = row[i]*c-row[i+1]*s, row[i]*s+row[i+1]*c
		}
	}
}
