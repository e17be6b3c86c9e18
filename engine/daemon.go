package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// DaemonSpec says which trusted program of the host to run beside the instances: one that makes containers of its own,
// such as BuildKit's. It is root on the host and sees the host's files; its network is an instance's.
type DaemonSpec struct {
	ID      string   // letters and digits
	Args    []string // an absolute path first
	Env     []string
	Files   []File // laid over the host's files that exist, for it alone
	Memory  int64  // bytes, of it and all that it starts together; 0 sets no limit
	Pids    int64  // processes of them together; 0 sets no limit
	Output  io.Writer
	Sockets Sockets
}

// Daemon is a program that Engine.Daemon started.
type Daemon struct {
	e      *Engine
	group  string
	cmd    *exec.Cmd
	worker *worker
	net    *netns.Namespace
	closes []func() error
	done   chan struct{}
	err    error
}

// DaemonCgroup is the path of the group below which a daemon's containers belong, from the root of each cgroup tree.
// What is in it is killed and removed with the daemon.
func (e *Engine) DaemonCgroup(id string) string { return e.cgroups.path("daemon-" + id + "/run") }

// Daemon starts a program in a network namespace with the platform's sockets and nothing else, in a mount namespace of
// its own: its mounts end with it. It is killed when the platform is; what its containers leave then, the next Open
// removes. The caller ends it with Stop.
func (e *Engine) Daemon(ctx context.Context, s DaemonSpec) (_ *Daemon, err error) {
	defer fault.Wrap(&err, "engine.Daemon(%s)", s.ID)
	d := &Daemon{e: e, group: "daemon-" + s.ID, done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release())
		}
	}()
	if err := e.cgroups.limit(d.group, s.Memory, s.Pids); err != nil {
		return nil, err
	}
	if d.net, err = e.nets.Get(ctx); err != nil {
		return nil, err
	}
	if d.closes, err = serve(d.net, s.Sockets); err != nil {
		return nil, err
	}
	if d.worker, err = startWorker(); err != nil {
		return nil, err
	}
	dir := filepath.Join(e.run, d.group)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d.closes = append(d.closes, func() error { return os.RemoveAll(dir) })
	for i, f := range s.Files {
		from := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(from, f.Data, 0o644); err != nil {
			return nil, err
		}
		to, err := filepath.EvalSymlinks(f.Path)
		if err != nil {
			continue // this host has none to be laid over
		}
		if err := d.worker.do(func() error { return unix.Mount(from, to, "", unix.MS_BIND, "") }); err != nil {
			return nil, fmt.Errorf("lay a file over %s: %w", to, err)
		}
	}
	d.cmd = exec.Command(s.Args[0], s.Args[1:]...)
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr, d.cmd.Dir = s.Env, s.Output, s.Output, "/"
	d.cmd.WaitDelay = drain
	// The thread that starts it lives as long as the worker, so the signal comes when the platform ends.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = d.worker.do(func() error {
		if err := unix.Setns(d.net.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return d.cmd.Start()
	})
	if err != nil {
		d.cmd = nil
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	if err := e.cgroups.enter(d.group+"/self", d.cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, d.cmd.Process.Kill())
	}
	return d, nil
}

// Start starts a command of the host in the daemon's network and mount namespaces, and among its processes: a client of
// it. It must not be called after Stop. The caller waits for the command.
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
	_ = d.cmd.Process.Kill()
	<-d.done
	return d.release()
}

// release kills what is left and gives back all that the daemon held.
func (d *Daemon) release() error {
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
	return errors.Join(append(errs, d.e.cgroups.remove(d.group))...)
}

// serve opens the platform's sockets in a network namespace and hands them out.
func serve(ns *netns.Namespace, s Sockets) (closes []func() error, err error) {
	listen := func(port uint16, serve func(net.Listener)) error {
		if serve == nil {
			return nil
		}
		l, err := ns.Listen(port)
		if err != nil {
			return err
		}
		closes = append(closes, l.Close)
		go serve(l)
		return nil
	}
	if err := listen(80, s.Metadata); err != nil {
		return closes, err
	}
	if err := listen(443, s.Edge); err != nil {
		return closes, err
	}
	if s.DNS == nil {
		return closes, nil
	}
	udp, err := ns.ListenPacket(53)
	if err != nil {
		return closes, err
	}
	closes = append(closes, udp.Close)
	return closes, listen(53, func(tcp net.Listener) { s.DNS(udp, tcp) })
}
