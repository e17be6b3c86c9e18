package main

import "math"

// exp is e to the x to about 1e-7 of it, several times as fast as math.Exp: 2 to a whole number, and a series for the
// rest.
func exp(x float32) float32 {
	if x < -87 {
		return 0
	}
	x = min(x, 88)
	n := int32(x*math.Log2E+128.5) - 128                        // with 128 more the cut is a rounding
	r := x - float32(n)*0.693359375 - float32(n)*-2.12194440e-4 // ln 2 in two parts
	p := float32(1.0 / 720)
	p = p*r + 1.0/120
	p = p*r + 1.0/24
	p = p*r + 1.0/6
	p = p*r + 0.5
	p = p*r + 1
	p = p*r + 1
	return p * math.Float32frombits(uint32(n+127)<<23)
}

func sigmoid(x float32) float32 { return 1 / (1 + exp(-x)) }
