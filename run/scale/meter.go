package scale

import "time"

// meter counts the time of an instance that is billed: all of it, or its start, its end and the time in which it has
// requests, however many at once, in steps of about a tenth of a second
// (https://cloud.google.com/run/docs/configuring/billing-settings).
type meter struct {
	total time.Duration
	since time.Time // zero while nothing counts
}

func (m *meter) begin(now time.Time) {
	if m.since.IsZero() {
		m.since = now
	}
}

func (m *meter) end(now time.Time) {
	if !m.since.IsZero() {
		m.total += now.Sub(m.since)
		m.since = time.Time{}
	}
}

func (m *meter) read(now time.Time) time.Duration {
	if m.since.IsZero() {
		return m.total
	}
	return m.total + now.Sub(m.since)
}
