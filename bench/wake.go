package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"giggle/bench/demo"
)

func wake25(ctx context.Context, r *run) error  { return r.wake(ctx, 25, "wake_25", goal{p95: 300}) }
func wake100(ctx context.Context, r *run) error { return r.wake(ctx, 100, "wake_100", goal{p95: 1000}) }

// wake asks many services at zero at once, each over a connection that is open, and has the bare runtime start as many
// containers at once.
func (r *run) wake(ctx context.Context, services int, name string, g goal) error {
	bare, err := r.startBare(ctx)
	if err != nil {
		return err
	}
	const prepared = 128 // the flag's default where there is memory enough
	kind := "run"
	if services <= prepared {
		kind = "start"
	}
	var s, base series
	// They stay until the last one has started, and go before the next round.
	err = r.withHello(ctx, []string{"--idle", "4s", "--prepared", strconv.Itoa(prepared)},
		func(p *platform, c *demo.Client) error {
			urls, err := r.deployMany(ctx, c, services)
			if err != nil {
				return err
			}
			// The first round is not counted: it opens the connections and mints the certificates.
			for round := range r.n + 1 {
				if err := p.until(ctx, zero(min(prepared, services+1))); err != nil { // and the hello service itself
					return err
				}
				took, err := atOnce(ctx, c, urls)
				if err != nil {
					return err
				}
				if round > 0 {
					s = append(s, took...)
				}
			}
			return p.until(ctx, zero(min(prepared, services+1)))
		})
	// Beside it, but not at the same time: the platform is gone, and all its containers.
	for round := 0; err == nil && round < r.n; round++ {
		var took series
		took, err = bare.shots(kind, services)
		base = append(base, took...)
	}
	if err := errors.Join(err, bare.stop()); err != nil {
		return err
	}
	r.times(name, s, "bare "+kind, base, g)
	return nil
}

// atOnce gets all the URLs at the same time.
func atOnce(ctx context.Context, c *demo.Client, urls []string) (series, error) {
	took, errs := make(series, len(urls)), make([]error, len(urls))
	start := time.Now()
	var wg sync.WaitGroup
	for i, url := range urls {
		wg.Go(func() {
			_, errs[i] = c.Get(ctx, url)
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// deployMany deploys the hello service under other names until there are as many as said beside it.
func (r *run) deployMany(ctx context.Context, c *demo.Client, services int) ([]string, error) {
	const atOnce = 4
	more := services - len(r.many)
	if more <= 0 {
		return r.many[:services], nil
	}
	urls, errs := make([]string, more), make([]error, more)
	places := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range more {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			name := fmt.Sprintf("hello-%d", len(r.many)+i)
			if urls[i], errs[i] = c.Deploy(ctx, name, r.image, nil); errs[i] == nil {
				errs[i] = c.AllowAll(ctx, name)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.many = append(r.many, urls...)
	return r.many, nil
}

// idleServices measures what many services take that nobody asks: before they are there, once they were deployed, and
// on a platform that was started with them.
func idleServices(ctx context.Context, r *run) error {
	var before, after, fresh usage
	// Nothing is prepared: what prepared containers take is a figure of its own.
	flags := []string{"--idle", "40ms", "--prepared", "0"}
	rested := func(p *platform) (usage, error) {
		if err := p.until(ctx, zero(0)); err != nil {
			return usage{}, err
		}
		// The Go runtime gives memory back in the background, for a while.
		if err := pause(ctx, memoryRest); err != nil {
			return usage{}, err
		}
		return memory(p.cmd.Process.Pid)
	}
	// The platform that builds the image is not the one that is looked at.
	if err := r.withHello(ctx, flags, func(*platform, *demo.Client) error { return nil }); err != nil {
		return err
	}
	err := r.withHello(ctx, flags, func(p *platform, c *demo.Client) (err error) {
		had := len(r.many)
		if before, err = rested(p); err != nil {
			return err
		}
		if _, err := r.deployMany(ctx, c, had+r.n); err != nil {
			return err
		}
		after, err = rested(p)
		return err
	})
	if err != nil {
		return err
	}
	err = r.withHello(ctx, flags, func(p *platform, _ *demo.Client) (err error) {
		fresh, err = rested(p)
		return err
	})
	if err != nil {
		return err
	}
	r.megabytes("idle_rss_1000", []float64{fresh.anonymous - before.anonymous}, 60, "≤ +60 MB")
	r.last().N = r.n
	r.megabytes("idle_rss_1000_used", []float64{after.anonymous - before.anonymous}, 0, "")
	r.last().N = r.n
	r.last().Note = fmt.Sprintf("%d services were deployed; above, the platform that deployed them; there, one started with them", r.n)
	return nil
}

// memoryRest is how long a platform is left alone before its memory is looked at.
const memoryRest = 3 * time.Second
