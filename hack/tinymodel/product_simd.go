//go:build goexperiment.simd && amd64

package main

import "simd/archsimd"

// kernel names the way of the sums: every element is a chain of fused products in their order, whatever the width of
// the vectors is.
const kernel = "fused"

// wide says that the processor has vectors of 16.
var wide = archsimd.X86.AVX512()

// tile sets eight rows and sixteen columns of c, whose rows are ldc apart, or adds to them: the product of a, which has
// its eight rows side by side, and b.
func tile(c []float32, ldc int, a, b []float32, depth int, add bool) {
	if wide {
		tile16(c, ldc, a, b, depth, add)
		return
	}
	tile8(c, ldc, a, b, depth, add)
	tile8(c[4*ldc:], ldc, a[4:], b, depth, add)
}

// tile16 has one vector for each row.
func tile16(c []float32, ldc int, a, b []float32, depth int, add bool) {
	var c0, c1, c2, c3, c4, c5, c6, c7 archsimd.Float32x16
	load := archsimd.LoadFloat32x16
	r0, r1, r2, r3 := (*[16]float32)(c), (*[16]float32)(c[ldc:]), (*[16]float32)(c[2*ldc:]), (*[16]float32)(c[3*ldc:])
	r4, r5 := (*[16]float32)(c[4*ldc:]), (*[16]float32)(c[5*ldc:])
	r6, r7 := (*[16]float32)(c[6*ldc:]), (*[16]float32)(c[7*ldc:])
	if add {
		c0, c1, c2, c3 = load(r0), load(r1), load(r2), load(r3)
		c4, c5, c6, c7 = load(r4), load(r5), load(r6), load(r7)
	}
	for range depth {
		rows := (*[8]float32)(a)
		line := archsimd.LoadFloat32x16((*[16]float32)(b))
		c0 = archsimd.BroadcastFloat32x16(rows[0]).MulAdd(line, c0)
		c1 = archsimd.BroadcastFloat32x16(rows[1]).MulAdd(line, c1)
		c2 = archsimd.BroadcastFloat32x16(rows[2]).MulAdd(line, c2)
		c3 = archsimd.BroadcastFloat32x16(rows[3]).MulAdd(line, c3)
		c4 = archsimd.BroadcastFloat32x16(rows[4]).MulAdd(line, c4)
		c5 = archsimd.BroadcastFloat32x16(rows[5]).MulAdd(line, c5)
		c6 = archsimd.BroadcastFloat32x16(rows[6]).MulAdd(line, c6)
		c7 = archsimd.BroadcastFloat32x16(rows[7]).MulAdd(line, c7)
		a, b = a[8:], b[16:]
	}
	c0.Store(r0)
	c1.Store(r1)
	c2.Store(r2)
	c3.Store(r3)
	c4.Store(r4)
	c5.Store(r5)
	c6.Store(r6)
	c7.Store(r7)
}

// tile8 does four of the rows, with two vectors for each.
func tile8(c []float32, ldc int, a, b []float32, depth int, add bool) {
	var c00, c01, c10, c11, c20, c21, c30, c31 archsimd.Float32x8
	r0, r1, r2, r3 := (*[16]float32)(c), (*[16]float32)(c[ldc:]), (*[16]float32)(c[2*ldc:]), (*[16]float32)(c[3*ldc:])
	if add {
		c00, c01 = archsimd.LoadFloat32x8((*[8]float32)(r0[:8])), archsimd.LoadFloat32x8((*[8]float32)(r0[8:]))
		c10, c11 = archsimd.LoadFloat32x8((*[8]float32)(r1[:8])), archsimd.LoadFloat32x8((*[8]float32)(r1[8:]))
		c20, c21 = archsimd.LoadFloat32x8((*[8]float32)(r2[:8])), archsimd.LoadFloat32x8((*[8]float32)(r2[8:]))
		c30, c31 = archsimd.LoadFloat32x8((*[8]float32)(r3[:8])), archsimd.LoadFloat32x8((*[8]float32)(r3[8:]))
	}
	for k := range depth {
		line, rows := (*[16]float32)(b[k*16:]), (*[4]float32)(a[k*8:])
		b0, b1 := archsimd.LoadFloat32x8((*[8]float32)(line[:8])), archsimd.LoadFloat32x8((*[8]float32)(line[8:]))
		x := archsimd.BroadcastFloat32x8(rows[0])
		c00, c01 = x.MulAdd(b0, c00), x.MulAdd(b1, c01)
		x = archsimd.BroadcastFloat32x8(rows[1])
		c10, c11 = x.MulAdd(b0, c10), x.MulAdd(b1, c11)
		x = archsimd.BroadcastFloat32x8(rows[2])
		c20, c21 = x.MulAdd(b0, c20), x.MulAdd(b1, c21)
		x = archsimd.BroadcastFloat32x8(rows[3])
		c30, c31 = x.MulAdd(b0, c30), x.MulAdd(b1, c31)
	}
	c00.Store((*[8]float32)(r0[:8]))
	c01.Store((*[8]float32)(r0[8:]))
	c10.Store((*[8]float32)(r1[:8]))
	c11.Store((*[8]float32)(r1[8:]))
	c20.Store((*[8]float32)(r2[:8]))
	c21.Store((*[8]float32)(r2[8:]))
	c30.Store((*[8]float32)(r3[:8]))
	c31.Store((*[8]float32)(r3[8:]))
}
