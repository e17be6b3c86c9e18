package scale

// queue is the requests that wait for a slot, first come, first served. All its operations take constant time.
type queue struct {
	first, last *waiter
	n           int
}

// waiter is one waiting request.
type waiter struct {
	turn       chan grant // takes one without blocking
	prev, next *waiter
	queued     bool
}

// grant is the answer to a waiting request.
type grant struct {
	to  *running
	err error
}

func (q *queue) push() *waiter {
	w := &waiter{turn: make(chan grant, 1), prev: q.last, queued: true}
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.n++
	return w
}

// remove takes a waiter out, and reports whether it was in.
func (q *queue) remove(w *waiter) bool {
	if !w.queued {
		return false
	}
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.n--
	return true
}

// grant answers the first waiter.
func (q *queue) grant(g grant) {
	w := q.first
	q.remove(w)
	w.turn <- g
}

// fail answers all.
func (q *queue) fail(err error) {
	for q.n > 0 {
		q.grant(grant{err: err})
	}
}
