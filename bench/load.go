package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"giggle/api/giggle"
	"giggle/bench/demo"
	"giggle/shell"
)

// load asks a service at a rate that does not depend on how fast it answers, over plain HTTP/1.1.
type load struct {
	client  *http.Client
	request *http.Request
}

// answer is what one request got.
type answer struct {
	due  time.Duration // since the load's start, when it was to be sent
	took time.Duration // since then, so that what waits behind a slow one counts as slow
	text string
	err  error
}

// errBehind is what a request gets that is not sent, because too many have no answer yet.
var errBehind = errors.New("1000 requests have no answer yet")

// loadOn returns a load on a service of a platform.
func loadOn(ctx context.Context, p *platform, serviceURL string) (*load, error) {
	socket := shell.Dial(p.data)
	defer socket.CloseIdleConnections()
	st, err := status(ctx, socket)
	if err != nil {
		return nil, err
	}
	return newLoad(ctx, st, serviceURL)
}

func newLoad(ctx context.Context, st giggle.Status, serviceURL string) (*load, error) {
	host, err := hostOf(serviceURL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+st.Edge+"/", nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	return &load{client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 1000, DialContext: (&net.Dialer{}).DialContext,
	}}, request: req}, nil
}

func hostOf(serviceURL string) (string, error) {
	u, err := url.Parse(serviceURL)
	if err != nil {
		return "", err
	}
	return u.Host, nil
}

func (l *load) close() { l.client.CloseIdleConnections() }

// run sends what rate says, in requests/s at a time since the start, until over is closed or ctx is done. It returns
// what all of them got.
func (l *load) run(ctx context.Context, rate func(time.Duration) float64, over <-chan struct{}) []answer {
	var mu sync.Mutex
	var out []answer
	var wg sync.WaitGroup
	var inFlight atomic.Int64
	const most = 1000
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	due, before := 0.0, time.Duration(0)
	for {
		select {
		case <-tick.C:
		case <-over:
			wg.Wait()
			return out
		case <-ctx.Done():
			wg.Wait()
			return out
		}
		now := time.Since(start)
		for due += rate(now) * (now - before).Seconds(); due >= 1; due-- {
			if inFlight.Load() >= most {
				mu.Lock()
				out = append(out, answer{due: now, err: errBehind})
				mu.Unlock()
				continue
			}
			inFlight.Add(1)
			wg.Go(func() {
				defer inFlight.Add(-1)
				a := answer{due: now}
				a.text, a.err = l.get()
				a.took = time.Since(start) - now
				mu.Lock()
				defer mu.Unlock()
				out = append(out, a)
			})
		}
		before = now
	}
}

func (l *load) get() (string, error) {
	res, err := l.client.Do(l.request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(text, "hello ") {
		return "", fmt.Errorf("%d %.100q", res.StatusCode, text)
	}
	return text, nil
}

// constant is a rate.
func constant(perSecond float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return perSecond }
}

// judge returns the times of some answers, how many of them failed, and a sentence about it.
func judge(all []answer) (took series, failed int, note string) {
	var first error
	behind := 0
	for _, a := range all {
		switch {
		case errors.Is(a.err, errBehind):
			failed++
			behind++
		case a.err != nil:
			if failed++; first == nil {
				first = a.err
			}
		default:
			took = append(took, a.took)
		}
	}
	note = fmt.Sprintf("%d of %d requests failed", failed-behind, len(all))
	if behind > 0 {
		note += fmt.Sprintf(" and %d were not sent (%v): the machine can't", behind, errBehind)
	}
	if first != nil {
		note += fmt.Sprintf(", the first: %v", first)
	}
	return took, failed, note
}

// after returns a channel that is closed after d.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// ramp raises the rate of a service at zero evenly to 3,000 requests/s.
func ramp(ctx context.Context, r *run) error {
	const top = 3000
	return r.withHello(ctx, []string{"--idle", "2s"}, func(p *platform, _ *demo.Client) error {
		l, err := loadOn(ctx, p, r.url)
		if err != nil {
			return err
		}
		defer l.close()
		if err := p.until(ctx, atZero); err != nil {
			return err
		}
		length := time.Duration(r.n) * time.Second
		took, failed, note := judge(l.run(ctx,
			func(t time.Duration) float64 { return top * t.Seconds() / length.Seconds() }, after(length)))
		r.times("ramp", took, "", nil, goal{})
		r.last().Goal, r.last().Met, r.last().Note = "no error", failed == 0, note
		return nil
	})
}
