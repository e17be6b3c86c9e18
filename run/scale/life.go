package scale

import "time"

// life is the coming and going of a revision's instances: what starts and ends, how long a start takes, and what is
// made of starts that fail. The pool's lock guards it.
type life struct {
	starting int
	ending   []*running // being stopped

	startTime time.Duration // average of the starts so far
	failures  int           // starts and instances that failed in a row
	failedAt  time.Time
	failure   error // the last one
	count     counters
}

// counters add up over the life of a pool.
type counters struct {
	starts, failures, ooms int
	billed                 time.Duration // of instances that have ended
	cpu                    time.Duration // the same
	gpu                    time.Duration // of GPUs that were given back
}

// earlyEnd is within which an end counts as a failed start: the app ran, but hardly.
const earlyEnd = 10 * time.Second

// manyFailures in a row are said in the log, and from them on requests are refused for a while.
const manyFailures = 3

// begin notes a start.
func (l *life) begin() {
	l.starting++
	l.count.starts++
}

// came notes that a start which took so long has succeeded. That alone makes up for no failure: the instance may end
// early.
func (l *life) came(took time.Duration) {
	l.starting--
	if l.startTime == 0 {
		l.startTime = took
	}
	l.startTime += (took - l.startTime) / 8
}

// failed notes that an instance did not come up, or ended by itself after a time. It reports whether that has happened
// too often in a row.
func (l *life) failed(now time.Time, after time.Duration, err error) (often bool) {
	if after >= earlyEnd {
		l.failures = 0
	}
	l.failures++
	l.count.failures++
	l.failedAt, l.failure = now, err
	return l.failures >= manyFailures
}

// retryAt is when the next start may be tried, given the delay after so many failures in a row.
func (l *life) retryAt(delay func(failures int) time.Duration) time.Time {
	if l.failures == 0 {
		return time.Time{}
	}
	return l.failedAt.Add(delay(l.failures))
}

// ended notes an instance that is gone, with what it was billed for and used.
func (l *life) ended(r *running, oom bool) {
	for i, x := range l.ending {
		if x == r {
			l.ending = append(l.ending[:i:i], l.ending[i+1:]...)
			break
		}
	}
	if oom {
		l.count.ooms++
	}
	l.count.billed += r.billed.total
	l.count.cpu += r.usage.CPU
}

// minimumDelay is the pause before an instance that only a minimum asks for: 1 s, 2 s, 4 s, … 5 min.
func minimumDelay(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 9), 5*time.Minute)
}

// demandDelay is the pause in which requests are refused instead of starting an instance: none after the first two
// failures, then 0.5 s, 1 s, … 10 s.
func demandDelay(failures int) time.Duration {
	if failures < manyFailures {
		return 0
	}
	return min(time.Second/2<<min(failures-manyFailures, 9), 10*time.Second)
}
