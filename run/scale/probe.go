package scale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"giggle/fault"
	"giggle/run"
)

// The wait between two looks at a port that is not open yet: short at first, and never so long that it would show
// beside the time that the app has taken already.
const (
	minPortPoll   = 300 * time.Microsecond
	maxPortPoll   = 20 * time.Millisecond
	portPollShare = 30 // of the time so far
)

// startup waits for an instance's startup probe. The error's message is what a user reads in the revision's condition.
//
// Whether a port is open can be asked without the app noticing, so that is asked often. What the app notices, a request
// of an HTTP or gRPC probe, is sent as soon as the port is open, and then once a period.
func (p *pool) startup(ctx context.Context, inst Instance) error {
	c := p.rev.Template.Containers[0]
	pr := run.Probe{Timeout: 240, Period: 240, FailureThreshold: 1}.WithDefaults(c.Port)
	standard := true
	if c.Startup != nil {
		standard = c.Startup.Kind() == "TCP" && c.Startup.Period == 240
		pr = c.Startup.WithDefaults(c.Port)
	}
	period := time.Duration(pr.Period) * time.Second
	limit := time.Duration(pr.InitialDelay)*time.Second + period*time.Duration(pr.FailureThreshold)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if pr.InitialDelay > 0 && !sleep(ctx, inst.Done(), time.Duration(pr.InitialDelay)*time.Second) {
		return p.notStarted(ctx, inst, startup{Probe: pr, standard: standard, limit: limit})
	}
	begin := time.Now()
	var last error
	for tries := 1; ; {
		err := p.port(ctx, inst, pr)
		open := err == nil
		if open && pr.Kind() != "TCP" {
			err = p.s.attempt(ctx, inst, pr)
		}
		if err == nil {
			p.sayStarted(inst, pr, tries, standard)
			return nil
		}
		if ctx.Err() == nil || last == nil { // an attempt that the end of all has cut short says nothing
			last = err
		}
		wait := min(max(time.Since(begin)/portPollShare, minPortPoll), maxPortPoll)
		if open {
			tries++
			wait = period
		}
		if !sleep(ctx, inst.Done(), wait) {
			return p.notStarted(ctx, inst, startup{
				Probe:    pr,
				standard: standard,
				limit:    limit,
				took:     time.Since(begin),
				last:     last,
			})
		}
	}
}

// attempt makes one attempt of a probe, which has its defaults.
func (s *Scaler) attempt(ctx context.Context, inst Instance, pr run.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(pr.Timeout)*time.Second)
	defer cancel()
	if pr.Kind() != "TCP" {
		return s.cfg.Probe(ctx, inst.Dial, pr)
	}
	conn, err := inst.Dial(ctx, pr.TCPPort)
	if err != nil {
		return err
	}
	return conn.Close()
}

// port reports whether the probe's port is open.
func (p *pool) port(ctx context.Context, inst Instance, pr run.Probe) error {
	tcp := run.Probe{Timeout: pr.Timeout}
	switch pr.Kind() {
	case "HTTP":
		tcp.TCPPort = pr.HTTPPort
	case "GRPC":
		tcp.TCPPort = pr.GRPCPort
	default:
		tcp.TCPPort = pr.TCPPort
	}
	return p.s.attempt(ctx, inst, tcp)
}

// sleep waits, and reports false when ctx or the instance ends first.
func sleep(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-done:
	}
	return false
}

// startup is how an instance's startup probe went.
type startup struct {
	run.Probe
	standard    bool          // not one that the service's owner configured
	limit, took time.Duration // that it may take, and that it took
	last        error         // of the last attempt
}

// notStarted is the fault of an instance that did not come up, in Cloud Run's words and with what is known of it.
func (p *pool) notStarted(ctx context.Context, inst Instance, s startup) error {
	if p.s.ctx.Err() != nil {
		return fault.New(fault.Unavailable, "The platform is stopping.")
	}
	port := p.rev.Template.Containers[0].Port
	var e *fault.Error
	select {
	case <-inst.Done():
		e = fault.New(fault.FailedPrecondition,
			"The user-provided container failed to start and listen on the port defined by the PORT=%d environment variable: it ended after %s. %s",
			port, s.took.Round(10*time.Millisecond), inst.Diagnosis(port))
	default:
		inst.Say(fmt.Sprintf("STARTUP %s probe failed %s consecutively for container %q on %s. The instance was not started.",
			s.Kind(), times(s.FailureThreshold), p.container(), where(s.Probe)))
		e = s.failed(port, inst)
	}
	e.Reason = "HealthCheckContainerError"
	if ctx.Err() != nil {
		e.Cause = fmt.Errorf("startup probe of %s: %w", inst.ID(), context.Cause(ctx))
	}
	return e
}

// failed is the fault of a probe that a container, which runs, did not pass.
func (s startup) failed(port int, inst Instance) *fault.Error {
	if s.standard {
		return fault.New(fault.FailedPrecondition,
			"The user-provided container failed to start and listen on the port defined by the PORT=%d environment variable within the allocated timeout (%s). %s",
			port, s.limit, inst.Diagnosis(port))
	}
	asked := fmt.Sprintf("%s on %s", s.Kind(), where(s.Probe))
	var timeout net.Error
	got, look := "no answer", 0
	refused := errors.Is(s.last, syscall.ECONNREFUSED)
	if (refused || s.Kind() == "TCP") && (s.TCPPort == port || s.HTTPPort == port || s.GRPCPort == port) {
		look = port // where does it listen, then?
	}
	switch {
	case refused:
		got = "the connection is refused, as nothing listens there"
	case errors.Is(s.last, context.DeadlineExceeded) || errors.As(s.last, &timeout) && timeout.Timeout():
		got = fmt.Sprintf("no answer within %d s", s.Timeout)
	case s.last != nil:
		got = s.last.Error()
	}
	return fault.New(fault.FailedPrecondition,
		"The user-provided container failed the configured startup probe checks. Asked: %s, %s, every %d s. Got: %s. %s",
		asked, times(s.FailureThreshold), s.Period, got, inst.Diagnosis(look))
}

// sayStarted says in the instance's log that it is up, while the first request is on its way already.
func (p *pool) sayStarted(inst Instance, pr run.Probe, tries int, standard bool) {
	text := fmt.Sprintf("STARTUP %s probe succeeded after %s for container %q on %s.", pr.Kind(), attempts(tries),
		p.container(), where(pr))
	if standard {
		text = "Default " + text
	}
	p.s.tasks.Go(func() { inst.Say(text) })
}

// container is the container's name: the one that Cloud Run gives where the revision gives none.
func (p *pool) container() string {
	if name := p.rev.Template.Containers[0].Name; name != "" {
		return name
	}
	return p.rev.Name.Service.ID + "-1"
}

// where names what a probe asks, as Cloud Run's log does.
func where(pr run.Probe) string {
	switch pr.Kind() {
	case "HTTP":
		return fmt.Sprintf("port %d path %q", pr.HTTPPort, pr.HTTPPath)
	case "GRPC":
		if pr.GRPCService != "" {
			return fmt.Sprintf("port %d service %q", pr.GRPCPort, pr.GRPCService)
		}
		return fmt.Sprintf("port %d", pr.GRPCPort)
	}
	return fmt.Sprintf("port %d", pr.TCPPort)
}

func times(n int) string {
	if n == 1 {
		return "1 time"
	}
	return fmt.Sprintf("%d times", n)
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}
