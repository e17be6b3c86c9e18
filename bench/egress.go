package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"giggle/bench/demo"
	"giggle/engine/egress"
	"giggle/engine/egress/testnet"
	"giggle/engine/netns"
)

// outsideHost is what instances talk to in these benchmarks: a host of a network that they make.
var outsideHost = netip.MustParseAddrPort("203.0.113.10:9")

// outside is a network with a router of ours, and an instance behind each of two ways out.
type outside struct {
	*testnet.Net
	router       *egress.Router
	link         *egress.Link
	armed, plain *netns.Namespace
	closes       []func() error
}

// newOutside makes one, and serves its host: what is received is dropped, or sent back.
func newOutside(path egress.Path, back bool) (_ *outside, err error) {
	o := &outside{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if o.Net, err = testnet.New(1500, outsideHost.Addr()); err != nil {
		return nil, err
	}
	o.closes = append(o.closes, o.Net.Close)
	var l net.Listener
	if err := o.Outside.Do(func() (err error) { l, err = net.Listen("tcp", outsideHost.String()); return err }); err != nil {
		return nil, err
	}
	o.closes = append(o.closes, l.Close)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }() // the other end has what it wanted
				if back {
					_, _ = io.Copy(c, c)
				} else {
					_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
				}
			}()
		}
	}()
	err = o.Machine.Do(func() (err error) {
		o.router, err = egress.New(egress.Config{Key: "bench", Path: path, Log: slog.New(slog.DiscardHandler)})
		return err
	})
	if err != nil {
		return nil, err
	}
	o.closes = append(o.closes, o.router.Close)
	if o.plain, err = o.Plain(); err != nil {
		return nil, err
	}
	o.closes = append(o.closes, o.plain.Close)
	o.armed, o.link, err = o.arm()
	if err != nil {
		return nil, err
	}
	o.closes = append(o.closes, o.armed.Close, o.link.Close)
	return o, nil
}

// arm makes an instance's namespace with a way out.
func (o *outside) arm() (*netns.Namespace, *egress.Link, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, nil, err
	}
	l, err := o.router.Arm(ns, nil)
	if err != nil {
		return nil, nil, errors.Join(err, ns.Close())
	}
	return ns, l, nil
}

// Close ends it, what was made last first.
func (o *outside) Close() error {
	var errs []error
	for i := len(o.closes) - 1; i >= 0; i-- {
		errs = append(errs, o.closes[i]())
	}
	return errors.Join(errs...)
}

// dialOutside connects to the host from a namespace.
func dialOutside(ns *netns.Namespace) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", outsideHost.String(), 10*time.Second)
		return err
	})
	return c, err
}

// egressName is the name of a figure of one path.
func egressName(path egress.Path, what string) string {
	if path == egress.Userspace {
		return "userspace_" + what
	}
	return "egress_" + what
}

// only is a goal of the kernel's path: the other is there for machines that lack that.
func only(path egress.Path, goal string) string {
	if path == egress.Userspace {
		return ""
	}
	return goal
}

// egressThroughput measures one stream by each way, in turns.
func egressThroughput(path egress.Path) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) (err error) {
		o, err := newOutside(path, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		stream := func(ns *netns.Namespace) (float64, error) {
			c, err := dialOutside(ns)
			if err != nil {
				return 0, err
			}
			defer func() { _ = c.Close() }() // it was only written to
			data := make([]byte, 256<<10)
			sent, start := 0, time.Now()
			for time.Since(start) < r.length()/5 && ctx.Err() == nil {
				n, err := c.Write(data)
				if sent += n; err != nil {
					return 0, err
				}
			}
			return float64(sent) / 1e6 / time.Since(start).Seconds(), ctx.Err()
		}
		return r.beside(egressName(path, "throughput"), "MB/s", only(path, "≥ 0.8 × a plain veth with NAT"), o, stream,
			func(value, base float64) bool { return value >= 0.8*base })
	}
}

// egressLatency measures one byte there and back by each way, in turns.
func egressLatency(path egress.Path) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) (err error) {
		o, err := newOutside(path, true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		const trips = 2000
		pingPong := func(ns *netns.Namespace) (float64, error) {
			c, err := dialOutside(ns)
			if err != nil {
				return 0, err
			}
			defer func() { _ = c.Close() }() // all was read
			b := make([]byte, 1)
			var s series
			for range trips {
				start := time.Now()
				if _, err := c.Write(b); err != nil {
					return 0, err
				}
				if _, err := io.ReadFull(c, b); err != nil {
					return 0, err
				}
				s = append(s, time.Since(start))
			}
			return s.quantile(0.5) * 1000, ctx.Err()
		}
		goal := only(path, "≤ 100 µs above a plain veth with NAT")
		return r.beside(egressName(path, "latency"), "µs", goal, o, pingPong,
			func(value, base float64) bool { return value <= base+100 })
	}
}

// beside measures both ways in turns, after one round that nobody counts.
func (r *run) beside(
	name, unit, goal string, o *outside, measure func(*netns.Namespace) (float64, error),
	met func(value, base float64) bool,
) error {
	var values, base []float64
	for i := range r.n + 1 {
		own, err := measure(o.armed)
		if err != nil {
			return err
		}
		plain, err := measure(o.plain)
		if err != nil {
			return err
		}
		if i > 0 {
			values, base = append(values, own), append(base, plain)
		}
	}
	res := numbers(name, unit, values)
	res.Baseline, res.BaselineValue = "veth + NAT", median(base)
	res.Ratio = float64(int(res.Value/res.BaselineValue*100+0.5)) / 100
	res.Goal, res.Met = goal, goal == "" || met(res.Value, res.BaselineValue)
	r.results = append(r.results, res)
	return nil
}

// egressFirst measures the first connection of instances.
func egressFirst(path egress.Path) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) (err error) {
		o, err := newOutside(path, true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		if c, err := dialOutside(o.armed); err != nil { // the router's own way
			return err
		} else if err := c.Close(); err != nil {
			return err
		}
		var s series
		for range r.n {
			ns, l, err := o.arm()
			if err != nil {
				return err
			}
			start := time.Now()
			c, err := dialOutside(ns)
			s = append(s, time.Since(start))
			if err == nil {
				err = c.Close()
			}
			if err := errors.Join(err, l.Close(), ns.Close(), ctx.Err()); err != nil {
				return err
			}
		}
		g := goal{p50: 5}
		if path == egress.Userspace {
			g = goal{}
		}
		r.times(egressName(path, "first"), s, "", nil, g)
		return nil
	}
}

// coldEgress measures the first request to a service at zero with and without egress, the platforms in turns.
func coldEgress(ctx context.Context, r *run) error {
	const rounds = 4
	by := make(map[string]series)
	for range rounds {
		for _, mode := range []string{"off", "public"} {
			flags := []string{"--idle", "40ms", "--prepared", "1", "--egress", mode}
			err := r.withHello(ctx, flags, func(p *platform, c *demo.Client) error {
				for range max(r.n/rounds, 1) {
					if err := p.until(ctx, zero(1)); err != nil {
						return err
					}
					if err := pause(ctx, settleTime); err != nil {
						return err
					}
					start := time.Now()
					if _, err := c.Get(ctx, r.url); err != nil {
						return err
					}
					by[mode] = append(by[mode], time.Since(start))
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("--egress %s: %w", mode, err)
			}
		}
	}
	r.times("cold_egress", by["public"], "without", by["off"], goal{})
	res := r.last()
	res.Goal, res.Met = "≤ 1 ms above", res.Value <= res.BaselineValue+1
	res.Note = "p95 without: " + strconv.FormatFloat(by["off"].quantile(0.95), 'f', 1, 64) + " ms"
	return nil
}
