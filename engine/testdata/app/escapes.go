package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// escapes tries what a hostile process would, as the container's root, and returns what was allowed, by name, and how
// many were tried.
func escapes(host, abstract string) map[string]any {
	tried, allowed := 0, []string{}
	try := func(name string, fn func() error) {
		tried++
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: a thread that got away is not used again
			done <- fn()
		}()
		if err := <-done; err == nil {
			allowed = append(allowed, name)
		}
	}
	call := func(name string, nr uintptr, args ...uintptr) {
		try(name, func() error {
			var a [6]uintptr
			copy(a[:], args)
			_, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno != syscall.EPERM && errno != syscall.ENOSYS && errno != syscall.EACCES &&
				errno != syscall.EAFNOSUPPORT {
				// Anything else, EINVAL or EFAULT, means that the kernel's code was reached.
				return nil
			}
			return errno
		})
	}
	write := func(path, text string) {
		try("write "+path, func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(text)
			return err
		})
	}
	read := func(path string) {
		try("read "+path, func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			n, err := f.Read(make([]byte, 16))
			if n == 0 {
				return fmt.Errorf("empty: %w", os.ErrNotExist)
			}
			return err
		})
	}
	dial := func(network, addr string) {
		try("dial "+network+" "+addr, func() error {
			c, err := net.DialTimeout(network, addr, 2*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	str := func(s string) uintptr { p, _ := unix.BytePtrFromString(s); return uintptr(unsafe.Pointer(p)) }

	// Mounts and namespaces.
	call("mount tmpfs", unix.SYS_MOUNT, str("none"), str("/tmp"), str("tmpfs"), 0, 0)
	call("mount proc", unix.SYS_MOUNT, str("none"), str("/tmp"), str("proc"), 0, 0)
	call("remount / rw", unix.SYS_MOUNT, str("none"), str("/"), 0, unix.MS_REMOUNT, 0)
	call("remount /sys rw", unix.SYS_MOUNT, str("none"), str("/sys"), 0, unix.MS_REMOUNT|unix.MS_BIND, 0)
	call("umount /proc/kcore", unix.SYS_UMOUNT2, str("/proc/kcore"), 0)
	call("umount /sys", unix.SYS_UMOUNT2, str("/sys"), unix.MNT_DETACH)
	call("pivot_root", unix.SYS_PIVOT_ROOT, str("/"), str("/tmp"))
	call("fsopen", unix.SYS_FSOPEN, str("tmpfs"), 0)
	call("open_tree clone", unix.SYS_OPEN_TREE, ^uintptr(99), str("/"), unix.OPEN_TREE_CLONE)
	call("move_mount", unix.SYS_MOVE_MOUNT, 3, str(""), 4, str(""), 0)
	call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	call("unshare net", unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	try("clone user", func() error {
		cmd := exec.Command("/proc/self/exe", "exit", "0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		return cmd.Run()
	})
	try("setns", func() error {
		fd, err := unix.Open("/proc/1/ns/net", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Setns(fd, 0)
	})
	try("chroot out", func() error {
		if err := os.MkdirAll("/tmp/jail", 0o755); err != nil {
			return err
		}
		here, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Chroot("/tmp/jail"); err != nil {
			return err
		}
		if err := unix.Fchdir(here); err != nil {
			return err
		}
		for range 50 {
			unix.Chdir("..")
		}
		if err := unix.Chroot("."); err != nil {
			return err
		}
		_, err = os.Stat("/app") // back at the container's own root: caught
		if err == nil {
			return os.ErrPermission
		}
		return nil
	})

	// Devices.
	for name, dev := range map[string]uint64{"mem": unix.Mkdev(1, 1), "vda": unix.Mkdev(254, 0),
		"sda": unix.Mkdev(8, 0), "kvm": unix.Mkdev(10, 232), "fuse": unix.Mkdev(10, 229)} {
		try("mknod and open "+name, func() error {
			p := "/tmp/" + name
			if err := unix.Mknod(p, unix.S_IFBLK|0o666, int(dev)); err != nil {
				if err := unix.Mknod(p, unix.S_IFCHR|0o666, int(dev)); err != nil {
					return err
				}
			}
			fd, err := unix.Open(p, unix.O_RDONLY, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		})
	}
	for _, p := range []string{"/dev/mem", "/dev/kvm", "/dev/kmsg", "/dev/vda", "/dev/fuse", "/dev/net/tun",
		"/dev/loop-control"} {
		read(p)
	}

	// The kernel's own business.
	call("bpf", unix.SYS_BPF, 0, 0, 0)
	call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0)
	call("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2), 1)
	call("add_key", unix.SYS_ADD_KEY, str("user"), str("x"), str("y"), 1, ^uintptr(2))
	call("request_key", unix.SYS_REQUEST_KEY, str("user"), str("x"), 0, 0)
	call("userfaultfd", unix.SYS_USERFAULTFD, 1)
	call("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, 0)
	call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, 0, 0)
	call("init_module", unix.SYS_INIT_MODULE, 0, 0, 0)
	call("finit_module", unix.SYS_FINIT_MODULE, 0, 0, 0)
	call("delete_module", unix.SYS_DELETE_MODULE, str("x"), 0)
	call("syslog", unix.SYS_SYSLOG, 3, 0, 0)
	call("settimeofday", unix.SYS_SETTIMEOFDAY, 0, 0)
	call("clock_settime", unix.SYS_CLOCK_SETTIME, 0, 0)
	call("sethostname", unix.SYS_SETHOSTNAME, str("pwned"), 5)
	call("setdomainname", unix.SYS_SETDOMAINNAME, str("pwned"), 5)
	call("reboot", unix.SYS_REBOOT, 0, 0, 0, 0)
	call("swapon", unix.SYS_SWAPON, str("/tmp"), 0)
	call("acct", unix.SYS_ACCT, 0)
	call("quotactl", unix.SYS_QUOTACTL, 0, 0, 0, 0)
	call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0)
	call("fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0)
	call("vhangup", unix.SYS_VHANGUP)
	call("kcmp", unix.SYS_KCMP, 1, 1, 0, 0, 0)
	call("move_pages", unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 0)
	call("lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, 0, 0, 0)
	call("pidfd_getfd", unix.SYS_PIDFD_GETFD, 0, 0, 0)
	try("capset", func() error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		d := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}}
		return unix.Capset(&h, &d[0])
	})
	try("raise open files", func() error {
		var l unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
		l.Max++
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	})
	try("nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -10) })
	try("real time", func() error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: 1, Priority: 10}, 0)
	})
	write("/proc/self/oom_score_adj", "-1000")

	// Other processes.
	try("ptrace a stranger", func() error { return unix.PtraceAttach(os.Getppid()) })
	try("see more than itself", func() error {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if n := e.Name(); n[0] >= '0' && n[0] <= '9' && n != "1" {
				b, err := os.ReadFile("/proc/" + n + "/cmdline")
				if err == nil && !strings.HasPrefix(string(b), "/") {
					return nil
				}
			}
		}
		return os.ErrPermission
	})
	try("process_vm_readv a stranger", func() error {
		b := make([]byte, 8)
		local := []unix.Iovec{{Base: &b[0], Len: 8}}
		_, err := unix.ProcessVMReadv(os.Getppid(), local, []unix.RemoteIovec{{
			Base: uintptr(unsafe.Pointer(&b[0])),
			Len:  8,
		}}, 0)
		return err
	})

	// Files of the kernel.
	write("/proc/sys/kernel/core_pattern", "|/tmp/x")
	write("/proc/sys/kernel/hostname", "pwned")
	write("/proc/sys/net/ipv4/ip_forward", "1")
	write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024")
	write("/proc/sys/vm/drop_caches", "1")
	write("/proc/sysrq-trigger", "b")
	write("/sys/kernel/mm/transparent_hugepage/enabled", "never")
	write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1")
	write("/sys/fs/cgroup/memory.max", "max")
	write("/sys/fs/cgroup/cgroup.procs", "1")
	write("/sys/fs/cgroup/memory/release_agent", "/tmp/x")
	read("/proc/kcore")
	read("/proc/keys")
	read("/proc/timer_list")
	read("/sys/firmware/dmi/tables/DMI")
	try("make a cgroup", func() error { return os.Mkdir("/sys/fs/cgroup/memory/mine", 0o755) })
	try("remake /sys writable", func() error { return os.Chmod("/sys/kernel", 0o777) })

	// The network.
	for name, s := range map[string][3]int{
		"raw ICMP": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "packet": {unix.AF_PACKET, unix.SOCK_RAW, 0},
		"raw IPv6": {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}, "vsock": {unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		"alg": {unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, "key": {unix.AF_KEY, unix.SOCK_RAW, 2},
		"xdp":  {unix.AF_XDP, unix.SOCK_RAW, 0},
		"tipc": {unix.AF_TIPC, unix.SOCK_STREAM, 0}, "bluetooth": {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
		"can": {unix.AF_CAN, unix.SOCK_RAW, 1},
	} {
		call("socket "+name, unix.SYS_SOCKET, uintptr(s[0]), uintptr(s[1]), uintptr(s[2]))
	}
	dial("tcp", host)
	dial("tcp", "169.254.169.254:61080")
	dial("tcp", "10.0.0.1:80")
	dial("tcp", "[fe80::1]:80")
	dial("unix", abstract)
	try("new network card", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		ifr, _ := unix.NewIfreq("lo")
		ifr.SetUint16(0)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr) // take lo down
	})
	try("see the host's network cards", func() error {
		entries, err := os.ReadDir("/sys/class/net")
		if err == nil && len(entries) == 1 {
			return os.ErrPermission
		}
		return err
	})
	return map[string]any{"allowed": allowed, "tried": tried}
}
