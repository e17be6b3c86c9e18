package relay_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"giggle/relay"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func connect(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// serve relays a listener to another one, and returns a channel that hears of its end.
func serve(l, to net.Listener) chan error {
	ended := make(chan error, 1)
	go func() {
		ended <- relay.Serve(l, func(ctx context.Context, _ net.Conn) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.Addr().String())
		})
	}()
	return ended
}

// One side's end leaves the other way open: the answer to what was sent before still comes.
func TestHalfClose(t *testing.T) {
	front, back := listen(t), listen(t)
	serve(front, back)
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
	}()
	c := connect(t, front)
	sent := bytes.Repeat([]byte("joke "), 100_000)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, bytes.ToUpper(sent)) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(sent))
	}
}

// What can't be dialled, and what the other end resets, is reset here.
func TestFailuresAreNoGoodEnds(t *testing.T) {
	front, back := listen(t), listen(t)
	serve(front, back)
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := back.Accept(); err == nil {
			accepted <- c
		}
	}()
	c := connect(t, front)
	io.WriteString(c, "x")
	far := <-accepted
	io.ReadFull(far, make([]byte, 1))
	far.(*net.TCPConn).SetLinger(0)
	far.Close()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %d bytes, %v, want a reset", n, err)
	}

	back.Close()
	lost, err := net.Dial("tcp", front.Addr().String())
	if err == nil { // it may be reset before Dial has seen it stand
		defer lost.Close()
		lost.SetDeadline(time.Now().Add(time.Minute))
		_, err = lost.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("with nobody behind it: %v, want a reset", err)
	}
}

// The listener's end is that of all its connections, on both sides.
func TestServeEndsWithItsListener(t *testing.T) {
	front, back := listen(t), listen(t)
	ended := serve(front, back)
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := back.Accept(); err == nil {
			accepted <- c
		}
	}()
	c := connect(t, front)
	far := <-accepted
	defer far.Close()
	front.Close()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
	far.SetDeadline(time.Now().Add(time.Minute))
	for side, c := range map[string]net.Conn{"near": c, "far": far} {
		var timeout net.Error
		if n, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the %s side read %d bytes, %v: want its end", side, n, err)
		}
	}
}
