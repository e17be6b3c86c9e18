package llama

import (
	"runtime"
	"sync"
)

// parallel is the size of a matrix from which on its rows are shared out among the processors: below it, starting them
// costs more than it brings.
const parallel = 1 << 21

// apply sets out to the matrix times x: out[r] is the row r times x.
func (m matrix) apply(out, x []float32) {
	workers := runtime.GOMAXPROCS(0)
	if len(m.data) < parallel || workers == 1 {
		m.part(out, x, 0, m.rows)
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { m.part(out, x, w*m.rows/workers, (w+1)*m.rows/workers) })
	}
	wg.Wait()
}

// part does the rows from first to end: four at a time, so that x is read once for them.
func (m matrix) part(out, x []float32, first, end int) {
	n := m.columns
	x = x[:n]
	r := first
	for ; r+4 <= end; r += 4 {
		a, b, c, d := m.row(r), m.row(r+1), m.row(r+2), m.row(r+3)
		a, b, c, d = a[:len(x)], b[:len(x)], c[:len(x)], d[:len(x)]
		var a0, b0, c0, d0, a1, b1, c1, d1 float32
		i := 0
		for ; i+1 < len(x); i += 2 {
			v, w := x[i], x[i+1]
			a0 += a[i] * v
			a1 += a[i+1] * w
			b0 += b[i] * v
			b1 += b[i+1] * w
			c0 += c[i] * v
			c1 += c[i+1] * w
			d0 += d[i] * v
			d1 += d[i+1] * w
		}
		for ; i < len(x); i++ {
			a0 += a[i] * x[i]
			b0 += b[i] * x[i]
			c0 += c[i] * x[i]
			d0 += d[i] * x[i]
		}
		out[r], out[r+1], out[r+2], out[r+3] = a0+a1, b0+b1, c0+c1, d0+d1
	}
	for ; r < end; r++ {
		out[r] = dot(m.row(r), x)
	}
}

func (m matrix) row(r int) []float32 { return m.data[r*m.columns : (r+1)*m.columns : (r+1)*m.columns] }

func dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+3 < len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + s2 + s3
}
