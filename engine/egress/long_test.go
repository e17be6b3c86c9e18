//go:build long

package egress_test

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"giggle/engine/egress"
	"giggle/engine/netns"
)

// Five hundred instances dial at once, each by its own way, and leave no device, no route and no number behind.
func TestLongFiveHundred(t *testing.T) { onBothPaths(t, testLongFiveHundred) }

func testLongFiveHundred(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	goroutines := runtime.NumGoroutine()
	devices := func(want int) {
		t.Helper()
		if path == egress.Userspace {
			return
		}
		if n, err := w.router.Devices(); err != nil || n != want {
			t.Errorf("%d devices, %v; want %d", n, err, want)
		}
	}
	type way struct {
		ns   *netns.Namespace
		link *egress.Link
	}
	var mu sync.Mutex
	var ways []way
	each := func(n int, do func(i int) error) {
		t.Helper()
		var g errgroup.Group
		g.SetLimit(32)
		for i := range n {
			g.Go(func() error { return do(i) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	each(500, func(int) error {
		ns, err := netns.New()
		if err != nil {
			return err
		}
		l, err := w.router.Arm(ns, nil)
		mu.Lock()
		defer mu.Unlock()
		ways = append(ways, way{ns, l})
		return err
	})
	each(len(ways), func(i int) error {
		if got, err := call(ways[i].ns, "tcp", at); got != "joke" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
	devices(500)
	each(len(ways), func(i int) error { return errors.Join(ways[i].link.Close(), ways[i].ns.Close()) })
	devices(0)
	// The router's own, and echoes whose connections end by and by.
	wait(t, "end of the goroutines", func() bool { return runtime.NumGoroutine() < goroutines+20 })
	_, l := w.instance(t)
	if a, _ := l.Address(); a.As4()[2] > 129 {
		t.Errorf("the next one has the address %s", a)
	}
}
