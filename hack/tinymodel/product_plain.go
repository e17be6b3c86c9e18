//go:build !goexperiment.simd || !amd64

package main

// kernel names the way of the sums: the results depend on their order.
const kernel = "plain"

// tile is the portable form: see product_simd.go.
func tile(c []float32, ldc int, a, b []float32, depth int, add bool) {
	for i := range tileRows {
		var sum [tileColumns]float32
		if add {
			copy(sum[:], c[i*ldc:])
		}
		for k := range depth {
			x := a[k*tileRows+i]
			line := (*[tileColumns]float32)(b[k*tileColumns:])
			for j := range sum {
				sum[j] += x * line[j]
			}
		}
		copy(c[i*ldc:i*ldc+tileColumns], sum[:])
	}
}
