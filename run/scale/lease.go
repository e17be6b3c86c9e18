package scale

// Transport sends requests to one instance. This package makes none: the sender has Config.Transport make it, takes
// it out of the lease and knows what it is.
type Transport interface{ CloseIdleConnections() }

// Lease is the right to send one request to one instance. It is shared by requests and must not be changed.
type Lease struct {
	Instance  string    // its id
	Transport Transport // sends to the instance, whatever host the request names
	Cold      bool      // the request waited for an instance to start
	release   func()
	on        *running // in place of release
}

// NewLease returns a lease, for those who stand in for a Scaler.
func NewLease(instance string, transport Transport, cold bool, release func()) *Lease {
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
