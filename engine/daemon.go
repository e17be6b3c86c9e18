package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"giggle/engine/egress"
	"giggle/engine/netns"
	"giggle/fault"
)

// Limits bound a group of processes. 0 sets no limit.
type Limits struct {
	Memory int64 // bytes
	Pids   int64 // processes and threads
}

// Where a daemon finds what it is given.
const (
	DaemonState    = "/state"        // DaemonSpec.Dir
	DaemonPrograms = "/opt/giggle"   // DaemonSpec.Programs
	DaemonRun      = "/run"          // writable, in memory
	DaemonGate     = "/run/gate"     // the socket where containers are announced; see Gate
	daemonRootSize = "size=64m"      // of what it writes outside its state
	daemonName     = "giggle-daemon" // by which our program is DaemonInit
)

// DaemonSpec says which program of the host to run beside the instances: one that makes containers of its own, such as
// BuildKit's. It works for strangers, so it is a stranger to the host itself: root in a user namespace of its own, with
// a file system that holds the host's /usr and what is named here.
type DaemonSpec struct {
	ID   string   // letters, digits and hyphens
	Args []string // a path in its own file system first
	Env  []string //
	// a directory of the host: its DaemonState. Owners are mapped: what is root's inside is root's in it
	Dir      string
	Programs map[string]string // programs of the host by their names in DaemonPrograms
	Files    []File            // other files that it finds, also laid over the host's for the commands of Start
	Output   io.Writer
	Sockets  Sockets // of the daemon itself

	All        Limits // of all daemons of the engine together: the same in each spec
	Whole      Limits // of the daemon and its containers
	Containers Limits // of its containers together
	Each       Limits // of each container
	// ContainerSockets is what answers in the network of each container.
	ContainerSockets Sockets
}

// Daemon is a program that Engine.Daemon started.
type Daemon struct {
	e      *Engine
	spec   DaemonSpec
	group  string
	root   string // its file system, as its worker sees it
	cmd    *exec.Cmd
	worker *worker
	slot   *slot
	net    *netns.Namespace
	gate   *net.UnixListener
	closes []func() error
	ctx    context.Context // ends with the program
	done   chan struct{}
	err    error

	mu         sync.Mutex
	serial     int
	containers sync.WaitGroup
}

// daemons is the group of all daemons.
const daemons = "daemons"

// Daemon starts a program with namespaces of its own: users, mounts, processes, network. It is killed when the platform
// is, and all that it has started with it: it is the first process of its process namespace. The caller ends it with
// Stop.
func (e *Engine) Daemon(ctx context.Context, s DaemonSpec) (_ *Daemon, err error) {
	defer fault.Wrap(&err, "engine.Daemon(%s)", s.ID)
	d := &Daemon{
		e:     e,
		spec:  s,
		group: path.Join(daemons, s.ID),
		root:  filepath.Join(e.run, "daemon-"+s.ID),
		done:  make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release())
		}
	}()
	for _, g := range []struct {
		name string
		Limits
	}{{daemons, s.All}, {d.group, s.Whole}, {d.group + "/self", Limits{}}, {d.group + "/run", s.Containers}} {
		if err := e.cgroups.limit(g.name, g.Memory, g.Pids); err != nil {
			return nil, err
		}
	}
	if d.slot, err = e.slots.take(); err != nil {
		return nil, err
	}
	if d.net, err = e.nets.Get(ctx); err != nil {
		return nil, err
	}
	if _, d.closes, err = e.serve(d.net, s.Sockets); err != nil {
		return nil, err
	}
	if d.worker, err = startWorker(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(d.root), os.Mkdir(d.root, 0o711)); err != nil {
		return nil, err
	}
	d.closes = append(d.closes, func() error { return os.RemoveAll(d.root) })
	if err := d.worker.do(d.furnish); err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	go d.admit()
	return d, nil
}

// furnish makes the daemon's file system. It runs on the worker, whose mounts nobody else sees.
func (d *Daemon) furnish() error {
	if err := unix.Mount("tmpfs", d.root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
		"mode=0755,"+daemonRootSize); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: d.root, Err: err}
	}
	for _, dir := range []string{"proc", "sys", "dev", "etc", "usr", DaemonPrograms, DaemonState, DaemonRun, "tmp",
		"var/lib"} {
		if err := os.MkdirAll(d.in(dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{DaemonRun, "tmp", "var/lib"} {
		if err := os.Chown(d.in(dir), int(d.slot.base), int(d.slot.base)); err != nil {
			return err
		}
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := d.system(readOnly); err != nil {
		return err
	}
	for name, from := range d.spec.Programs {
		if err := d.lay(from, path.Join(DaemonPrograms, name), readOnly); err != nil {
			return err
		}
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := d.lay("/dev/"+device, "dev/"+device, &unix.MountAttr{}); err != nil {
			return err
		}
	}
	for _, f := range d.spec.Files {
		to := d.in(f.Path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f.Data, 0o644); err != nil {
			return err
		}
		over, err := filepath.EvalSymlinks(f.Path)
		if err != nil {
			continue // this host has none to be laid over, for what Start starts
		}
		if err := unix.Mount(to, over, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("lay a file over %s: %w", over, err)
		}
	}
	userns, err := d.slot.userns()
	if err != nil {
		return err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV, Userns_fd: uint64(userns)}
	if err := bind(d.spec.Dir, unix.AT_FDCWD, d.in(DaemonState), attr); err != nil {
		return err
	}
	if d.gate, err = net.ListenUnix("unix", &net.UnixAddr{Name: d.in(DaemonGate)}); err != nil {
		return err
	}
	return os.Chown(d.in(DaemonGate), int(d.slot.base), int(d.slot.base))
}

// in is a path of the daemon's file system, as the worker sees it.
func (d *Daemon) in(p string) string { return filepath.Join(d.root, p) }

// lay shows a file of the host.
func (d *Daemon) lay(from, at string, attr *unix.MountAttr) error {
	if err := os.WriteFile(d.in(at), nil, 0o644); err != nil {
		return err
	}
	return bind(from, unix.AT_FDCWD, d.in(at), attr)
}

// system shows the host's programs, its control groups to look at, and devices without those of its network.
func (d *Daemon) system(readOnly *unix.MountAttr) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"} {
		st, err := os.Lstat("/" + dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink("/" + dir)
			if err != nil {
				return err
			}
			if err := os.Symlink(to, d.in(dir)); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(d.in(dir), 0o755); err != nil {
			return err
		}
		if err := bind("/"+dir, unix.AT_FDCWD, d.in(dir), readOnly); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/etc/ld.so.cache"); err == nil {
		if err := d.lay("/etc/ld.so.cache", "etc/ld.so.cache", readOnly); err != nil {
			return err
		}
	}
	tree, err := newSysfs(d.net.Fd(), int(d.e.host.Fd()))
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := move(tree, unix.AT_FDCWD, d.in("sys")); err != nil {
		return err
	}
	// The container runtime asks for them, and is content with not being let.
	groups := d.in("sys/fs/cgroup")
	if err := unix.Mount("/sys/fs/cgroup", groups, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show the control groups: %w", err)
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, groups, unix.AT_RECURSIVE, readOnly))
}

// start starts the program by way of DaemonInit, which has this program's name daemonName.
func (d *Daemon) start() error {
	ready, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = hold.Close() }() // lets it go on, or not
	defer func() { _ = ready.Close() }()
	d.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{daemonName, d.root}, d.spec.Args...)}
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr, d.cmd.Dir = d.spec.Env, d.spec.Output, d.spec.Output, "/"
	d.cmd.ExtraFiles = []*os.File{ready}
	d.cmd.WaitDelay = outputDrainTimeout
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(d.slot.base), Size: slotSize}}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		// The thread that starts it lives as long as the worker, so the signal comes when the platform ends.
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	}
	err = d.worker.do(func() error {
		if err := unix.Setns(d.net.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return d.cmd.Start()
	})
	if err != nil {
		d.cmd = nil
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.ctx = ctx
	go func() {
		d.err = d.cmd.Wait()
		cancel()
		close(d.done)
	}()
	if err := d.e.cgroups.enter(d.group+"/self", d.cmd.Process.Pid); err != nil {
		return errors.Join(err, d.cmd.Process.Kill())
	}
	_, err = hold.Write([]byte{1})
	return err
}

// IsDaemonInit reports whether this process was started to become a daemon. Such a process calls DaemonInit first of
// all.
func IsDaemonInit(args []string) bool { return len(args) > 0 && args[0] == daemonName }

// DaemonInit makes its file system the process's own and becomes the daemon. It returns only when that fails.
func DaemonInit(args, environ []string) error {
	if len(args) < 3 {
		return errors.New("it is started by the platform only")
	}
	root, argv := args[1], args[2:]
	ready := os.NewFile(3, "ready")
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil { // it is in no group yet
		return fmt.Errorf("the platform gave up: %w", err)
	}
	if err := ready.Close(); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"bind the root", func() error { return unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, "") }},
		{"mount /proc", func() error {
			return unix.Mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
				"")
		}},
		{"chdir", func() error { return unix.Chdir(root) }},
		{"pivot_root", func() error { return unix.PivotRoot(".", ".") }}, // the old root lies over the new one now
		{"let go of the host's file system", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		{"chdir", func() error { return unix.Chdir("/") }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return &os.PathError{Op: "exec", Path: argv[0], Err: unix.Exec(argv[0], argv, environ)}
}

// Gate is a connection to the platform of a process inside a daemon that is about to become a container. It must stay
// open as long as the container lives, whatever the process becomes: its end is the container's.
type Gate struct{ c *net.UnixConn }

// OpenGate connects, in the daemon's own network.
func OpenGate() (*Gate, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: DaemonGate})
	return &Gate{c}, err
}

// Announce has the platform put this process into a group of its own, with limits, and, where network is the descriptor
// of a network namespace, furnish that one as a container's. It returns what keeps the connection open.
func (g *Gate) Announce(network int) (connection *os.File, err error) {
	c := g.c
	defer func() { _ = c.Close() }() // the file is another descriptor
	var rights []byte
	if network >= 0 {
		rights = unix.UnixRights(network)
	}
	if _, _, err := c.WriteMsgUnix([]byte{1}, rights, nil); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 1))
	if err != nil || len(answer) != 1 {
		return nil, errors.New("the platform let no container start")
	}
	return c.File()
}

// admit takes announcements of containers until the gate is closed.
func (d *Daemon) admit() {
	for {
		c, err := d.gate.AcceptUnix()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.serial++
		group := d.group + "/run/" + strconv.Itoa(d.serial)
		d.mu.Unlock()
		d.containers.Go(func() {
			if err := d.contain(c, group); err != nil {
				d.e.log.Error("container of a daemon", "daemon", d.spec.ID, "err", err)
			}
		})
	}
}

// announceTimeout bounds how long an announcement takes to be said.
const announceTimeout = 10 * time.Second

// contain holds a container's group and network for as long as its connection is open.
func (d *Daemon) contain(c *net.UnixConn, group string) (err error) {
	defer func() { _ = c.Close() }() // the other end has the news then
	stop := context.AfterFunc(d.ctx, func() { _ = c.Close() })
	defer stop()
	pid, network, err := announced(c)
	if network != nil {
		defer func() { _ = network.Close() }() // its namespace's file, once it is adopted
	}
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err = errors.Join(err, d.e.cgroups.kill(ctx, group), d.e.cgroups.remove(group))
	}()
	if err := d.e.cgroups.limit(group, d.spec.Each.Memory, d.spec.Each.Pids); err != nil {
		return err
	}
	if err := d.e.cgroups.enter(group, pid); err != nil {
		return err
	}
	if network != nil {
		ns, err := netns.Adopt(network)
		if err != nil {
			return err
		}
		defer func() { _ = ns.Close() }() // the container is gone
		_, closes, err := d.e.serve(ns, d.spec.ContainerSockets)
		defer func() {
			for _, c := range closes {
				_ = c() // a listener may be closed already
			}
		}()
		if err != nil {
			return err
		}
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return nil // it has given up
	}
	_, _ = c.Read(make([]byte, 1)) // however it ends, it has ended
	return nil
}

// announced reads an announcement: who says it, and with which network.
func announced(c *net.UnixConn) (pid int, network *os.File, err error) {
	if err := c.SetReadDeadline(time.Now().Add(announceTimeout)); err != nil {
		return 0, nil, err
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return 0, nil, err
	}
	if n > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			return 0, nil, errors.Join(err, errors.New("the announcement of a container is not understood"))
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return 0, nil, errors.Join(err, errors.New("the announcement of a container is not understood"))
		}
		network = os.NewFile(uintptr(fds[0]), "network")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, network, err
	}
	var who *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) {
		who, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED)
	}); err != nil {
		return 0, network, err
	}
	if got != nil {
		return 0, network, got
	}
	return int(who.Pid), network, c.SetReadDeadline(time.Time{})
}

// Start starts a command of the host in the daemon's network and among its processes: a client of it, which finds the
// daemon's files at Path. It must not be called after Stop. The caller waits for the command.
func (d *Daemon) Start(cmd *exec.Cmd) error {
	if err := d.worker.do(cmd.Start); err != nil {
		return err
	}
	if err := d.e.cgroups.enter(d.group+"/self", cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill() // the error tells more
		return errors.Join(err, cmd.Wait())
	}
	return nil
}

// Path is where the commands that Start starts see a file of the daemon's own, such as its socket.
func (d *Daemon) Path(p string) string { return d.in(p) }

// Dial connects to a Unix socket of the daemon.
func (d *Daemon) Dial(socket string) (c net.Conn, err error) {
	err = d.worker.do(func() (err error) { c, err = net.Dial("unix", d.in(socket)); return err })
	return c, err
}

// Done is closed when the program has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Err is how the program ended, once Done is closed.
func (d *Daemon) Err() error { return d.err }

// Stop ends the program: SIGTERM, and after grace SIGKILL, for it and all that it has started.
func (d *Daemon) Stop(grace time.Duration) error {
	if grace > 0 {
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-d.done:
		case <-timer.C:
		}
	}
	return d.release()
}

// release kills what is left and gives back all that the daemon held.
func (d *Daemon) release() error {
	if d.gate != nil {
		_ = d.gate.Close() // its file goes with the file system
	}
	if d.cmd != nil {
		_ = d.cmd.Process.Kill() // it may have ended
		<-d.done
		d.containers.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	errs := []error{d.e.cgroups.kill(ctx, d.group)}
	if d.worker != nil {
		d.worker.stop()
	}
	for _, c := range d.closes {
		_ = c() // a listener may be closed already
	}
	if d.net != nil {
		errs = append(errs, d.net.Close())
	}
	errs = append(errs, d.e.cgroups.remove(d.group))
	if d.slot != nil {
		d.e.slots.give(d.slot)
	}
	return errors.Join(errs...)
}

// serve opens the platform's sockets in a network namespace and hands them out, and arms the way to the outside.
func (e *Engine) serve(ns *netns.Namespace, s Sockets) (way *egress.Link, closes []func() error, err error) {
	if closes, err = serve(ns, s, &share{of: e.conns}); err != nil || s.Outside == nil {
		return nil, closes, err
	}
	way, err = e.egress.Arm(ns, s.Outside)
	return way, append(closes, way.Close), err
}

// serve opens the platform's sockets in a network namespace and hands them out.
func serve(ns *netns.Namespace, s Sockets, conns *share) (closes []func() error, err error) {
	listen := func(port uint16, most int, serve func(net.Listener)) error {
		if serve == nil {
			return nil
		}
		l, err := ns.Listen(port)
		if err != nil {
			return err
		}
		closes = append(closes, l.Close)
		b := &bounded{Listener: l, share: conns, most: most, each: 1}
		if port == databasePort {
			b.each, b.original = 2, true
		}
		go serve(b)
		return nil
	}
	if err := listen(80, metadataConns, s.Metadata); err != nil {
		return closes, err
	}
	if err := listen(443, edgeConns, s.Edge); err != nil {
		return closes, err
	}
	if err := listen(databasePort, hostConns, s.Databases); err != nil {
		return closes, err
	}
	if len(s.Host) > 0 {
		ports := slices.Sorted(maps.Keys(s.Host))
		listeners, err := ns.ListenHost(ports)
		if err != nil {
			return closes, err
		}
		for k, l := range listeners {
			closes = append(closes, l.Close)
			go s.Host[ports[k]](&bounded{Listener: l, share: conns, most: hostConns, each: 2})
		}
	}
	if s.DNS == nil {
		return closes, nil
	}
	udp, err := ns.ListenPacket(53)
	if err != nil {
		return closes, err
	}
	closes = append(closes, udp.Close)
	return closes, listen(53, dnsConns, func(tcp net.Listener) { s.DNS(udp, tcp) })
}
