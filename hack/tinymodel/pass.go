package main

import "math"

// sequence is what one pass is about: tokens, for each of them the one that should follow (or -1: not asked), and the
// first position of the conversation that it belongs to; nothing before that is seen.
type sequence struct {
	tokens, want, start [length]int
}

// kept is what a layer's way forward leaves for the way back.
type kept struct {
	x, n1, q, k, v, kT, vT, att, mid, n2, g, u, h, s []float32
	p                                                []float32 // heads × length × length
	inv1, inv2                                       []float32
}

// pass is the space for one sequence, forward and back. It belongs to one goroutine.
type pass struct {
	multiplier
	angles angles
	layers [layers]kept
	x, n   []float32
	inv    []float32
	rows   []int // positions that are asked
	asked  []float32
	logits []float32

	dx, dn, da, dq, dk, dv, dh, dg, du, ds, dasked []float32
}

func newPass(a angles) *pass {
	f := func(columns int) []float32 { return make([]float32, length*columns) }
	p := &pass{
		angles: a,
		x:      f(width),
		n:      f(width),
		inv:    f(1),
		asked:  f(width),
		logits: f(vocabularySize),
		dx:     f(width),
		dn:     f(width),
		da:     f(width),
		dq:     f(width),
		dk:     f(kvWidth),
		dv:     f(kvWidth),
		dh:     f(hidden),
		dg:     f(hidden),
		du:     f(hidden),
		ds:     f(block),
		dasked: f(width),
	}
	p.ds = make([]float32, block*length)
	for i := range p.layers {
		p.layers[i] = kept{
			x:    f(width),
			n1:   f(width),
			q:    f(width),
			k:    f(kvWidth),
			v:    f(kvWidth),
			kT:   f(kvWidth),
			vT:   f(kvWidth),
			att:  f(width),
			mid:  f(width),
			n2:   f(width),
			g:    f(hidden),
			u:    f(hidden),
			h:    f(hidden),
			s:    f(hidden),
			p:    make([]float32, heads*length*length),
			inv1: f(1),
			inv2: f(1),
		}
	}
	return p
}

// turnedNet are the weights with rows and columns exchanged, made once a step.
type turnedNet struct{ *net }

func (t turnedNet) update(n *net) {
	t.names(func(name string, dst *[]float32, rows, columns int) {
		if rows == 0 {
			return
		}
		n.names(func(other string, src *[]float32, _, _ int) {
			if other == name {
				transpose(*dst, *src, rows, columns)
			}
		})
	})
}

// forward runs the sequence and returns the sum of the losses (in nats) and the number of tokens that were asked. The
// gradient of the logits is left in p.logits.
func (p *pass) forward(n *net, tn turnedNet, s *sequence) (loss float64, asked int) {
	for t, id := range s.tokens {
		copy(p.x[t*width:(t+1)*width], n.embed[id*width:(id+1)*width])
	}
	for i := range n.layers {
		l, tl, k := &n.layers[i], &tn.layers[i], &p.layers[i]
		copy(k.x, p.x)
		normalize(k.n1, k.inv1, p.x, l.attnNorm)
		a := rowsOf(k.n1, width)
		p.multiply(rowsOf(k.q, width), a, rowsOf(tl.q, width), length, width, width, false)
		p.multiply(rowsOf(k.k, kvWidth), a, rowsOf(tl.k, kvWidth), length, width, kvWidth, false)
		p.multiply(rowsOf(k.v, kvWidth), a, rowsOf(tl.v, kvWidth), length, width, kvWidth, false)
		p.angles.rotate(k.q, width, false)
		p.angles.rotate(k.k, kvWidth, false)
		transpose(k.kT, k.k, length, kvWidth)
		transpose(k.vT, k.v, length, kvWidth)
		p.attend(k, s)
		p.multiply(rowsOf(p.x, width), rowsOf(k.att, width), rowsOf(tl.o, width), length, width, width, true)
		copy(k.mid, p.x)
		normalize(k.n2, k.inv2, p.x, l.ffnNorm)
		a = rowsOf(k.n2, width)
		p.multiply(rowsOf(k.g, hidden), a, rowsOf(tl.gate, hidden), length, width, hidden, false)
		p.multiply(rowsOf(k.u, hidden), a, rowsOf(tl.up, hidden), length, width, hidden, false)
		for j, g := range k.g {
			k.s[j] = sigmoid(g)
			k.h[j] = g * k.s[j] * k.u[j]
		}
		p.multiply(rowsOf(p.x, width), rowsOf(k.h, hidden), rowsOf(tl.down, width), length, hidden, width, true)
	}
	normalize(p.n, p.inv, p.x, n.norm)
	p.rows = p.rows[:0]
	for t, w := range s.want {
		if w >= 0 {
			copy(p.asked[len(p.rows)*width:], p.n[t*width:(t+1)*width])
			p.rows = append(p.rows, t)
		}
	}
	padded := (len(p.rows) + tileRows - 1) / tileRows * tileRows
	clear(p.asked[len(p.rows)*width : padded*width])
	p.multiply(rowsOf(p.logits, vocabularySize), rowsOf(p.asked, width), rowsOf(tn.embed, vocabularySize), padded,
		width, vocabularySize, false)
	clear(p.logits[len(p.rows)*vocabularySize : padded*vocabularySize])
	for r, t := range p.rows {
		row := p.logits[r*vocabularySize : (r+1)*vocabularySize]
		loss += crossEntropy(row, s.want[t])
	}
	return loss, len(p.rows)
}

// crossEntropy returns -log of the probability of want, and leaves the gradient in the logits.
func crossEntropy(row []float32, want int) float64 {
	top := row[0]
	for _, v := range row {
		top = max(top, v)
	}
	w := float64(row[want] - top)
	var sum float64
	for i, v := range row {
		e := exp(v - top)
		row[i] = e
		sum += float64(e)
	}
	inverse := float32(1 / sum)
	for i := range row {
		row[i] *= inverse
	}
	row[want]--
	return math.Log(sum) - w
}

var scale = float32(1 / math.Sqrt(headWidth))

// attend fills k.att and k.p, block by block.
func (p *pass) attend(k *kept, s *sequence) {
	for h := range heads {
		q, kv := h*headWidth, h*kvHeads/heads*headWidth
		probs := rowsOf(k.p[h*length*length:(h+1)*length*length], length)
		for i := 0; i < length; i += block {
			j := s.start[i] / block * block
			n := i + block - j
			at := probs.from(i, j)
			p.multiply(at, rowsOf(k.q, width).from(i, q), rowsOf(k.kT, length).from(kv, j), block, headWidth, n, false)
			for t := i; t < i+block; t++ {
				row := probs.data[t*length+j : t*length+i+block]
				soften(row, s.start[t]-j, t+1-j)
			}
			p.multiply(rowsOf(k.att, width).from(i, q), at, rowsOf(k.v, kvWidth).from(j, kv), block, n, headWidth,
				false)
		}
	}
}

// soften is the softmax of the scaled row from first to end; the rest becomes 0.
func soften(row []float32, first, end int) {
	clear(row[:first])
	clear(row[end:])
	row = row[first:end]
	top := row[0]
	for _, v := range row {
		top = max(top, v)
	}
	var sum float32
	for i, v := range row {
		row[i] = exp((v - top) * scale)
		sum += row[i]
	}
	inverse := 1 / sum
	for i := range row {
		row[i] *= inverse
	}
}

// backward adds the gradients of the sequence, which forward ran last, to d.
func (p *pass) backward(n *net, s *sequence, d *net) {
	padded := (len(p.rows) + tileRows - 1) / tileRows * tileRows
	dl := rowsOf(p.logits, vocabularySize)
	p.multiply(rowsOf(p.dasked, width), dl, rowsOf(n.embed, width), padded, vocabularySize, width, false)
	p.multiply(rowsOf(d.embed, width), dl.turned(), rowsOf(p.asked, width), vocabularySize, padded, width, true)
	clear(p.dn)
	for r, t := range p.rows {
		copy(p.dn[t*width:(t+1)*width], p.dasked[r*width:(r+1)*width])
	}
	clear(p.dx)
	unnormalize(p.dx, d.norm, p.dn, p.x, p.inv, n.norm)
	for i := layers - 1; i >= 0; i-- {
		l, dl, k := &n.layers[i], &d.layers[i], &p.layers[i]
		dx := rowsOf(p.dx, width)
		p.multiply(rowsOf(p.dh, hidden), dx, rowsOf(l.down, hidden), length, width, hidden, false)
		p.multiply(rowsOf(dl.down, hidden), dx.turned(), rowsOf(k.h, hidden), width, length, hidden, true)
		for j, g := range k.g {
			sg := k.s[j]
			p.du[j] = p.dh[j] * g * sg
			p.dg[j] = p.dh[j] * k.u[j] * sg * (1 + g*(1-sg))
		}
		dg, du := rowsOf(p.dg, hidden), rowsOf(p.du, hidden)
		p.multiply(rowsOf(p.dn, width), dg, rowsOf(l.gate, width), length, hidden, width, false)
		p.multiply(rowsOf(p.dn, width), du, rowsOf(l.up, width), length, hidden, width, true)
		p.multiply(rowsOf(dl.gate, width), dg.turned(), rowsOf(k.n2, width), hidden, length, width, true)
		p.multiply(rowsOf(dl.up, width), du.turned(), rowsOf(k.n2, width), hidden, length, width, true)
		unnormalize(p.dx, dl.ffnNorm, p.dn, k.mid, k.inv2, l.ffnNorm)

		p.multiply(rowsOf(p.da, width), dx, rowsOf(l.o, width), length, width, width, false)
		p.multiply(rowsOf(dl.o, width), dx.turned(), rowsOf(k.att, width), width, length, width, true)
		p.attendBack(k, s)
		p.angles.rotate(p.dq, width, true)
		p.angles.rotate(p.dk, kvWidth, true)
		dq, dk, dv := rowsOf(p.dq, width), rowsOf(p.dk, kvWidth), rowsOf(p.dv, kvWidth)
		p.multiply(rowsOf(p.dn, width), dq, rowsOf(l.q, width), length, width, width, false)
		p.multiply(rowsOf(p.dn, width), dk, rowsOf(l.k, width), length, kvWidth, width, true)
		p.multiply(rowsOf(p.dn, width), dv, rowsOf(l.v, width), length, kvWidth, width, true)
		n1 := rowsOf(k.n1, width)
		p.multiply(rowsOf(dl.q, width), dq.turned(), n1, width, length, width, true)
		p.multiply(rowsOf(dl.k, width), dk.turned(), n1, kvWidth, length, width, true)
		p.multiply(rowsOf(dl.v, width), dv.turned(), n1, kvWidth, length, width, true)
		unnormalize(p.dx, dl.attnNorm, p.dn, k.x, k.inv1, l.attnNorm)
	}
	for t, id := range s.tokens {
		row := d.embed[id*width : (id+1)*width]
		for i, v := range p.dx[t*width : (t+1)*width] {
			row[i] += v
		}
	}
}

// attendBack sets dq, dk and dv from da.
func (p *pass) attendBack(k *kept, s *sequence) {
	clear(p.dq)
	clear(p.dk)
	clear(p.dv)
	for h := range heads {
		q, kv := h*headWidth, h*kvHeads/heads*headWidth
		probs := rowsOf(k.p[h*length*length:(h+1)*length*length], length)
		for i := 0; i < length; i += block {
			j := s.start[i] / block * block
			n := i + block - j
			at, da := probs.from(i, j), rowsOf(p.da, width).from(i, q)
			p.multiply(rowsOf(p.dv, kvWidth).from(j, kv), at.turned(), da, n, block, headWidth, true)
			ds := rowsOf(p.ds, length)
			p.multiply(ds, da, rowsOf(k.vT, length).from(kv, j), block, headWidth, n, false)
			for t := range block {
				row, pr := p.ds[t*length:t*length+n], at.data[t*length:t*length+n]
				var dot float32
				for c, v := range row {
					dot += v * pr[c]
				}
				for c, v := range row {
					row[c] = pr[c] * (v - dot) * scale
				}
			}
			p.multiply(rowsOf(p.dq, width).from(i, q), ds, rowsOf(k.k, kvWidth).from(j, kv), block, n, headWidth, true)
			p.multiply(rowsOf(p.dk, kvWidth).from(j, kv), ds.turned(), rowsOf(k.q, width).from(i, q), n, block,
				headWidth, true)
		}
	}
}
