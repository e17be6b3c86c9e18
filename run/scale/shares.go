package scale

import (
	"slices"

	"giggle/run"
)

// bounds are the least and the most instances of one revision.
type bounds struct{ min, max int }

// shares spreads the bounds of a whole service over the revisions that its traffic goes to, by their percents
// (https://cloud.google.com/run/docs/configuring/min-instances and …/max-instances). What has no share, because only
// a tag leads to it, gets no minimum and the whole maximum. The sum of the minimums is the service's.
func shares(s run.Scaling, percents []int) []bounds {
	out := make([]bounds, len(percents))
	least := split(s.Min, percents)
	for i, p := range percents {
		out[i] = bounds{least[i], s.Max}
		if p > 0 && s.Max > 0 {
			out[i].max = max((s.Max*p+50)/100, 1)
		}
	}
	return out
}

// split divides n by percents so that the parts add up to n: what rounding leaves goes to the largest remainders.
func split(n int, percents []int) []int {
	out, order, left := make([]int, len(percents)), make([]int, len(percents)), n
	for i, p := range percents {
		out[i], order[i] = n*p/100, i
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return n*percents[b]%100 - n*percents[a]%100 })
	for _, i := range order {
		if left > 0 && percents[i] > 0 {
			out[i]++
			left--
		}
	}
	return out
}

// combine is what holds for a revision with bounds of its own and a share of its service's. Most is the platform's
// maximum.
func combine(own run.Scaling, share bounds, most int) bounds {
	b := bounds{max(own.Min, share.min), most}
	if own.Max > 0 {
		b.max = own.Max
	}
	if share.max > 0 {
		b.max = min(b.max, share.max)
	}
	b.min = min(b.min, b.max)
	return b
}
