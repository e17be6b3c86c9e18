package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/fault"
)

// The unified tree of a machine, played by plain files: what is written where, and what is said where that can't work.
func TestDelegate(t *testing.T) {
	for name, tt := range map[string]struct {
		v2          bool
		controllers string
		fails       string
	}{
		"v1":                         {false, "", ""},
		"systemd's":                  {true, "cpuset cpu io memory hugetlb pids rdma misc\n", ""},
		"no memory":                  {true, "cpuset cpu io pids\n", "no controller for memory. Start the kernel with cgroup_enable=memory"},
		"a hybrid machine's":         {true, "\n", "no controller for cpu and memory and pids."},
		"names that only look alike": {true, "cpuset memory pids_x pids\n", "no controller for cpu."},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cgroups{parent: "giggle-x", v2: tt.v2, trees: map[string]string{"": t.TempDir()}}
			root := c.trees[""]
			if err := writeAll(filepath.Join(root, "cgroup.controllers"), tt.controllers); err != nil {
				t.Fatal(err)
			}
			err := c.delegate()
			if tt.fails != "" {
				if !fault.Is(err, fault.FailedPrecondition) || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range []string{"", "giggle-x"} {
				b, err := os.ReadFile(filepath.Join(root, group, "cgroup.subtree_control"))
				if tt.v2 && string(b) != "+cpu +memory +pids" || !tt.v2 && err == nil {
					t.Errorf("in %q: %q, %v", group, b, err)
				}
			}
		})
	}
}

func TestMissingControllers(t *testing.T) {
	for file, want := range map[string][]string{
		"cpu memory pids": nil, "pids misc memory cpu\n": nil, "": {"cpu", "memory", "pids"},
		"cpuset,cpu memory\npids": {"cpu"},
	} {
		if got := MissingControllers(file); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

// On the kernel's own unified tree, which hybrid machines have as well: a group's processes are moved into one below
// it, and are killed there with those of the group above.
func TestUnifiedTree(t *testing.T) {
	found, err := findCgroups("giggle-test-" + fmt.Sprint(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	c := &cgroups{parent: found.parent, v2: true, trees: map[string]string{"": found.unified}}
	if found.v2 {
		c = found
	}
	group := filepath.Join(c.trees[""], c.parent)
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := c.enter("", cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nobody
		if err := evacuate(group, "leaf"); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"": "", "leaf": fmt.Sprint(cmd.Process.Pid)} {
			if got, err := c.read(name, "", "cgroup.procs"); err != nil || got != want {
				t.Errorf("in %q: %q, %v, want %q", name, got, err, want)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.kill(ctx, ""); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended with %v", err)
	}
	if err := c.remove(""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(group); err == nil {
		t.Error("the group is still there")
	}
}
