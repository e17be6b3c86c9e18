package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"giggle/engine"
)

// BareCommand is the hidden command below `giggle bench` that runs Bare.
const BareCommand = "bare"

// bare is a child process that starts containers with the OCI runtime alone. It is a process of its own because it
// needs a mount namespace: crun refuses a machine whose unified cgroup tree has a few controllers only, unless it does
// not see that tree.
type bare struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	fail *strings.Builder
}

// startBare compiles the hello service, lays out a root file system with it, and starts the child.
func (r *run) startBare(ctx context.Context) (*bare, error) {
	binary, err := runtimePath(r.cfg.Runtime)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.dir, "bare")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	// What the runtime would have to make in it, were it not there.
	for _, d := range []string{"proc", "dev", "sys/fs/cgroup", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "root", d), 0o755); err != nil {
			return nil, err
		}
	}
	if _, err := r.goBuild(ctx, filepath.Join(dir, "root", "main"), 0); err != nil {
		return nil, err
	}
	b := &bare{cmd: exec.Command(r.cfg.Binary, "bench", BareCommand, binary, dir), fail: &strings.Builder{}}
	b.cmd.Stderr = b.fail
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.out = bufio.NewReader(out)
	return b, b.cmd.Start()
}

// shots has the child start n containers at once: "start" those that were created, "run" them from nothing. It returns
// the time of each to the first byte of its answer.
func (b *bare) shots(kind string, n int) (series, error) {
	if _, err := fmt.Fprintln(b.in, kind, n); err != nil {
		return nil, fmt.Errorf("bare runtime: %w", err)
	}
	line, err := b.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("bare runtime: %w", err) // stop tells why
	}
	var out series
	for _, word := range strings.Fields(line) {
		us, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		out = append(out, time.Duration(us)*time.Microsecond)
	}
	return out, nil
}

// stop ends the child, which first clears its container away.
func (b *bare) stop() error {
	err := b.in.Close()
	if e := b.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("bare runtime: %w: %s", e, b.fail))
	}
	return err
}

// Bare is the child: for each line of in it starts a container and writes the time to its first byte to out, in
// microseconds. Args are the runtime's binary and the directory with the root file system, which must be its own.
func Bare(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	if len(args) != 2 {
		return errors.New("this command is used by `giggle bench` only")
	}
	if err := hideUnified(); err != nil {
		return err
	}
	s := &shooter{runtime: args[0], dir: args[1], cgroup: fmt.Sprintf("giggle-bench-%d", os.Getpid())}
	defer func() { err = errors.Join(err, s.clean()) }()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		kind, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		took, err := s.shots(ctx, kind, n)
		if err != nil {
			return err
		}
		words := make([]string, n)
		for i, t := range took {
			words[i] = strconv.FormatInt(t.Microseconds(), 10)
		}
		if _, err := fmt.Fprintln(out, strings.Join(words, " ")); err != nil {
			return err
		}
	}
	return nil
}

// unified is where a machine with cgroups v1 may have an almost empty v2 tree beside them.
const unified = "/sys/fs/cgroup/unified"

// hideUnified takes a hybrid machine's unified cgroup tree out of this process's mount namespace, which is its own. The
// tmpfs in its place takes what crun writes there all the same.
func hideUnified() error {
	err := syscall.Unmount(unified, syscall.MNT_DETACH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return nil // no such machine
	}
	if err != nil {
		return err
	}
	return syscall.Mount("tmpfs", unified, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC,
		"mode=0700,size=16m")
}

// shooter starts containers.
type shooter struct {
	runtime, dir, cgroup string
	n                    int // containers so far
}

// shots starts n containers at once.
func (s *shooter) shots(ctx context.Context, kind string, n int) (_ []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	all := make([]*shot, n)
	for i := range all {
		s.n++
		if all[i], err = s.aim(ctx, kind); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, all[i].clear(context.WithoutCancel(ctx))) }()
	}
	took, errs := make([]time.Duration, n), make([]error, n)
	// To ask is work too: the more there are, the less often each is asked.
	every := time.Duration(max(200, 50*n)) * time.Microsecond
	start := time.Now()
	var wg sync.WaitGroup
	for i, t := range all {
		wg.Go(func() {
			first := t.peer.firstByte(ctx, every)
			if errs[i] = t.call(ctx, t.last...); errs[i] != nil {
				cancel()
			}
			at := <-first
			if errs[i] == nil {
				took[i], errs[i] = at.time.Sub(start), at.err
			}
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// shot is one container: everything that comes before the clock starts.
type shot struct {
	*shooter
	name, bundle string
	peer         *peer
	last         []string // the runtime's arguments that start it
}

func (s *shooter) aim(ctx context.Context, kind string) (*shot, error) {
	name := fmt.Sprintf("%s-%d", s.cgroup, s.n)
	t := &shot{shooter: s, name: name, bundle: filepath.Join(s.dir, name)}
	if err := os.Mkdir(t.bundle, 0o711); err != nil {
		return nil, err
	}
	if err := os.Symlink("../root", filepath.Join(t.bundle, "root")); err != nil {
		return nil, err
	}
	var err error
	if t.peer, err = newPeer(); err != nil {
		return nil, err
	}
	config, err := engine.Baseline([]string{"/main"}, []string{"PORT=8080"}, "/"+s.cgroup+"/"+name, t.peer.netns())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(t.bundle, "config.json"), config, 0o600); err != nil {
		return nil, err
	}
	t.last = []string{"run", "--detach", "--bundle", t.bundle, name}
	if kind == "start" {
		t.last = []string{"start", name}
		return t, t.call(ctx, "create", "--bundle", t.bundle, name)
	}
	return t, nil
}

func (t *shot) clear(ctx context.Context) error {
	err := t.call(ctx, "delete", "--force", t.name)
	t.peer.close()
	return errors.Join(err, os.RemoveAll(t.bundle))
}

// call runs the runtime. Its output goes to a file: the container would keep a pipe open.
func (s *shot) call(ctx context.Context, args ...string) error {
	log, err := os.Create(filepath.Join(s.bundle, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// Not /dev/null, which exec would give: crun makes its three standard files the container user's own.
	stdin, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = stdin.Close() }()
	_ = w.Close() // nothing was written
	cmd := exec.CommandContext(ctx, s.runtime, append([]string{"--root", filepath.Join(s.dir, "state")}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name()) // for the message only
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(s.runtime), args[0], err, text)
	}
	return nil
}

// clean removes the control groups that the containers' own were in.
func (s *shooter) clean() error {
	_ = os.RemoveAll(filepath.Join(unified, s.cgroup)) // plain files in the tmpfs of hideUnified
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/" + s.cgroup)
	for _, d := range append(dirs, "/sys/fs/cgroup/"+s.cgroup) {
		if e := syscall.Rmdir(d); e != nil && !errors.Is(e, syscall.ENOENT) {
			err = errors.Join(err, &os.PathError{Op: "rmdir", Path: d, Err: e})
		}
	}
	return err
}
