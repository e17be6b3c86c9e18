package engine

import (
	"strconv"
	"strings"
	"time"
)

// Usage is what an instance has used.
type Usage struct {
	MemoryBytes int64         // now, without page cache that can be dropped at once
	CPUTime     time.Duration // since it was made
	// at its end: the most memory that it had, page cache included; 0 where the kernel doesn't tell
	PeakBytes int64
	SentBytes uint64 // to the outside
	OOMKills  int64  // processes of it that the kernel has killed because of the memory limit
}

func (c *cgroups) usage(name string) (u Usage, err error) {
	memory, stat, inactive := "memory.usage_in_bytes", "memory.stat", "total_inactive_file"
	if c.v2 {
		memory, inactive = "memory.current", "inactive_file"
	}
	m, err := c.read(name, "memory", memory)
	if err != nil {
		return u, err
	}
	s, err := c.read(name, "memory", stat)
	if err != nil {
		return u, err
	}
	total, err := strconv.ParseInt(m, 10, 64)
	if err != nil {
		return u, err
	}
	u.MemoryBytes = max(total-keyed(s, inactive), 0)
	u.OOMKills = c.oomKills(name)

	if c.v2 {
		s, err = c.read(name, "", "cpu.stat")
		u.CPUTime = time.Duration(keyed(s, "usage_usec")) * time.Microsecond
		return u, err
	}
	if s, err = c.read(name, "cpuacct", "cpuacct.usage"); err != nil {
		return u, err
	}
	ns, err := strconv.ParseInt(s, 10, 64)
	u.CPUTime = time.Duration(ns)
	return u, err
}

// peak is the most memory that the group has used, or 0.
func (c *cgroups) peak(name string) int64 {
	file := "memory.max_usage_in_bytes"
	if c.v2 {
		file = "memory.peak" // Linux 5.19 and newer
	}
	s, _ := c.read(name, "memory", file)
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// oomKills counts the processes that the kernel has killed because of the group's memory limit.
func (c *cgroups) oomKills(name string) int64 {
	file := "memory.oom_control" // v1: memory.failcnt stays 0
	if c.v2 {
		file = "memory.events"
	}
	s, _ := c.read(name, "memory", file)
	if c.v2 && keyed(s, "oom") == 0 { // this limit was never reached: the machine, or a group above, has no memory left
		return 0
	}
	return keyed(s, "oom_kill")
}

// keyed returns the value of key in a flat keyed file ("KEY VALUE" lines), 0 if it is not there.
func keyed(text, key string) int64 {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}
