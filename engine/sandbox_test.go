package engine_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/engine"
)

// Nothing that a hostile process might try, as root of its container, is allowed.
func TestEscapes(t *testing.T) {
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	abstract := fmt.Sprintf("@giggle-test-%d", os.Getpid())
	local, err := net.Listen("unix", abstract)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		start(t, e, serving("neighbour"))
		i := start(t, e, serving("escapes"))
		got := unmarshal[struct {
			Allowed []string
			Tried   int
		}](t, mustGet(t, i, "/escapes", "host", host.Addr().String(), "abstract", abstract))
		if len(got.Allowed) > 0 || got.Tried < 95 {
			t.Errorf("of %d ways out, allowed were: %s", got.Tried, strings.Join(got.Allowed, ", "))
		}
	})
}

func TestHardening(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		first := start(t, e, serving("first"))
		s := serving("second")
		s.User = "joker"
		second := start(t, e, s)
		for _, i := range []*engine.Instance{first, second} {
			mustGet(t, i, "/")
			status := procStatus(t, i.PID(), "status")
			for key, want := range map[string]string{"Seccomp": "2", "NoNewPrivs": "1", "CapInh": "0000000000000000",
				"CapAmb": "0000000000000000", "CapBnd": "00000000000404fb"} {
				if status[key] != want {
					t.Errorf("%s = %s, want %s", key, status[key], want)
				}
			}
			if i == first && status["CapEff"] != "00000000000404fb" ||
				i == second && status["CapEff"] != "0000000000000000" {
				t.Errorf("CapEff = %s", status["CapEff"])
			}
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", i.PID()))
			if err != nil || !strings.Contains(string(limits), "Max core file size        0                    0") {
				t.Errorf("limits: %s %v", limits, err)
			}
		}
		maps := []string{readProc(t, first.PID(), "uid_map"), readProc(t, first.PID(), "gid_map"),
			readProc(t, second.PID(), "uid_map")}
		for _, m := range maps {
			if f := strings.Fields(m); len(f) != 3 || f[0] != "0" || len(f[1]) < 9 || f[2] != "65536" {
				t.Errorf("id map = %q", m)
			}
		}
		if maps[0] != maps[1] || maps[0] == maps[2] {
			t.Errorf("instances share ids: %q", maps)
		}
		for path, want := range map[string][]string{"/sys/class/net": {"lo"}, "/sys/firmware": nil, "/proc/acpi": nil} {
			got := unmarshal[[]string](t, mustGet(t, first, "/list", "path", path))
			if _, err := os.Stat(path); err == nil && !slices.Equal(got, want) {
				t.Errorf("%s = %v, want %v", path, got, want)
			}
		}
		if got := mustGet(t, first, "/read", "path", "/proc/self/cgroup"); strings.Contains(got, "giggle") {
			t.Errorf("the process sees where its cgroup is: %s", got)
		}
		// The runtime's own limits are visible inside, for runtimes that size themselves by them.
		limit, err := get(t, first, 8080, "/read", "path", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
		if err != nil {
			limit, err = get(t, first, 8080, "/read", "path", "/sys/fs/cgroup/memory.max")
		}
		if err != nil || strings.TrimSpace(limit) != fmt.Sprint(256<<20) {
			t.Errorf("the memory limit seen inside is %q, %v", limit, err)
		}
	})
}

func TestCPULimit(t *testing.T) {
	e := open(t, "")
	s := serving("spin")
	s.CPU = 100
	i := start(t, e, s)
	spin := func(want func(time.Duration) bool) {
		t.Helper()
		took, err := time.ParseDuration(mustGet(t, i, "/spin", "more", "100ms"))
		if err != nil || !want(took) {
			t.Errorf("100 ms of CPU took %v, %v", took, err)
		}
	}
	spin(func(d time.Duration) bool { return d > 400*time.Millisecond })
	if err := i.SetCPU(0); err != nil {
		t.Fatal(err)
	}
	if err := i.SetCPU(50); err != nil {
		t.Fatal(err)
	}
	spin(func(d time.Duration) bool { return d > 800*time.Millisecond })
	if err := i.SetCPU(1); err != nil {
		t.Errorf("the least: %v", err)
	}
}

func readProc(t *testing.T, pid int, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func procStatus(t *testing.T, pid int, file string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(readProc(t, pid, file)) {
		k, v, _ := strings.Cut(line, ":")
		out[k] = strings.TrimSpace(v)
	}
	return out
}
