package egress

import (
	"net"
	"testing"
)

// The instance's side of a connection that comes when its flow ends is broken off: nobody else would end it.
func TestLateConnectionIsBrokenOff(t *testing.T) {
	outside, other := net.Pipe()
	defer other.Close()
	k := flowKey{protocol: 6, port: 1}
	f := &flow{key: k, conn: outside, accepted: make(chan *accepted, 1)}
	u := &userspace{l: &Link{r: &Router{}}, flows: map[flowKey]*flow{k: f}}
	u.works.Add(1) // as admit does
	aborted := false
	if !u.claim(k, &accepted{conn: (*net.TCPConn)(nil), abort: func() { aborted = true }}) {
		t.Fatal("the flow does not take its connection")
	}
	u.leave(f)
	if !aborted {
		t.Error("the connection goes on")
	}
	if u.claim(k, nil) {
		t.Error("the flow has not ended")
	}
}
