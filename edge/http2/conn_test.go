package http2_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	mended "giggle/edge/http2"
)

// from is a connection that reads from r.
type from struct {
	net.Conn
	r io.Reader
}

func (f from) Read(p []byte) (int, error) { return f.r.Read(p) }

// client writes what a client sends.
type client struct {
	bytes.Buffer
	*http2.Framer
	block bytes.Buffer
	*hpack.Encoder
}

func newClient() *client {
	c := &client{}
	c.WriteString(http2.ClientPreface)
	c.Framer = http2.NewFramer(&c.Buffer, nil)
	c.Encoder = hpack.NewEncoder(&c.block)
	return c
}

// headers writes a request with fields "name: value" in as many frames as parts says.
func (c *client) headers(t *testing.T, stream uint32, parts int, padding uint8, fields ...string) {
	t.Helper()
	c.block.Reset()
	pseudo := []string{":method: GET", ":scheme: https", ":path: /", ":authority: a"}
	if len(fields) > 0 && strings.HasPrefix(fields[0], ":path: ") {
		pseudo[2], fields = fields[0], fields[1:]
	}
	for _, f := range append(pseudo, fields...) {
		at := strings.Index(f[1:], ": ") + 1
		if err := c.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]}); err != nil {
			t.Fatal(err)
		}
	}
	b := c.block.Bytes()
	size := (len(b) + parts - 1) / parts
	first := b[:min(size, len(b))]
	b = b[len(first):]
	err := c.WriteHeaders(http2.HeadersFrameParam{
		StreamID:      stream,
		BlockFragment: first,
		EndStream:     true,
		EndHeaders:    len(b) == 0,
		PadLength:     padding,
		Priority:      http2.PriorityParam{Weight: padding},
	})
	for err == nil && len(b) > 0 {
		part := b[:min(size, len(b))]
		b = b[len(part):]
		err = c.WriteContinuation(stream, len(b) == 0, part)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Requests with a field of HTTP/1's connections become malformed ones for whoever reads them as net/http does, and no
// others do, also those that find their fields in the table that earlier ones filled.
func TestFieldsOfConnections(t *testing.T) {
	requests := []struct {
		fields []string
		bad    bool
	}{
		{nil, false},
		{[]string{"te: trailers", "accept: */*"}, false},
		{[]string{"connection: keep-alive"}, true},
		{[]string{"connection: keep-alive"}, true}, // now by its place in the table
		{[]string{"te: gzip"}, true},
		{[]string{"te: trailers"}, false},
		{[]string{"x-connection: keep-alive"}, false},
		{[]string{"keep-alive: 5"}, true},
		{[]string{"proxy-connection: close", "a: b"}, true},
		{[]string{"a: b", "transfer-encoding: chunked"}, true},
		{[]string{"upgrade: h2c", "a: " + strings.Repeat("b", 5000)}, true},
		{[]string{"a: " + strings.Repeat("c", 5000)}, false},
	}
	for _, parts := range []int{1, 2, 7} {
		for _, padding := range []uint8{0, 9} {
			c := newClient()
			for i, r := range requests {
				c.headers(t, uint32(2*i+1), parts, padding, r.fields...)
				if err := c.WriteData(uint32(2*i+1), true, []byte("some data")); err != nil {
					t.Fatal(err)
				}
			}
			in := mended.NewConn(from{r: &c.Buffer})
			if b := make([]byte,
				len(http2.ClientPreface)); func() error { _, err := io.ReadFull(in, b); return err }() != nil ||
				string(b) != http2.ClientPreface {
				t.Fatalf("the preface: %q", b)
			}
			server := http2.NewFramer(io.Discard, in)
			server.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			for i, r := range requests {
				f, err := server.ReadFrame()
				var malformed http2.StreamError
				switch {
				case r.bad && (!errors.As(err, &malformed) || malformed.Code != http2.ErrCodeProtocol ||
					malformed.StreamID != uint32(2*i+1)):
					t.Errorf("%d parts, %q: %v, %v; want a stream error", parts, r.fields, f, err)
				case !r.bad && err != nil:
					t.Errorf("%d parts, %q: %v", parts, r.fields, err)
				case !r.bad:
					if got := f.(*http2.MetaHeadersFrame).RegularFields(); len(got) != len(r.fields) {
						t.Errorf("%d parts, %q: %v", parts, r.fields, got)
					}
				}
				if f, err := server.ReadFrame(); err != nil || string(f.(*http2.DataFrame).Data()) != "some data" {
					t.Fatalf("%d parts, %q: then %v, %v", parts, r.fields, f, err)
				}
			}
		}
	}
}

// A request with a malformed path, or with fields that are too large, is one that Refusals answers; those after it are
// read as they were written, also what they find in the table that it filled.
func TestRefused(t *testing.T) {
	long := strings.Repeat("c", 60<<10)
	requests := []struct {
		path   string
		fields []string
		want   string // of the refusal
	}{
		{"/", []string{"a: b"}, ""},
		{"/%zz", []string{"a: b", "cookie: secret"}, "400"},
		{"/", []string{"a: b", "cookie: secret"}, ""},
		{"/%", nil, "400"},
		{"/a%2", nil, "400"},
		{"/a?b=%zz", nil, ""}, // a query may be anything
		{"nowhere", nil, "400"},
		{"//[", nil, ""},
		{"*", nil, ""},
		{"/%41|é", nil, ""},
		{"//x/y", nil, ""},
		{"/", []string{"a: " + long, "b: " + long}, ""},
		{"/", []string{"a: " + long, "b: " + long, "c: " + long}, "431"},
		{"/", []string{"a: b", "x: 1", "connection: close"}, "malformed"},
		{"/%zz", []string{"a: " + long, "b: " + long, "c: " + long}, "431"},
		{"/" + long, []string{"b: " + long, "c: " + long}, "431"},
		{"/" + long + long + long, nil, "431"},
		{"/" + long, []string{"a: b"}, ""},
	}
	for _, parts := range []int{13, 40} {
		c := newClient()
		for i, r := range requests {
			c.headers(t, uint32(2*i+1), parts, 0, append([]string{":path: " + r.path}, r.fields...)...)
			if err := c.WriteData(uint32(2*i+1), true, []byte("some data")); err != nil {
				t.Fatal(err)
			}
		}
		in := mended.NewConn(from{r: &c.Buffer})
		if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil {
			t.Fatal(err)
		}
		server := http2.NewFramer(io.Discard, in)
		server.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for i, r := range requests {
			f, err := server.ReadFrame()
			var malformed http2.StreamError
			switch head, _ := f.(*http2.MetaHeadersFrame); {
			case r.want == "malformed":
				if !errors.As(err, &malformed) || malformed.StreamID != uint32(2*i+1) {
					t.Errorf("%d parts, request %d: %v, want it malformed", parts, i, err)
				}
			case err != nil:
				t.Fatalf("%d parts, request %d: %v", parts, i, err)
			case r.want == "" && (head.PseudoValue("path") != r.path || len(head.RegularFields()) != len(r.fields)):
				t.Errorf("%d parts, request %d: %.200v", parts, i, head.Fields)
			case r.want != "" && (head.PseudoValue("path") != "/" || head.PseudoValue("authority") != "a" ||
				len(head.RegularFields()) != 1 || head.RegularFields()[0].Value != r.want):
				t.Errorf("%d parts, request %d: %.200v, want %s", parts, i, head.Fields, r.want)
			case !head.StreamEnded():
				t.Errorf("%d parts, request %d doesn't end its stream", parts, i)
			}
			if f, err := server.ReadFrame(); err != nil || string(f.(*http2.DataFrame).Data()) != "some data" {
				t.Fatalf("%d parts, request %d: then %v, %v", parts, i, f, err)
			}
		}
	}
}

// What breaks into a block goes through as it came: the server ends such a connection.
func TestBrokenBlocks(t *testing.T) {
	for name, write := range map[string]func(*client) error{
		"a ping in a block": func(c *client) error {
			return errors.Join(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}),
				c.WritePing(false, [8]byte{1}), c.WriteContinuation(1, true, []byte{0x84}))
		},
		"another request in a block": func(c *client) error {
			return errors.Join(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}),
				c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82}, EndHeaders: true}))
		},
		"the rest of no block": func(c *client) error { return c.WriteContinuation(1, true, []byte{0x82}) },
		"a table that isn't one": func(c *client) error {
			return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0x7f},
				EndHeaders: true})
		},
	} {
		c := newClient()
		if err := errors.Join(write(c), c.WritePing(false, [8]byte{9})); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(c.Bytes())
		got, err := io.ReadAll(mended.NewConn(from{r: &c.Buffer}))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// The last of a setting holds.
func TestSettings(t *testing.T) {
	c := newClient()
	if err := c.WriteSettings(
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20000},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1},
	); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.WriteSettingsAck(), c.WriteSettings(), c.WritePing(false, [8]byte{1, 2})); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(mended.NewConn(from{r: &c.Buffer}))
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	want.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&want, nil)
	if err := errors.Join(
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20000},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}),
		f.WriteSettingsAck(), f.WriteSettings(), f.WritePing(false, [8]byte{1, 2}),
	); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%q, want %q", b, want.Bytes())
	}
}

// What does not begin as HTTP/2 is nothing.
func TestNoPreface(t *testing.T) {
	for _, text := range []string{"", "PRI", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r and more"} {
		b, err := io.ReadAll(mended.NewConn(from{r: strings.NewReader(text)}))
		if len(b) > 0 || err != nil {
			t.Errorf("%q: %q, %v", text, b, err)
		}
	}
}

// A deadline in the middle of a frame loses nothing.
func TestDeadline(t *testing.T) {
	c := newClient()
	c.headers(t, 1, 1, 0, "a: b")
	sent := c.Bytes()
	ours, theirs := net.Pipe()
	defer ours.Close()
	in := mended.NewConn(theirs)
	var got []byte
	b := make([]byte, 1000)
	for i := range sent { // byte by byte, with a deadline that has passed after each
		if err := theirs.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = ours.Write(sent[i : i+1]) // a failure shows below
			_ = theirs.SetReadDeadline(time.Unix(1, 0))
		}()
		for {
			n, err := in.Read(b)
			if got = append(got, b[:n]...); err != nil {
				break
			}
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%q, want %q", got, sent)
	}
}

// However the bytes come, the same are read, and no more beyond those that came than blocks that are written anew.
func FuzzConn(f *testing.F) {
	t := &testing.T{}
	c := newClient()
	c.headers(t, 1, 2, 3, "connection: close")
	f.Add(c.Bytes()[len(http2.ClientPreface):])
	f.Add([]byte("\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x02"))
	f.Add([]byte("\x00\x00\x02\x01\x0c\x00\x00\x00\x01\xff\xff"))
	f.Add([]byte("\xff\xff\xff\x01\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte(http2.ClientPreface), b...)
		whole, err := io.ReadAll(mended.NewConn(from{r: bytes.NewReader(b)}))
		single, err2 := io.ReadAll(mended.NewConn(from{r: iotest.OneByteReader(bytes.NewReader(b))}))
		if !bytes.Equal(whole, single) || err != nil || err2 != nil {
			t.Fatalf("%q read at once is %q (%v), byte by byte %q (%v)", b, whole, err, single, err2)
		}
		if frames := len(b) / 9; len(whole) > len(b)+frames*(130<<10) {
			t.Fatalf("%d bytes became %d", len(b), len(whole))
		}
	})
}
