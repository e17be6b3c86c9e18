package scale

import (
	"net/http"
	"time"
)

// Lease is the right to send one request to one instance. It is shared by requests and must not be changed.
type Lease struct {
	Instance  string            // its id
	Transport http.RoundTripper // sends to the instance, whatever host the request names
	Cold      bool              // the request waited for an instance to start
	Started   time.Duration     // what the instance's start took, until its startup probe succeeded
	release   func()
	on        *running // in place of release
}

// NewLease returns a lease, for those who stand in for a Scaler.
func NewLease(instance string, transport http.RoundTripper, cold bool, release func()) *Lease {
	return &Lease{Instance: instance, Transport: transport, Cold: cold, release: release}
}

// Release gives the slot back. It is called once for each Acquire.
func (l *Lease) Release() {
	if l.on != nil {
		l.on.pool.release(l.on)
		return
	}
	l.release()
}
