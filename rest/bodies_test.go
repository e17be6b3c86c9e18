package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

func TestBodiesShareABudget(t *testing.T) {
	b := NewBodies(400)
	freed := 0
	b.free = func() { freed++ }
	ctx := t.Context()
	for _, tt := range []struct {
		caller string
		n      int64
		ok     bool
	}{
		{"", 60, true}, {"", 40, true}, {"", 1, false}, // callers that aren't known have a quarter together
		{"user:a", 100, true}, {"user:a", 1, false}, // and each that is
		{"user:b", 101, false}, {"user:b", 100, true}, {"user:c", 100, true},
		{"user:d", 1, false}, // the whole is held
	} {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		if err := b.take(short, tt.caller, tt.n); (err == nil) != tt.ok {
			t.Errorf("%q takes %d: %v, want %v (%d held)", tt.caller, tt.n, err, tt.ok, b.Held())
		}
		cancel()
	}
	for caller, n := range map[string]int64{"": 100, "user:a": 100, "user:b": 100, "user:c": 100} {
		b.release(caller, n)
	}
	if b.Held() != 0 || len(b.by) != 0 {
		t.Errorf("%d bytes are held, by %v", b.Held(), b.by)
	}
}

func TestBodiesWaitForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBodies(400)
		for range 4 {
			if err := b.take(t.Context(), "user:a", 25); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan error)
		go func() { got <- b.take(t.Context(), "user:a", 50) }()
		synctest.Wait()
		b.release("user:a", 25)
		synctest.Wait()
		b.release("user:a", 25)
		if err := <-got; err != nil {
			t.Errorf("who waited got %v", err)
		}
		start := time.Now()
		err := b.take(t.Context(), "user:a", 1)
		if !fault.Is(err, fault.ResourceExhausted) || time.Since(start) != bodyWait || fault.From(err).RetryAfter == 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// What was held and isn't any more goes back to the system, once, and not for small bodies.
func TestMemoryIsGivenBack(t *testing.T) {
	freed := make(chan struct{}, 10)
	b := NewBodies(DefaultBodies)
	b.free = func() { freed <- struct{}{} }
	take := func(n int64) {
		if err := b.take(t.Context(), "user:a", n); err != nil {
			t.Fatal(err)
		}
		b.release("user:a", n)
	}
	take(bodyPeak)
	<-freed
	take(bodyPeak - 1)
	if len(freed) != 0 {
		t.Error("memory was given back for a small body")
	}
}

func TestReadAllClaimsWhatComes(t *testing.T) {
	b := NewBodies(8 << 20)
	c := claim{bodies: b, ctx: t.Context(), caller: "user:a"}
	body, err := c.readAll(strings.NewReader(strings.Repeat("x", 100_000)), 1<<20)
	if err != nil || len(body) != 100_000 || c.n < 100_000 || c.n > 300_000 {
		t.Errorf("%d bytes, %v; %d claimed", len(body), err, c.n)
	}
	if _, err := c.readAll(strings.NewReader(strings.Repeat("x", 2<<20)), 1<<20); !fault.Is(err,
		fault.InvalidArgument) {
		t.Errorf("too long a body: %v", err)
	}
	if _, err := c.readAll(strings.NewReader(strings.Repeat("x", 4<<20)), 4<<20); !fault.Is(err,
		fault.ResourceExhausted) {
		t.Errorf("more than the share of one caller: %v", err)
	}
	c.end()
	if b.Held() != 0 {
		t.Errorf("%d bytes are held at the end", b.Held())
	}
}

func TestCountJSON(t *testing.T) {
	for text, want := range map[string]int{
		``: 1, `{}`: 2, `{"a":1}`: 2, `[1,2,3]`: 4, `[[],[]]`: 5, `{"a":"1,2,{[\",[","b":2}`: 3, `"`: 1, `"\`: 1,
		`[{},{},{`: 7,
	} {
		if got := countJSON([]byte(text)); got != want {
			t.Errorf("%s has %d, want %d", text, got, want)
		}
	}
}

func FuzzCountJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"\\"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := countJSON(b); n < 1 || n > len(b)+1 {
			t.Errorf("%d of %d bytes", n, len(b))
		}
	})
}

// A message of many small parts takes far more memory than it has bytes: its parts are counted before it is decoded.
func TestCountProto(t *testing.T) {
	msg := &artifactregistrypb.ListRepositoriesResponse{}
	for range 500 {
		msg.Repositories = append(msg.Repositories, &artifactregistrypb.Repository{Labels: map[string]string{"a": "b"}})
	}
	raw, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	d := msg.ProtoReflect().Descriptor()
	if n := countProto(raw, d, maxElements); n != 500*4 { // the repository, its entry, key and value
		t.Errorf("%d elements", n)
	}
	if n := countProto(raw, d, 100); n < 100 || n > 110 {
		t.Errorf("the count went on to %d", n)
	}
	for _, bad := range []string{"\x0a", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xff"} {
		if n := countProto([]byte(bad), d, 10); n > 1 {
			t.Errorf("%q has %d", bad, n)
		}
	}
}

func FuzzCountProto(f *testing.F) {
	f.Add([]byte("\x0a\x02\x12\x00"))
	d := (&artifactregistrypb.ListRepositoriesResponse{}).ProtoReflect().Descriptor()
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := countProto(b, d, 1000); n < 0 || n > 1001+len(b) {
			t.Errorf("%d of %d bytes", n, len(b))
		}
	})
}

// deadlines is a connection that remembers its read deadlines.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

func TestPacedBodyHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &deadlines{ResponseWriter: httptest.NewRecorder()}
		r := Paced(w, httptest.NewRequest("POST", "/", io.MultiReader(bytes.NewReader(make([]byte, 10*bodyPace)))))
		start := time.Now()
		if _, err := io.ReadFull(r.Body, make([]byte, bodyPace)); err != nil {
			t.Fatal(err)
		}
		if at := w.set[0]; !at.Equal(start.Add(bodyGrace)) {
			t.Errorf("the first byte may take until %v", at.Sub(start))
		}
		w.set = nil
		if _, err := r.Body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if at := w.set[0]; !at.Equal(start.Add(bodyGrace + time.Second)) {
			t.Errorf("what follows a second's bytes may take until %v", at.Sub(start))
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		if at := w.set[len(w.set)-1]; !at.IsZero() {
			t.Errorf("a body that was read leaves the deadline %v", at.Sub(start))
		}
	})
}

func TestSlowBodyIsSaidToBeSlow(t *testing.T) {
	if err := unreadable(os.ErrDeadlineExceeded); !fault.Is(err, fault.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "too slowly") {
		t.Errorf("%v", err)
	}
	if err := unreadable(errors.New("reset")); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("%v", err)
	}
}
