package local

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory returns the machine's available and whole memory in bytes, as /proc/meminfo (proc_meminfo(5)) tells them.
func Memory() (available, whole int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	return parseMemory(string(b))
}

func parseMemory(text string) (available, whole int64, err error) {
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		var to *int64
		switch key {
		case "MemAvailable":
			to = &available
		case "MemTotal":
			to = &whole
		default:
			continue
		}
		n, err := strconv.ParseInt(kib, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%s in /proc/meminfo: %w", key, err)
		}
		*to = n << 10
	}
	if available == 0 || whole == 0 {
		return 0, 0, fmt.Errorf("/proc/meminfo has no MemAvailable or no MemTotal")
	}
	return available, whole, nil
}
