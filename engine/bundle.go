package engine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capabilities are those of root in a container: what an installer or a server that drops its privileges needs within
// its own user namespace. Docker's set without MKNOD, NET_RAW, AUDIT_WRITE, SETFCAP and SETPCAP.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
}

// maskedPaths and readonlyPaths are Docker's (moby daemon/pkg/oci/defaults.go).
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// shmSize is Docker's default for /dev/shm, in the form of a tmpfs option.
const shmSize = "size=64m"

// instanceMounts are the file systems of every instance that the runtime mounts.
func instanceMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev",
			Type:        "tmpfs",
			Source:      "tmpfs",
			Options:     []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"},
		},
		{
			Destination: "/dev/pts",
			Type:        "devpts",
			Source:      "devpts",
			Options:     []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{
			Destination: "/dev/shm",
			Type:        "tmpfs",
			Source:      "shm",
			Options:     []string{"nosuid", "noexec", "nodev", "mode=1777", shmSize},
		},
		// Without its own view, a process (a JVM, say) would size itself by the machine.
		{
			Destination: "/sys/fs/cgroup",
			Type:        "cgroup",
			Source:      "cgroup",
			Options:     []string{"ro", "nosuid", "noexec", "nodev"},
		},
	}
}

// bundle returns the OCI configuration of an instance.
func (e *Engine) bundle(i *Instance, s *Spec, u user) (*specs.Spec, error) {
	env := slices.Clone(s.Env)
	for key, value := range map[string]string{"PATH": DefaultPath, "HOME": u.home} {
		if _, ok := getenv(env, key); !ok {
			env = append(env, key+"="+value)
		}
	}
	hostname := s.Hostname
	if hostname == "" {
		hostname = "localhost"
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: i.slot.base, Size: slotSize}}
	// As on Cloud Run. More than the hard limit that we have ourselves would need CAP_SYS_RESOURCE.
	files := min(instanceFiles, e.limit.Max)

	spec := &specs.Spec{
		Version:  "1.0.2",
		Hostname: hostname,
		Root:     &specs.Root{Path: "root"},
		Process: &specs.Process{
			Args: s.Args,
			Env:  env,
			Cwd:  dir,
			User: specs.User{UID: u.uid, GID: u.gid, AdditionalGids: u.groups},
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
			NoNewPrivileges: true,
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: files, Hard: files},
				{Type: "RLIMIT_CORE"},
			},
		},
		Mounts: instanceMounts(),
		Linux: &specs.Linux{
			CgroupsPath: e.cgroups.path(i.group),
			UIDMappings: ids,
			GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.UserNamespace}, {Type: specs.CgroupNamespace},
				{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), i.net.Fd())},
			},
			Resources:     e.resources(s),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
	e.seccompOnce.Do(func() { e.seccomp, e.seccompErr = filter(spec) })
	if e.seccompErr != nil {
		return nil, e.seccompErr
	}
	spec.Linux.Seccomp = e.seccomp
	return spec, e.giveGPUs(i, spec, s.GPUs)
}

func (e *Engine) resources(s *Spec) *specs.LinuxResources {
	pids := s.Pids
	if pids == 0 {
		pids = 4096
	}
	r := &specs.LinuxResources{
		// the runtime allows null, zero and their kind
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Pids:    &specs.LinuxPids{Limit: &pids},
	}
	if s.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &s.Memory}
		if e.cgroups.v2 || e.cgroups.hasSwapLimit() {
			r.Memory.Swap = &s.Memory // memory and swap together: no swap
		}
	}
	if s.CPU > 0 {
		// The weight only: under the quota, the runtime's own work in the container would be throttled as well. It
		// comes when the container stands. One core is the kernel's default weight.
		if e.cgroups.v2 { // by its own name: the runtimes make 39 of v1's default, and newer ones 100
			r.Unified = map[string]string{"cpu.weight": strconv.FormatInt(min(max(s.CPU/10, 1), 10_000), 10)}
		} else {
			shares := max(uint64(s.CPU)*1024/1000, 2)
			r.CPU = &specs.LinuxCPU{Shares: &shares}
		}
	}
	return r
}

// sockets are the address families that an instance may have. Docker's profile allows some thirty more, which are
// nothing but reach into the kernel for a hostile process.
var sockets = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// filter is Docker's default seccomp profile for the machine's own architecture only: with the usual two 32-bit ones
// beside it, compiling takes 20 ms longer at each start.
func filter(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	arch, ok := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no seccomp architecture for %s", runtime.GOARCH)
	}
	profile.Architectures = []specs.Arch{arch}
	profile.Syscalls = slices.DeleteFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool {
		return slices.Equal(s.Names, []string{"socket"})
	})
	for _, family := range sockets {
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{
			Names: []string{"socket"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: family, Op: specs.OpEqualTo}},
		})
	}
	return profile, nil
}
