package bench

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where and when a run was made: figures without it say little.
type Machine struct {
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	MemoryMB int       `json:"memory_mb"`
	Kernel   string    `json:"kernel"`
	Runtime  string    `json:"runtime"` // OCI runtime and its version
	Go       string    `json:"go"`
	Giggle   string    `json:"giggle"`
	Load     string    `json:"load"` // load averages when the run began
	Time     time.Time `json:"time"`
}

func thisMachine(ctx context.Context, cfg Config) Machine {
	m := Machine{
		CPU:    field("/proc/cpuinfo", "model name"),
		CPUs:   runtime.NumCPU(),
		Go:     runtime.Version(),
		Giggle: cfg.Version,
		Time:   time.Now().UTC(),
	}
	if kb, err := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MemoryMB = kb >> 10
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	if path, err := runtimePath(cfg.Runtime); err == nil {
		if out, err := exec.CommandContext(ctx, path, "--version").Output(); err == nil {
			m.Runtime, _, _ = strings.Cut(strings.Replace(string(out), " version", "", 1), "\n")
		}
	}
	return m
}

// field returns the first value of a key in a file of "key: value" lines.
func field(file, key string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// runtimePath finds the OCI runtime as the engine does: what the user says, else crun, else runc.
func runtimePath(want string) (string, error) {
	if want != "" {
		return exec.LookPath(want)
	}
	path, err := exec.LookPath("crun")
	if err != nil {
		path, err = exec.LookPath("runc")
	}
	return path, err
}
