package main

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkMultiply(b *testing.B) {
	const rows, depth, columns = length, width, hidden
	a, w, c := make([]float32, rows*depth), make([]float32, depth*columns), make([]float32, rows*columns)
	var m multiplier
	for b.Loop() {
		m.multiply(rowsOf(c, columns), rowsOf(a, depth), rowsOf(w, columns), rows, depth, columns, false)
	}
	b.ReportMetric(2*rows*depth*columns*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
}
func BenchmarkMultiplyTurned(b *testing.B) {
	const rows, depth, columns = hidden, length, width
	a, w, c := make([]float32, rows*depth), make([]float32, depth*columns), make([]float32, rows*columns)
	var m multiplier
	for b.Loop() {
		m.multiply(rowsOf(c, columns), rowsOf(a, rows).turned(), rowsOf(w, columns), rows, depth, columns, true)
	}
	b.ReportMetric(2*rows*depth*columns*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
}
func BenchmarkPass(b *testing.B) {
	n, d, turned := newNet(), newNet(), turnedNet{newNet()}
	n.start(1)
	s := &sequence{}
	p := newPass(newAngles())
	for i := range s.start {
		s.start[i] = i / 100 * 100
		s.want[i] = -1 + i%2*5
	}
	turned.update(n)
	for b.Loop() {
		p.forward(n, turned, s)
		p.backward(n, s, d)
	}
}

// The order of the sums does not depend on the width of the vectors, so both ways give the same bits.
func TestVectorsOfBothWidthsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	const depth = 37
	a, b := make([]float32, 8*depth), make([]float32, 16*depth)
	for _, s := range [][]float32{a, b} {
		for i := range s {
			s[i] = rng.Float32() - 0.5
		}
	}
	var m multiplier
	got := make([]float32, 8*16)
	m.multiply(rowsOf(got, 16), rowsOf(a, depth), rowsOf(b, 16), 8, depth, 16, false)
	for i := range 8 {
		for j := range 16 {
			var want float32
			for k := range depth {
				want = fused(a[i*depth+k], b[k*16+j], want)
			}
			if got[i*16+j] != want {
				t.Fatalf("%d, %d: %v, not %v", i, j, got[i*16+j], want)
			}
		}
	}
}
