package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// controllers are what the limits of instances need of cgroups.
var controllers = []string{"cpu", "memory", "pids"}

// delegate makes the engine's own group on the unified tree and has the controllers handed down into it: there, each
// level enables them for the next (cgroups(7)). The runtimes do the same, but leave out in silence what they can't
// enable, and with it the limit.
func (c *cgroups) delegate() error {
	if !c.v2 {
		return nil
	}
	root := c.trees[""]
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if missing := MissingControllers(string(b)); len(missing) > 0 {
		return fault.New(fault.FailedPrecondition, "The cgroup tree at %s has no controller for %s. %s", root,
			strings.Join(missing, " and "), EnableControllers)
	}
	own := filepath.Join(root, c.parent)
	if err := os.Mkdir(own, 0o755); errors.Is(err, unix.EROFS) {
		return fault.New(fault.FailedPrecondition,
			"The cgroup tree at %s is read-only, as in a container that is not privileged. Limits need it writable.",
			root)
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err = enable(root)
	if errors.Is(err, unix.EBUSY) {
		if err = evacuate(root, "giggle-init"); err == nil {
			err = enable(root)
		}
	}
	if err != nil {
		return fmt.Errorf("hand down the controllers of %s: %w", root, err)
	}
	return enable(own)
}

// EnableControllers says how the kernel gets controllers that it lacks.
const EnableControllers = "Start the kernel with cgroup_enable=memory and without cgroup_disable; in a container, have the groups above it hand them down."

// MissingControllers lists the controllers that the limits of instances need and a cgroup.controllers file (cgroups(7))
// does not have.
func MissingControllers(file string) (missing []string) {
	have := strings.Fields(file)
	for _, controller := range controllers {
		if !slices.Contains(have, controller) {
			missing = append(missing, controller)
		}
	}
	return missing
}

// enable has the controllers work in the groups directly below one.
func enable(group string) error {
	return os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+strings.Join(controllers, " +")), 0)
}

// evacuate moves the processes of a group into one below. Only the machine's first group may have both processes and
// controllers for those below; in a container, the first group that is seen is another one, and has the container's
// processes in it.
func evacuate(group, into string) error {
	leaf := filepath.Join(group, into)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for range 100 { // they may fork meanwhile
		b, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil {
			return err
		}
		pids := strings.Fields(string(b))
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0); err != nil &&
				!errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %s: %w", pid, err)
			}
		}
	}
	return fmt.Errorf("%s: processes come faster than they can be moved", group)
}

// cpuPeriod is the kernel's usual one, in µs.
const cpuPeriod = 100_000

// cpuQuota turns millicores into µs per period; 0 is no limit.
func cpuQuota(millicores int64) int64 {
	if millicores == 0 {
		return -1
	}
	return max(millicores, minCPU) * cpuPeriod / 1000
}

// setCPU changes a group's CPU limit.
func (c *cgroups) setCPU(name string, millicores int64) error {
	quota := strconv.FormatInt(cpuQuota(millicores), 10)
	if !c.v2 {
		return os.WriteFile(c.file(name, "cpu", "cpu.cfs_quota_us"), []byte(quota), 0)
	}
	if millicores == 0 {
		quota = "max"
	}
	return os.WriteFile(c.file(name, "", "cpu.max"), fmt.Appendf(nil, "%s %d", quota, cpuPeriod), 0)
}

// kernelPids is how many processes and threads the kernel can have at once.
func kernelPids() int64 {
	most := int64(32768) // its own first choice
	for i, file := range []string{"pid_max", "threads-max"} {
		b, err := os.ReadFile("/proc/sys/kernel/" + file)
		n, e := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && e == nil && (i == 0 || n < most) {
			most = n
		}
	}
	return most
}

// nest makes the groups that an instance is in, each below the one before, with their limits, and returns the path of
// the last. The kernel counts all that is in a group and below it.
func (c *cgroups) nest(groups []Group) (path string, err error) {
	for _, g := range groups {
		path = filepath.Join(path, "group-"+g.Name)
		if err := c.limit(path, g.Memory, g.Pids); err != nil {
			return "", err
		}
		if c.v2 {
			if err := enable(filepath.Join(c.trees[""], c.parent, path)); err != nil {
				return "", err
			}
		}
	}
	return path, nil
}

// limit makes a group, with limits for all that is in it and below; 0 is no limit.
func (c *cgroups) limit(name string, memory, pids int64) error {
	for _, tree := range c.mounts() {
		if tree == c.unified {
			continue
		}
		if err := os.MkdirAll(filepath.Join(tree, c.parent, name), 0o755); err != nil {
			return err
		}
	}
	if c.v2 { // each level hands the controllers down to the next
		for i, r := range name {
			if r == '/' {
				if err := enable(filepath.Join(c.trees[""], c.parent, name[:i])); err != nil {
					return err
				}
			}
		}
	}
	set := func(controller, v1, v2 string, value int64) error {
		file := v1
		if c.v2 {
			file = v2
		}
		if value == 0 {
			return nil
		}
		return os.WriteFile(c.file(name, controller, file), []byte(strconv.FormatInt(value, 10)), 0)
	}
	return errors.Join(set("memory", "memory.limit_in_bytes", "memory.max", memory),
		set("pids", "pids.max", "pids.max", pids))
}

// enter moves a process into a group, in all trees.
func (c *cgroups) enter(name string, pid int) error {
	for _, tree := range c.mounts() {
		if tree == c.unified {
			continue
		}
		dir := filepath.Join(tree, c.parent, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if tree == c.trees["cpuset"] { // a new group has no CPUs until it is told which
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}
