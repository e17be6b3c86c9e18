package hostports_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"giggle/fault"
	"giggle/hostports"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]hostports.Port{
		"5432":         {Number: 5432},
		"giggle:1":     {Project: "giggle", Number: 1},
		"my-own:65535": {Project: "my-own", Number: 65535},
	} {
		if got, err := hostports.Parse(text); err != nil || got != want {
			t.Errorf("%q = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65536", "-1", "+1", "http", "5432/tcp", ":5432", "Upper:5432", "a:5432",
		"giggle:", "127.0.0.1:5432", "[::1]:5432", "a=5432"} {
		if got, err := hostports.Parse(text); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%q = %v, %v, want INVALID_ARGUMENT", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("giggle:5432")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := hostports.Parse(text); err == nil && p.Number == 0 {
			t.Errorf("%q = %v", text, p)
		}
	})
}

// A project's instances have its ports and those of all, and a build engine, which is nobody's, has none.
func TestOf(t *testing.T) {
	p := hostports.New(hostports.Config{Allowed: []hostports.Port{{Number: 5432}, {"giggle", 6379}, {"giggle", 5432}}})
	for project, want := range map[string][]uint16{"giggle": {5432, 6379}, "other-one": {5432}, "": nil} {
		got := p.Of(project)
		if len(got) != len(want) {
			t.Errorf("%q has %v, want %v", project, got, want)
		}
		for _, port := range want {
			if got[port] == nil {
				t.Errorf("%q has no %d", project, port)
			}
		}
	}
}

// A port leads to the machine's 127.0.0.1, or else its ::1, and never to what the platform itself listens on.
func TestWhereTo(t *testing.T) {
	for _, tc := range []struct{ at, own, want string }{
		{at: "127.0.0.1:0", want: "hello"},
		{at: "[::1]:0", want: "hello"},
		{at: "127.0.0.1:0", own: "127.0.0.1"},
	} {
		far, err := net.Listen("tcp", tc.at)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		go func() {
			for {
				c, err := far.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "hello")
				c.Close()
			}
		}()
		at := far.Addr().(*net.TCPAddr).AddrPort()
		p := hostports.New(hostports.Config{
			Allowed: []hostports.Port{{Number: at.Port()}},
			Own:     func(a netip.AddrPort) bool { return tc.own != "" && a == at },
			Log:     slog.New(slog.DiscardHandler),
		})
		near, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		go p.Of("giggle")[at.Port()](near)
		var got []byte
		c, err := net.Dial("tcp", near.Addr().String())
		if err == nil { // it may be reset before Dial has seen it stand
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			got, err = io.ReadAll(c)
		}
		if string(got) != tc.want || tc.want != "" && err != nil || tc.want == "" && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: %q, %v", tc, got, err)
		}
	}
}
