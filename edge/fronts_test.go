package edge

import (
	"net"
	"testing"
	"time"
)

// Every instance has a listener here, which goes with it. Nothing of it is kept.
func TestListenersAreForgotten(t *testing.T) {
	ca, err := OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{CA: ca, Router: NewRouter(Routes{})})
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.ServeTLS(l, nil) }()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fronts) > 1 { // that of connections which CONNECT turned into TLS stays
		t.Errorf("%d listeners are kept", len(s.fronts))
	}
}
