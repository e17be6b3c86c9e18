package enginetest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"giggle/engine"
	"giggle/engine/enginetest"
	"giggle/fault"
)

// instance is what a consumer would declare; the real one and the fake must both have it.
type instance interface {
	Start(context.Context) error
	Dial(context.Context, int) (net.Conn, error)
	Listening() ([]netip.AddrPort, error)
	Done() <-chan struct{}
	Exit() engine.Exit
	Stop(context.Context, time.Duration) error
	SetCPU(int64) error
	Usage() (engine.Usage, error)
	PID() int
}

var (
	_ instance = (*engine.Instance)(nil)
	_ instance = (*enginetest.Instance)(nil)
)

func TestLife(t *testing.T) {
	e := &enginetest.Engine{App: func(s engine.Spec) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s.ID) })
	}}
	i, err := e.Prepare(t.Context(), engine.Spec{ID: "one", CPU: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Prepare(t.Context(), engine.Spec{ID: "one"}); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("the same ID twice: %v", err)
	}
	if _, err := i.Dial(t.Context(), 8080); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial before start: %v", err)
	}
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return i.Dial(ctx, 8080) },
		},
	}
	for range 3 {
		resp, err := client.Get("http://app/")
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "one" {
			t.Errorf("got %q", b)
		}
		resp.Body.Close()
	}
	i.Kill(engine.Exit{Code: 137, Signal: 9, OOM: true})
	<-i.Done()
	if got := i.Exit(); !got.OOM {
		t.Errorf("exit = %+v", got)
	}
	if err := i.Stop(t.Context(), 0); err != nil || len(e.Instances()) != 0 {
		t.Errorf("stop after the end: %v, left %v", err, e.Instances())
	}
	if _, err := client.Get("http://app/"); err == nil {
		t.Error("an ended instance answers")
	}
	if _, err := e.Prepare(t.Context(), engine.Spec{ID: "one"}); err != nil {
		t.Errorf("the ID should be free again: %v", err)
	}
}
