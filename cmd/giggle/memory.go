package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the collector work harder before the platform has a quarter of the memory that it may have: bodies of
// requests and archives come and go, and what they took is to go back to the machine, which runs the containers. A
// GOMEMLIMIT of the user's holds instead.
func limitMemory(environ func(string) string, whole int64) {
	if environ("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(max(min(whole, groupLimit("/"))/4, 256<<20))
}

// groupLimit is the least memory limit of the control groups that the process is in, in bytes, with cgroups v2 or v1
// below root; without one it is as much as there can be.
func groupLimit(root string) int64 {
	least := int64(math.MaxInt64)
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(text)) { // "4:memory:/path", "0::/path"
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "memory" && parts[1] != "" {
			continue
		}
		tree, file := filepath.Join(root, "sys/fs/cgroup"), "memory.max"
		if parts[1] == "memory" {
			tree, file = filepath.Join(tree, "memory"), "memory.limit_in_bytes"
		}
		for dir := parts[2]; ; dir = filepath.Dir(dir) {
			if b, err := os.ReadFile(filepath.Join(tree, dir, file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil { // "max" is none
					least = min(least, n)
				}
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return least
}
