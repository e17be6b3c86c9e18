package scale

import (
	"sync"
	"sync/atomic"
	"time"

	"giggle/run"
)

const (
	// throttledCPU is what an instance has between requests, in millicores: the least that the kernel gives.
	throttledCPU = 10
	// throttleDelay is how long an instance without requests keeps its CPU. Writing a quota takes some 30 µs and
	// restoring it delays the next request by as much; after a tenth of a second without one, neither shows.
	throttleDelay = 100 * time.Millisecond
	// boostDuration is how long the boost lasts once an instance has started
	// (https://cloud.google.com/run/docs/configuring/services/cpu#startup-boost).
	boostDuration = 10 * time.Second
)

// boostedCPU is the CPU of an instance that starts, in millicores, with the startup boost (same source).
func boostedCPU(limit int64) int64 {
	switch {
	case limit <= 1000:
		return 2000
	case limit <= 2000:
		return 4000
	default:
		return max(limit, 8000)
	}
}

// cpu is the CPU limit of one instance: full, or throttled. That it is throttled is decided under the pool's lock; the
// writes happen outside it.
type cpu struct {
	set  func(millicores int64) error
	fail func(error)

	low atomic.Bool // throttled, or about to be

	mu   sync.Mutex
	full int64 // millicores when it is not throttled
}

// newCPU is the CPU of an instance that starts now.
func newCPU(inst Instance, t run.Template, fail func(error)) *cpu {
	limit := limitOf(t)
	c := &cpu{set: inst.SetCPU, fail: fail, full: limit}
	if t.StartupCPUBoost {
		c.full = boostedCPU(limit)
		c.write(c.full)
	}
	return c
}

// limitOf is a template's CPU limit in millicores.
func limitOf(t run.Template) int64 {
	m, err := run.MilliCPU(t.Containers[0].CPU)
	if err != nil || m == 0 {
		return 1000
	}
	return m
}

func (c *cpu) write(millicores int64) {
	if err := c.set(millicores); err != nil {
		c.fail(err)
	}
}

// restore gives the full CPU back, and returns when it is there: before the request is forwarded.
func (c *cpu) restore() {
	if !c.low.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.low.Load() {
		c.write(c.full)
		c.low.Store(false)
	}
}

// throttle writes what low says, unless it was restored meanwhile.
func (c *cpu) throttle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.low.Load() {
		c.write(throttledCPU)
	}
}

// settle ends the boost.
func (c *cpu) settle(limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = limit
	if !c.low.Load() {
		c.write(limit)
	}
}
