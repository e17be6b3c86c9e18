package engine

import (
	"strings"
	"testing"
)

// What the driver tells of a GPU is text from outside.
func FuzzParseGPU(f *testing.F) {
	f.Add("Model: \t NVIDIA L4\nGPU UUID: \t GPU-00000000-1111-2222-3333-000000000001\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\nGPU Excluded:\t No\n")
	f.Add("GPU UUID: GPU-????????-????-????-????-????????????\nDevice Minor: -1")
	f.Fuzz(func(t *testing.T, text string) {
		g, use, err := parseGPU(text)
		if use && (err != nil || len(g.UUID) != 40 || g.Minor < 0 || strings.ContainsAny(g.UUID+g.Bus, "/ \n")) {
			t.Errorf("%q gives %+v, %v", text, g, err)
		}
	})
}
