package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"giggle/engine/egress"
	"giggle/engine/lan"
	"giggle/engine/netns"
	"giggle/fault"
)

// Instance is one container, from Prepare to its end. It cleans up after itself once its process has ended; Stop only
// hastens that.
type Instance struct {
	e     *Engine
	id    string
	name  string // the engine's own name for it, never used twice
	group string // its cgroup, below the engine's own

	slot   *slot
	net    *netns.Namespace
	way    *egress.Link // to the outside, or nil
	lan    *lan.Host
	root   *os.File // O_PATH
	files  string   // key in Engine.files, or ""
	closes []func() error
	gpus   []*os.File // locks of the GPUs that it has
	output *output

	pid   int
	pidfd *os.File

	start     sync.Once
	err       error         // of the start
	started   chan struct{} // closed when start was tried
	done      chan struct{}
	keep      bool // Spec.Keep
	discard   sync.Once
	discarded chan struct{}

	filesMu   sync.RWMutex
	filesGone bool // no more Stat, CopyOut, CopyIn
	exit      Exit // valid once done is closed
	last      Usage
}

// Exit is how an instance's first process ended.
type Exit struct {
	Code   int  // its exit status, or 128 + Signal
	Signal int  // the signal that killed it, or 0
	OOM    bool // the kernel killed a process of the instance because of its memory limit
}

// instanceFiles is how many files each process of an instance may have open.
const instanceFiles = 25_000

// outputDrainTimeout bounds how long Done waits for the receiver of the output after the process has ended.
const outputDrainTimeout = 5 * time.Second

// Prepare makes an instance ready to start: everything is there but its process. The caller ends it with Stop, also
// when it never starts.
func (e *Engine) Prepare(ctx context.Context, s Spec) (_ *Instance, err error) {
	defer fault.Wrap(&err, "engine.Prepare(%s)", s.ID)
	if err := s.validate(); err != nil {
		return nil, err
	}
	name, err := e.register(s.ID, s.Layers)
	if err != nil {
		return nil, err
	}
	i := &Instance{
		e:         e,
		id:        s.ID,
		name:      name,
		group:     name,
		started:   make(chan struct{}),
		done:      make(chan struct{}),
		keep:      s.Keep,
		discarded: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			i.abandon()
		}
	}()
	select {
	case e.creates <- struct{}{}:
		defer func() { <-e.creates }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	go e.cgroups.warm()
	groups, err := e.cgroups.nest(s.Groups)
	if err != nil {
		return nil, err
	}
	i.group = filepath.Join(groups, name)
	if i.slot, err = e.slots.take(); err != nil {
		return nil, err
	}
	if _, err := i.slot.userns(); err != nil { // here, and not on the worker, which has to make everybody's mounts
		return nil, err
	}
	if i.net, err = e.nets.Get(ctx); err != nil {
		return nil, err
	}
	var files string
	if len(s.Files) > 0 {
		if files, i.files, err = e.files.acquire(s.Files); err != nil {
			return nil, err
		}
	}
	if err := e.worker.do(func() error { return e.buildRoot(i, &s, files) }); err != nil {
		return nil, err
	}
	if err := i.join(&s); err != nil {
		return nil, err
	}
	way, closes, err := e.serve(i.net, s.Sockets)
	i.way = way
	i.closes = append(i.closes, closes...)
	if err != nil {
		return nil, err
	}
	if err := i.create(ctx, &s); err != nil {
		return nil, err
	}
	return i, nil
}

// join puts the instance on its networks, and has their names answered.
func (i *Instance) join(s *Spec) error {
	i.lan = lan.NewHost(i.net)
	i.closes = append(i.closes, func() error { return i.lan.Leave(nil) })
	for _, m := range s.Networks {
		switch err := i.lan.Join(m); {
		case m.Optional && fault.Is(err, fault.Unavailable):
			i.e.log.Warn("a container is without its network", "instance", i.id, "err", err)
		case err != nil:
			return err
		}
	}
	if dns := s.Sockets.DNS; dns != nil && len(s.Networks) > 0 {
		s.Sockets.DNS = func(udp net.PacketConn, tcp net.Listener) { dns(i.lan.Names(udp), tcp) }
	}
	return nil
}

// LAN is the instance on its networks.
func (i *Instance) LAN() *lan.Host { return i.lan }

// create has the runtime make the container.
func (i *Instance) create(ctx context.Context, s *Spec) error {
	e := i.e
	u, err := lookupUser(i.root, s.User)
	if err != nil {
		return err
	}
	path, ok := getenv(s.Env, "PATH")
	if !ok {
		path = DefaultPath
	}
	if err := lookCommand(i.root, s.Args[0], s.Dir, path); err != nil {
		return err
	}
	spec, err := e.bundle(i, s, u)
	if err != nil {
		return err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := e.base.WriteFile(i.name+"/config.json", b, 0o600); err != nil { // 0600: the environment may hold secrets
		return err
	}

	streams := map[string]*os.File{}
	var ends []*os.File // the container's
	defer func() {
		for _, f := range ends {
			f.Close()
		}
	}()
	stdio := []*os.File{s.Terminal, s.Terminal, s.Terminal}
	if s.Terminal == nil {
		if stdio, err = i.pipes(u, streams); err != nil {
			return err
		}
		ends = stdio
		// to be opened again
	} else if err := s.Terminal.Chown(int(i.slot.base+u.uid), int(i.slot.base+u.gid)); err != nil {
		return err
	}
	// Not to be cut off: half a container can't be cleared away without losing track of a process. It takes some 25 ms,
	// and on an emulated machine, with forty others, a thousand times as long.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := e.call(bounded, i, stdio, "create", "--bundle", ".", "--pid-file", "pid"); err != nil {
		return err
	}
	pid, err := e.base.ReadFile(i.name + "/pid")
	if err != nil {
		return err
	}
	if i.pid, err = strconv.Atoi(strings.TrimSpace(string(pid))); err != nil {
		return err
	}
	if s.CPU > 0 {
		if err := e.cgroups.setCPU(i.group, s.CPU); err != nil {
			return err
		}
	}
	fd, err := unix.PidfdOpen(i.pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	i.pidfd = os.NewFile(uintptr(fd), "pidfd") // the poller knows it: waiting costs no thread
	i.output = newOutput(s.Output, e.now)
	i.output.start(streams)
	e.mu.Lock()
	e.instances[i.id] = i
	closed := e.closed
	e.mu.Unlock()
	go i.wait()
	if closed { // Close did not see this one
		return i.Stop(context.Background(), 0)
	}
	return nil
}

// pipes makes the process's standard files, and what reads its output.
func (i *Instance) pipes(u user, streams map[string]*os.File) (ends []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range ends {
				f.Close()
			}
		}
	}()
	// Standard input ends at once. It must not be /dev/null: crun gives its three standard files to the container's
	// root, and this one would be the host's.
	stdin, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w.Close()
	ends = append(ends, stdin)
	for _, stream := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			return ends, err
		}
		ends = append(ends, w)
		streams[stream] = r
		i.closes = append(i.closes, r.Close)
		// So that the process can open /dev/stdout again.
		if err := w.Chown(int(i.slot.base+u.uid), int(i.slot.base+u.gid)); err != nil {
			return ends, err
		}
	}
	return ends, nil
}

// abandon undoes a Prepare that failed.
func (i *Instance) abandon() {
	e := i.e
	i.Discard()
	i.freeGPUs() // no process of the caller's has run
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), outputDrainTimeout)
		defer cancel()
		// The runtime may have left a process behind when it failed or was cut off.
		if err := e.cgroups.kill(ctx, i.group); err != nil {
			e.log.Error("kill a container that could not be made", "instance", i.id, "err", err)
		}
		if i.pid != 0 {
			var ws unix.WaitStatus
			unix.Wait4(i.pid, &ws, 0, nil)
		}
		i.release()
	}()
	e.mu.Lock()
	delete(e.instances, i.id)
	e.mu.Unlock()
}

// wait sees the process's end through.
func (i *Instance) wait() {
	i.exit = i.reap()
	i.exit.OOM = i.e.cgroups.oomKills(i.group) > 0
	i.last, _ = i.e.cgroups.usage(i.group)
	i.last.PeakBytes = i.e.cgroups.peak(i.group)
	i.last.SentBytes = i.way.Sent()
	select {
	case <-i.output.done:
	case <-time.After(outputDrainTimeout):
		i.e.log.Warn("the receiver of an instance's output does not keep up", "instance", i.id)
	}
	i.e.mu.Lock()
	delete(i.e.instances, i.id)
	i.e.mu.Unlock()
	i.freeGPUs() // before anybody hears of the end, and gives them to the next
	close(i.done)
	i.release()
}

// Discard lets go of what Spec.Keep has kept. It may be called often, and before the end.
func (i *Instance) Discard() { i.discard.Do(func() { close(i.discarded) }) }

// reap waits for the init process, which is a child of ours since the runtime that forked it has ended.
func (i *Instance) reap() Exit {
	var ws unix.WaitStatus
	raw, err := i.pidfd.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Read(func(uintptr) bool {
			// By pid, not wait4(-1), which would steal other commands' children.
			pid, err := unix.Wait4(i.pid, &ws, unix.WNOHANG, nil)
			failed = err
			return pid == i.pid || (err != nil && err != unix.EINTR)
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		i.e.log.Error("wait for an instance", "instance", i.id, "err", err)
		return Exit{Code: -1}
	}
	if ws.Signaled() {
		return Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return Exit{Code: ws.ExitStatus()}
}

// release gives back all that the instance held. Nothing waits for it but Engine.Close.
func (i *Instance) release() {
	e := i.e
	defer e.cleanups.Done()
	var errs []error
	for _, c := range i.closes {
		c() // a reader of the output may have closed its end already
	}
	if i.pidfd != nil {
		i.pidfd.Close()
	}
	if i.keep {
		select {
		case <-i.discarded:
		case <-e.ending:
		}
	}
	i.filesMu.Lock()
	i.filesGone = true
	i.filesMu.Unlock()
	if i.root != nil {
		i.root.Close()
	}
	// What the runtime's delete would do: its state and the cgroup. Twenty times faster without a process of its own.
	errs = append(errs, e.cgroups.remove(i.group), os.RemoveAll(e.state()+"/"+i.name), e.dropRoot(i.name))
	if i.files != "" {
		errs = append(errs, e.files.release(i.files))
	}
	if i.net != nil {
		i.net.Close()
	}
	if i.slot != nil {
		e.slots.give(i.slot)
	}
	e.mu.Lock()
	delete(e.layers, i.name)
	e.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		e.log.Error("clean up after an instance", "instance", i.id, "err", err)
	}
}

// Start starts the instance's process. Only the first call does anything.
func (i *Instance) Start(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "engine.Start(%s)", i.id)
	i.start.Do(func() {
		defer close(i.started)
		if i.err = i.ended(); i.err == nil {
			i.err = i.e.start(ctx, i)
		}
	})
	return i.err
}

// Run starts the process and returns how it ended. When ctx ends first, the instance is killed and the error is ctx's.
func (i *Instance) Run(ctx context.Context) (Exit, error) {
	stop := func() error { return i.Stop(context.WithoutCancel(ctx), 0) }
	if err := i.Start(ctx); err != nil {
		return Exit{}, errors.Join(err, stop())
	}
	select {
	case <-i.Done():
	case <-ctx.Done():
		return Exit{}, errors.Join(ctx.Err(), stop())
	}
	return i.Exit(), stop()
}

// Dial connects to a TCP port of the process, from the instance's own network, at an address that is not the
// loopback's: a process that listens on 127.0.0.1 only refuses, as on Cloud Run.
func (i *Instance) Dial(ctx context.Context, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fault.Invalid("port", "%d is not a port.", port)
	}
	if err := i.ended(); err != nil {
		return nil, err
	}
	return i.net.Dial(ctx, uint16(port))
}

// Listening lists the TCP addresses that the process listens on, for a hint why it is not reached.
func (i *Instance) Listening() (_ []netip.AddrPort, err error) {
	defer fault.Wrap(&err, "engine.Listening(%s)", i.id)
	if err := i.ended(); err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", i.pid, table))
		if err != nil {
			return nil, err
		}
		out = append(out, parseListening(string(b))...)
	}
	return out, nil
}

// ended returns an Unavailable fault once the process has ended.
func (i *Instance) ended() error {
	select {
	case <-i.done:
		return fault.New(fault.Unavailable, "Instance %q has ended.", i.id)
	default:
		return nil
	}
}

// Done is closed when the process has ended and its output was delivered.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Exit tells how the process ended. It is zero until Done is closed.
func (i *Instance) Exit() Exit {
	if i.ended() == nil {
		return Exit{}
	}
	return i.exit
}

// PID is the host's id of the container's first process.
func (i *Instance) PID() int { return i.pid }

// SetCPU changes the CPU limit, in millicores; 0 lifts it. It takes some 30 µs.
func (i *Instance) SetCPU(millicores int64) (err error) {
	defer fault.Wrap(&err, "engine.SetCPU(%s)", i.id)
	if millicores < 0 {
		return fault.Invalid("cpu", "%d millicores are negative.", millicores)
	}
	return i.e.cgroups.setCPU(i.group, millicores)
}

// Usage tells what the instance uses; after Done, what it used at its end.
func (i *Instance) Usage() (_ Usage, err error) {
	defer fault.Wrap(&err, "engine.Usage(%s)", i.id)
	if i.ended() != nil {
		return i.last, nil
	}
	u, err := i.e.cgroups.usage(i.group)
	u.SentBytes = i.way.Sent()
	return u, err
}

// Stop ends the instance and returns when its process is gone: SIGTERM first, and SIGKILL after grace, when ctx ends,
// or at once where the process would never see a SIGTERM. It may be called often, also after the end.
func (i *Instance) Stop(ctx context.Context, grace time.Duration) (err error) {
	defer fault.Wrap(&err, "engine.Stop(%s)", i.id)
	if grace > 0 && i.wasStarted() && i.hearsTerm() {
		if i.signal(unix.SIGTERM) == nil {
			timer := time.NewTimer(grace)
			defer timer.Stop()
			select {
			case <-i.done:
				return nil
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	}
	// Killing a PID namespace's first process kills all in it.
	if err := i.signal(unix.SIGKILL); err != nil {
		return err
	}
	<-i.done
	return nil
}

func (i *Instance) wasStarted() bool {
	select {
	case <-i.started:
		return true
	default:
		return false
	}
}

// signal sends a signal to the process; one that has ended takes it without complaint.
func (i *Instance) signal(s syscall.Signal) error {
	var sent error
	raw, err := i.pidfd.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	}
	if i.ended() != nil { // and the descriptor may be closed
		return nil
	}
	if err != nil {
		return err
	}
	if sent == unix.ESRCH {
		return nil
	}
	return sent
}

// hearsTerm reports whether the process catches SIGTERM, or blocks it to fetch it by hand as small init programs do.
// The first process of a PID namespace ignores what it does neither with: waiting for it would be in vain.
func (i *Instance) hearsTerm() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.pid))
	return err == nil && hears(string(b), unix.SIGTERM)
}

// hears reads the signal masks of proc_pid_status(5): bit 0 is signal 1.
func hears(status string, s syscall.Signal) bool {
	for line := range strings.Lines(status) {
		key, mask, _ := strings.Cut(line, ":")
		if key != "SigCgt" && key != "SigBlk" {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err == nil && bits&(1<<(s-1)) != 0 {
			return true
		}
	}
	return false
}
