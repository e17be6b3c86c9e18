package egress

// Devices is how many devices the router's namespace has besides its own two.
func (r *Router) Devices() (int, error) {
	links, err := r.handle.LinkList()
	return len(links) - 2, err
}

// Denied is denied.
var Denied = denied

// FallBack has the router find out that the kernel's path can't be made.
func (r *Router) FallBack(err error) { r.fallBack(err) }

// Packet handles one as if an instance had sent it, whose kernel need not do so.
func (r *Router) Packet(l *Link, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.user == nil {
		l.user, _ = newUserspace(l)
	}
	l.user.packet(b)
}

// Answers makes all answers to a packet.
func Answers(b []byte) {
	if p := parse(b); !p.to.IsValid() {
		return
	}
	transport(b)
	for _, m := range [][]byte{
		noRoute.message(b), prohibited.message(b), reset(b), udpAnswer(make([]byte, udpHeader), b),
	} {
		answerHeader(b, 0, len(m))
	}
}
