//go:build !goexperiment.simd || !amd64

package main

func fused(x, y, z float32) float32 { return x*y + z }
