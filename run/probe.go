package run

import (
	"regexp"
	"strings"

	"giggle/fault"
)

// Probe asks whether a container is up: by an HTTP request when HTTPPath is set, by gRPC's health check when GRPC is,
// else by a TCP connection. Times are in seconds, as in the API; zero stands for the default.
type Probe struct {
	InitialDelay     int // before the first attempt
	Timeout          int // of one attempt; 1
	Period           int // between the begins of two attempts; 10
	FailureThreshold int // consecutive failures that count; 3
	SuccessThreshold int // consecutive successes that count after a failure; only readiness may have another one than 1
	TCPPort          int // 0 is the container's port, as for the other two
	HTTPPort         int
	HTTPPath         string
	HTTPHeaders      []Header `json:",omitempty"`
	GRPC             bool     `json:",omitempty"`
	GRPCPort         int      `json:",omitempty"`
	GRPCService      string   `json:",omitempty"` // of grpc.health.v1.HealthCheckRequest
}

// Header is one header of a probe's request.
type Header struct{ Name, Value string }

// spelledOut returns the probe as a template that is read has it: with its times, but without a port that was left out,
// so that it follows the container's when that changes.
func (p Probe) spelledOut() Probe {
	full := p.WithDefaults(0)
	full.SuccessThreshold = p.SuccessThreshold
	return full
}

// WithDefaults returns the probe of a container on that port with Cloud Run's defaults where a field was left out.
func (p Probe) WithDefaults(port int) Probe {
	fill := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	fill(&p.Timeout, 1)
	fill(&p.Period, 10)
	fill(&p.FailureThreshold, 3)
	fill(&p.SuccessThreshold, 1)
	switch {
	case p.HTTPPath != "":
		fill(&p.HTTPPort, port)
	case p.GRPC:
		fill(&p.GRPCPort, port)
	default:
		fill(&p.TCPPort, port)
	}
	return p
}

// Kind names the probe's way of asking as Cloud Run's log does.
func (p Probe) Kind() string {
	switch {
	case p.HTTPPath != "":
		return "HTTP"
	case p.GRPC:
		return "GRPC"
	}
	return "TCP"
}

// probeLimits are what Cloud Run allows a kind of probe, in seconds
// (https://cloud.google.com/run/docs/reference/rest/v1/Container#Probe and …/docs/configuring/healthchecks).
type probeLimits struct {
	delay, period, span int  // span bounds FailureThreshold × Period; 0 does not
	tcp, success        bool // whether TCP, and a threshold of successes above 1, are allowed
}

var (
	startupLimits   = probeLimits{delay: 240, period: 240, span: 240, tcp: true}
	livenessLimits  = probeLimits{delay: 3600, period: 3600}
	readinessLimits = probeLimits{period: 300, success: true}
)

// validate checks a probe, which is the field at, against its limits.
func (p *Probe) validate(at fault.Path, l probeLimits) error {
	if p == nil {
		return nil
	}
	full := p.WithDefaults(DefaultPort)
	switch {
	case p.InitialDelay > 0 && l.delay == 0:
		return invalid(at+ProbeInitialDelay, "this probe takes none")
	case p.InitialDelay < 0 || p.InitialDelay > l.delay:
		return invalid(at+ProbeInitialDelay, "must be 0 to %d seconds", l.delay)
	case p.Period < 0 || p.Period > l.period:
		return invalid(at+ProbePeriod, "must be 1 to %d seconds", l.period)
	case p.Timeout < 0 || full.Timeout > full.Period:
		return invalid(at+ProbeTimeout, "must be at least 1 second and at most the period (%d)", full.Period)
	case p.FailureThreshold < 0 || p.FailureThreshold > 1<<20:
		return invalid(at+ProbeFailureThreshold, "must be at least 1")
	case l.span > 0 && full.Period*full.FailureThreshold > l.span:
		return invalid(at+ProbeFailureThreshold, "the threshold times the period must be at most %d seconds", l.span)
	case p.SuccessThreshold < 0 || p.SuccessThreshold > 1 && !l.success || p.SuccessThreshold > 1<<20:
		return invalid(at+ProbeSuccessThreshold, "must be 1")
	case full.Kind() == "TCP" && !l.tcp:
		return invalid(at+ProbeTCP, "this probe must be one of HTTP or gRPC")
	}
	for _, x := range []struct {
		field fault.Path
		port  int
	}{{ProbeTCPPort, full.TCPPort}, {ProbeHTTPPort, full.HTTPPort}, {ProbeGRPCPort, full.GRPCPort}} {
		if x.port < 0 || x.port > 65535 {
			return invalid(at+x.field, "must be 1 to 65535")
		}
	}
	return p.validateAction(at)
}

// What a header may be (RFC 9110, section 5).
var (
	headerName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	headerValue = regexp.MustCompile(`^[\t\x20-\x7e\x80-\xff]*$`)
)

// validateAction checks what a probe sends.
func (p *Probe) validateAction(at fault.Path) error {
	if p.HTTPPath != "" && (p.HTTPPath[0] != '/' || len(p.HTTPPath) > 2048 ||
		strings.ContainsAny(p.HTTPPath, " \r\n\t\x00#")) {
		return invalid(at+ProbeHTTPPath, "%.100q is not a path that begins with /", p.HTTPPath)
	}
	if len(p.HTTPHeaders) > 100 {
		return invalid(at+ProbeHTTPHeaders, "more than 100 headers")
	}
	for _, h := range p.HTTPHeaders {
		if !headerName.MatchString(h.Name) || !headerValue.MatchString(h.Value) || len(h.Name) > 256 ||
			len(h.Value) > 8192 {
			return invalid(at+ProbeHTTPHeaders, "%.60q is not a header", h.Name)
		}
		if strings.EqualFold(h.Name, "Content-Length") || strings.EqualFold(h.Name, "Transfer-Encoding") {
			return invalid(at+ProbeHTTPHeaders, "%s can't be set", h.Name)
		}
	}
	if len(p.GRPCService) > 1024 {
		return invalid(at+ProbeGRPCService, "longer than 1024 bytes")
	}
	return nil
}
