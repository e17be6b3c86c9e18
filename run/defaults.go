package run

// The defaults of Cloud Run (https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services and
// https://cloud.google.com/run/docs/configuring/max-instances).
const (
	DefaultTimeout     = 300 // seconds
	DefaultConcurrency = 80
	DefaultPort        = 8080
	DefaultCPU         = "1000m"
	DefaultMemory      = "512Mi"
	DefaultMaxScale    = 100 // instances
	DefaultCPUBoost    = true
)

// WithDefaults returns the template with Cloud Run's defaults in the fields that were left out, as a service that is
// read has them. Account is the address of the project's default service account. Whether an instance has more CPU
// while it starts can't be left out here: both APIs say so where they read a template.
func (t Template) WithDefaults(account string) Template {
	if t.ServiceAccount == "" {
		t.ServiceAccount = account
	}
	if t.Timeout == 0 {
		t.Timeout = DefaultTimeout
	}
	if t.Concurrency == 0 {
		t.Concurrency = DefaultConcurrency
		if len(t.Containers) > 0 {
			if m, err := MilliCPU(t.Containers[0].CPU); err == nil && m > 0 && m < 1000 {
				t.Concurrency = 1 // below one core Cloud Run allows one request at a time
			}
		}
	}
	if _, gpu := t.wantsGPU(); t.Scaling.Max == 0 && !gpu { // with GPUs it is as many as there are
		t.Scaling.Max = max(DefaultMaxScale, t.Scaling.Min)
	}
	cs := make([]Container, len(t.Containers))
	for i, c := range t.Containers {
		cs[i] = c.withDefaults(i == 0)
	}
	t.Containers = cs
	return t
}

// withDefaults fills a container; the one that serves has a port and a startup probe, too.
func (c Container) withDefaults(serves bool) Container {
	if c.CPU == "" {
		c.CPU = DefaultCPU
	}
	if c.Memory == "" {
		c.Memory = DefaultMemory
	}
	if !serves {
		return c
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.PortName == "" {
		c.PortName = "http1"
	}
	if c.Startup == nil {
		c.Startup = &Probe{Timeout: 240, Period: 240, FailureThreshold: 1, TCPPort: c.Port}
	}
	for _, p := range []**Probe{&c.Startup, &c.Liveness, &c.Readiness} {
		if *p != nil {
			full := (*p).spelledOut()
			*p = &full
		}
	}
	return c
}
