package bench

import (
	"fmt"
	"math/bits"
	"strings"
)

// spread is a histogram of times: how many were below 1, 2, 4, … ms and not below the half of it.
type spread struct {
	From   float64 `json:"from"` // ms: the lower bound of the first count, 0 or a power of two
	Counts []int   `json:"counts"`
}

func spreadOf(s series) spread {
	counts := make([]int, 0, 24)
	for _, d := range s {
		at := bits.Len64(uint64(max(0, d.Milliseconds())))
		for len(counts) <= at {
			counts = append(counts, 0)
		}
		counts[at]++
	}
	first := 0
	for first < len(counts) && counts[first] == 0 {
		first++
	}
	out := spread{Counts: counts[first:]}
	if first > 0 {
		out.From = float64(uint64(1) << (first - 1))
	}
	return out
}

// String is one line of text: a bar for each count, between the bounds.
func (s spread) String() string {
	if len(s.Counts) == 0 {
		return ""
	}
	bars := []rune(" ▁▂▃▄▅▆▇█")
	most := 0
	for _, n := range s.Counts {
		most = max(most, n)
	}
	var b strings.Builder
	end := max(s.From, 0.5)
	for _, n := range s.Counts {
		b.WriteRune(bars[(n*(len(bars)-1)+most-1)/most])
		end *= 2
	}
	return fmt.Sprintf("%g %s %g ms", s.From, &b, end)
}
