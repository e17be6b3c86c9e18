package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups knows where the control groups of this machine are: one tree (v2), or one per controller (v1), beside which
// some machines mount an almost empty v2 tree (hybrid).
type cgroups struct {
	parent  string            // the engine's own group, below the root of each tree
	v2      bool              // controllers are on the unified tree
	unified string            // where a hybrid machine has its v2 tree, or ""
	cover   *os.Root          // what the worker sees at unified, or nil
	trees   map[string]string // v1: controller → mount point; v2: "" → mount point
}

// findCgroups reads the mount table of this process.
func findCgroups(parent string) (*cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := parseCgroups(f)
	if err != nil {
		return nil, err
	}
	c.parent = parent
	return c, nil
}

// parseCgroups reads mountinfo as proc_pid_mountinfo(5) describes it:
// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS
func parseCgroups(mountinfo io.Reader) (*cgroups, error) {
	c := &cgroups{trees: map[string]string{}}
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		switch at := left[4]; right[0] {
		case "cgroup2":
			if c.unified == "" {
				c.unified = at
			}
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				switch option {
				case "cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "net_cls", "net_prio",
					"perf_event", "hugetlb", "rdma", "misc":
					c.trees[option] = at
				default:
					if strings.HasPrefix(option, "name=") {
						c.trees[option] = at
					}
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if c.trees["memory"] == "" {
		if c.unified == "" {
			return nil, errors.New("no cgroup tree is mounted, or none with the memory controller")
		}
		c.v2, c.trees, c.unified = true, map[string]string{"": c.unified}, ""
	}
	return c, nil
}

// hideUnified takes a hybrid machine's v2 tree out of the calling thread's mount namespace: crun up to 1.8 refuses to
// work beside it. It makes its directories there all the same, which must not land in the host's file system below.
func (c *cgroups) hideUnified() (err error) {
	if c.unified == "" {
		return nil
	}
	if err := unix.Unmount(c.unified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", c.unified, err)
	}
	if err := unix.Mount("tmpfs", c.unified, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		"mode=0700,size=16m"); err != nil {
		return fmt.Errorf("cover %s: %w", c.unified, err)
	}
	c.cover, err = os.OpenRoot(c.unified)
	return err
}

// path is the group's path as the OCI configuration wants it: from the root of the tree.
func (c *cgroups) path(name string) string { return "/" + filepath.Join(c.parent, name) }

// file is a control file of a group. Of a v1 machine's trees it is the controller's.
func (c *cgroups) file(name, controller, file string) string {
	if c.v2 {
		controller = ""
	}
	return filepath.Join(c.trees[controller], c.parent, name, file)
}

func (c *cgroups) read(name, controller, file string) (string, error) {
	b, err := os.ReadFile(c.file(name, controller, file))
	return strings.TrimSpace(string(b)), err
}

// warm makes the next move of a process into a group quick. The kernel lets the first such move after a pause wait for
// all its cores (an RCU grace period before it takes cgroup_threadgroup_rwsem, some 8 ms) and the following ones not.
// So, while a container's other parts are being made, this process moves to where it is already.
func (c *cgroups) warm() {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	tree, controller := c.trees[""], ""
	if !c.v2 {
		tree, controller = c.trees["pids"], "pids"
	}
	if own, ok := ownGroup(string(b), controller); ok && tree != "" {
		// If it fails, all that is lost is time.
		os.WriteFile(filepath.Join(tree, own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
}

// ownGroup finds a controller's group in /proc/self/cgroup (cgroups(7)): ID:CONTROLLERS:PATH. The unified tree's
// controller is "".
func ownGroup(text, controller string) (string, bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return f[2], true
		}
	}
	return "", false
}

// hasSwapLimit reports whether the kernel limits swap by group.
func (c *cgroups) hasSwapLimit() bool {
	file := "memory.memsw.limit_in_bytes"
	if c.v2 {
		return false // crun and runc set memory.swap.max themselves where it exists
	}
	_, err := os.Stat(filepath.Join(c.trees["memory"], file))
	return err == nil
}

// mounts lists the distinct trees.
func (c *cgroups) mounts() []string {
	var out []string
	for _, at := range c.trees {
		out = append(out, at)
	}
	if c.unified != "" {
		out = append(out, c.unified)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// kill kills every process in the group and below it, and returns when they are gone.
func (c *cgroups) kill(ctx context.Context, name string) error {
	for {
		if c.v2 { // all at once, so that none can fork away; Linux 5.14 and newer
			_ = os.WriteFile(c.file(name, "", "cgroup.kill"), []byte("1"), 0)
		}
		pids := c.pids(name)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := killAndWait(ctx, pid); err != nil {
				return err
			}
		}
	}
}

// pids lists the processes in the group and below it, in all trees.
func (c *cgroups) pids(name string) []int {
	var out []int
	for _, tree := range c.mounts() {
		filepath.WalkDir(filepath.Join(tree, c.parent, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			b, _ := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					out = append(out, pid)
				}
			}
			return nil
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// killAndWait kills a process and waits for its end, whoever its parent is.
func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for %d: %w", pid, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// remove removes the empty group and all below it from all trees. The kernel may call a group busy for a moment after
// its last process has gone.
func (c *cgroups) remove(name string) error {
	var errs []error
	if c.cover != nil {
		errs = append(errs, c.cover.RemoveAll(filepath.Join(c.parent, name)))
	}
	for _, tree := range c.mounts() {
		var dirs []string
		filepath.WalkDir(filepath.Join(tree, c.parent, name), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		slices.Reverse(dirs) // children first
		for _, d := range dirs {
			err := os.Remove(d)
			for wait := time.Millisecond; errors.Is(err, unix.EBUSY) && wait < time.Second; wait *= 2 {
				time.Sleep(wait)
				err = os.Remove(d)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (c *cgroups) close() error {
	if c.cover == nil {
		return nil
	}
	return c.cover.Close()
}
