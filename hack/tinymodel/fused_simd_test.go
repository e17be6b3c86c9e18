//go:build goexperiment.simd && amd64

package main

import "math"

// A float64 holds the product of two float32 exactly, so this rounds once more than a fused product at most in the last
// bit of a double: never seen in a float32.
func fused(x, y, z float32) float32 { return float32(math.FMA(float64(x), float64(y), float64(z))) }
