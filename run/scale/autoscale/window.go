package autoscale

import "time"

// Window averages samples over the time before now. The zero Window is empty. Samples come in order of time, at least
// one a second; a gap counts as 0.
type Window struct {
	cells [61]cell // one for each second, by its number
	first int64    // second of the first sample ever
	any   bool
}

type cell struct {
	second int64
	sum    float64
	n      int
}

// Record adds a sample.
func (w *Window) Record(now time.Time, v float64) {
	s := now.Unix()
	if !w.any {
		w.first, w.any = s, true
	}
	c := &w.cells[uint64(s)%uint64(len(w.cells))]
	if c.second != s {
		*c = cell{second: s}
	}
	c.sum += v
	c.n++
}

// Average is the average over the last d, which is at most a minute, or since the first sample where that is later.
func (w *Window) Average(now time.Time, d time.Duration) float64 {
	seconds := w.seconds(d)
	if since := now.Unix() - w.first + 1; w.any && since < seconds {
		seconds = max(since, 1)
	}
	return w.sum(now, seconds) / float64(seconds)
}

// Whole is the average over all of the last d; what was before the first sample counts as 0.
func (w *Window) Whole(now time.Time, d time.Duration) float64 {
	seconds := w.seconds(d)
	return w.sum(now, seconds) / float64(seconds)
}

func (w *Window) seconds(d time.Duration) int64 {
	return min(max(int64((d+time.Second-1)/time.Second), 1), int64(len(w.cells)-1))
}

// sum adds up the averages of the last seconds.
func (w *Window) sum(now time.Time, seconds int64) (total float64) {
	s := now.Unix()
	for k := range w.cells {
		if c := &w.cells[k]; c.n > 0 && c.second <= s && c.second > s-seconds {
			total += c.sum / float64(c.n)
		}
	}
	return total
}
