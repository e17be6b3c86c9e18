package enginetest

import (
	"net"
	"syscall"
)

const errRefused = syscall.ECONNREFUSED

// listener hands an instance's connections to its server.
type listener struct{ i *Instance }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.i.conns:
		return c, nil
	case <-l.i.done:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(169, 254, 8, 1), Port: l.i.port} }
