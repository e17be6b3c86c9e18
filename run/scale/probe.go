package scale

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"giggle/fault"
	"giggle/run"
)

// The wait between two looks at a port that is not open yet: short at first, so that it does not show.
const (
	firstLook = 300 * time.Microsecond
	lastLook  = 50 * time.Millisecond
)

// probe waits for an instance's startup probe. The error's message is what a user reads in the revision's condition.
func (p *pool) probe(ctx context.Context, inst Instance) error {
	c := p.rev.Template.Containers[0]
	pr := *c.Startup
	pr.Timeout, pr.Period, pr.FailureThreshold = orElse(pr.Timeout, 1), orElse(pr.Period, 10), orElse(pr.FailureThreshold, 3)
	limit := time.Duration(pr.InitialDelay+pr.Period*pr.FailureThreshold) * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if pr.InitialDelay > 0 && !sleep(ctx, inst, time.Duration(pr.InitialDelay)*time.Second) {
		return p.failed(ctx, inst, c, limit)
	}
	for look := firstLook; ; look = min(2*look, lastLook) {
		if ready(ctx, inst, pr, c.Port) {
			return nil
		}
		if pr.HTTPPath != "" {
			look = max(look, time.Duration(pr.Period)*time.Second/10)
		}
		if !sleep(ctx, inst, look) {
			return p.failed(ctx, inst, c, limit)
		}
	}
}

func orElse(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// sleep waits, and reports false when ctx or the instance ends first.
func sleep(ctx context.Context, inst Instance, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-inst.Done():
	}
	return false
}

// ready makes one attempt of the probe.
func ready(ctx context.Context, inst Instance, pr run.Probe, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(pr.Timeout)*time.Second)
	defer cancel()
	if pr.HTTPPath == "" {
		conn, err := inst.Dial(ctx, orElse(pr.TCPPort, port))
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return inst.Dial(ctx, orElse(pr.HTTPPort, port))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+pr.HTTPPath, nil)
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode >= 200 && res.StatusCode < 400
}

// failed is the fault of an instance that did not come up, in Cloud Run's words and with what is known of it.
func (p *pool) failed(ctx context.Context, inst Instance, c run.Container, limit time.Duration) error {
	select {
	case <-inst.Done():
	default:
		if p.s.ctx.Err() != nil {
			return fault.New(fault.Unavailable, "The platform is stopping.")
		}
	}
	e := fault.New(fault.FailedPrecondition,
		"The user-provided container failed to start and listen on the port defined by the PORT=%d environment variable within the allocated timeout (%s). %s",
		c.Port, limit, inst.Diagnosis(c.Port))
	e.Reason = "HealthCheckContainerError"
	e.Cause = fmt.Errorf("startup probe of %s: %w", inst.ID(), context.Cause(ctx))
	if ctx.Err() == nil {
		e.Cause = nil
	}
	return e
}
