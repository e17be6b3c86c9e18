package egress

import (
	"fmt"
	"sync"
	"time"
)

const (
	// again is how long a refusal that was said is not said once more.
	again = time.Minute
	// mostSaid is how many refusals of one instance are remembered, and so are said in that time.
	mostSaid = 20
)

// Say returns a receiver of an instance's drops that says each in words, with the flag that opens the way: once a
// minute, and of no more than twenty destinations.
func Say(say func(text string), now func() time.Time) func(Drop) {
	var mu sync.Mutex
	said := make(map[Drop]time.Time)
	return func(d Drop) {
		mu.Lock()
		defer mu.Unlock()
		t := now()
		if last, ok := said[d]; ok && t.Sub(last) < again {
			return
		}
		for old, at := range said {
			if t.Sub(at) >= again {
				delete(said, old)
			}
		}
		if len(said) >= mostSaid {
			return
		}
		said[d] = t
		say(d.String())
	}
}

// String says what was dropped, and the flag that opens the way.
func (d Drop) String() string {
	to, open := d.To.String(), Allow{To: host(d.To.Addr()), Port: d.To.Port()}
	if d.To.Port() == 0 {
		to = d.To.Addr().String()
	}
	if d.Unsupported {
		return fmt.Sprintf("Egress to %s (%s) was refused: on this machine the platform passes only TCP and UDP on, "+
			"in userspace (`giggle doctor` says why).", to, d.Protocol)
	}
	if d.Crowded {
		return fmt.Sprintf("Egress to %s (%s) was refused: the instance has too many connections to the outside open.",
			to, d.Protocol)
	}
	return fmt.Sprintf("Egress to %s (%s) was refused: the platform was not told to open this address. "+
		"Start it with `giggle up --egress-allow %s`; for a service of this machine, with --host-port.", to, d.Protocol, open)
}
