package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// ociRuntime is the binary that makes containers.
type ociRuntime struct {
	path    string
	version string   // "crun 1.8.1"
	binary  *os.File // a sealed copy of what is at path, or nil
	// starts a created container without the runtime's help; nil where that does not work
	open func(fifo string) error
}

// file is what to execute.
func (r *ociRuntime) file() string {
	if r.binary == nil {
		return r.path
	}
	return fmt.Sprintf("/proc/self/fd/%d", r.binary.Fd()) // resolved in the child, before the descriptor closes on exec
}

func (r *ociRuntime) close() {
	if r.binary != nil {
		r.binary.Close()
	}
}

// runtimeEnv is all that the runtime sees of an environment.
var runtimeEnv = []string{"PATH=" + DefaultPath}

// runtimeTrialTimeout bounds one container of a runtime that is being tried. It takes some 50 ms, and a hundred times
// as long on an emulated machine that is busy.
const runtimeTrialTimeout = 30 * time.Second

// pickRuntime takes the first runtime that really runs a container here.
func (e *Engine) pickRuntime(ctx context.Context, want string) error {
	candidates := []string{"crun", "runc"}
	if want != "" {
		candidates = []string{want}
	}
	var tried []error
	for _, c := range candidates {
		err := e.tryRuntime(ctx, c)
		if err == nil {
			return nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", c, err))
		e.runtime.close()
		e.runtime = ociRuntime{}
	}
	return &fault.Error{
		Code: fault.FailedPrecondition,
		Message: "No OCI runtime can run a container on this machine (tried: " + strings.Join(candidates, ", ") +
			"). Install crun or runc.",
		Cause: errors.Join(tried...),
	}
}

func (e *Engine) tryRuntime(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*runtimeTrialTimeout)
	defer cancel()
	path, err := findBinary(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = runtimeEnv
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	e.runtime = ociRuntime{path: path, version: strings.Replace(first, " version", "", 1)}
	if e.runtime.binary, err = seal(path); err != nil {
		return err
	}

	layer := filepath.Join(e.dir, "probe")
	if err := writeProbe(layer); err != nil {
		return err
	}
	e.runtime.open = gates[filepath.Base(strings.Fields(first + " ?")[0])]
	if e.runtime.open != nil {
		if err := e.probe(ctx, layer); err == nil {
			return nil
		}
		e.runtime.open = nil
	}
	return e.probe(ctx, layer)
}

// probe runs a container that does next to nothing.
func (e *Engine) probe(ctx context.Context, layer string) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeTrialTimeout)
	defer cancel()
	i, err := e.Prepare(ctx, Spec{
		ID:     "probe",
		Layers: []string{layer},
		Args:   []string{"/probe"},
		Memory: 64 << 20,
		CPU:    1000,
	})
	if err != nil {
		return err
	}
	defer i.Stop(ctx, 0)
	if err := i.Start(ctx); err != nil {
		return err
	}
	select {
	case <-i.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if x := i.Exit(); x != (Exit{Code: probeCode}) {
		return fmt.Errorf("a container that should exit with %d ended with %+v", probeCode, x)
	}
	return nil
}

func findBinary(name string) (string, error) {
	if strings.Contains(name, "/") {
		return filepath.Abs(name)
	}
	for _, d := range filepath.SplitList(DefaultPath) {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("not found in %s", DefaultPath)
}

// call runs the runtime for an instance, in the worker's mount namespace. stdio, when given, becomes the container's
// standard files.
func (e *Engine) call(ctx context.Context, i *Instance, stdio []*os.File, verb string, args ...string) error {
	dir := filepath.Join(e.tmpfs(), i.name)
	argv := append([]string{"--root", e.state(), "--log", filepath.Join(dir, "log"), "--log-format", "json", verb},
		args...)
	cmd := exec.CommandContext(ctx, e.runtime.file(), append(argv, i.name)...)
	cmd.Args[0] = e.runtime.path
	cmd.Env = runtimeEnv
	cmd.Dir = dir
	if len(stdio) == 3 {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	}
	if err := e.worker.do(cmd.Start); err != nil {
		return fmt.Errorf("%s %s: %w", e.runtime.path, verb, err)
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w: %s", e.runtime.version, verb, err, e.runtimeLog(i.name))
	}
	return nil
}

// runtimeLog returns the last error in the runtime's log.
func (e *Engine) runtimeLog(name string) string {
	b, err := e.base.ReadFile(name + "/log")
	if err != nil {
		return err.Error()
	}
	last := ""
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}

// seal copies a runtime's binary into sealed memory. A runtime must not run from a file that a container could write to
// through /proc/self/exe (CVE-2019-5736), so crun and runc first make such a copy of themselves and execute that, every
// time; these seals tell them that it has been done, and save them some 3 ms. A script, which could not be executed
// that way, gives nil.
func seal(path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != "\x7fELF" {
		return nil, err
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	to := os.NewFile(uintptr(fd), path)
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS,
		unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		to.Close()
		return nil, os.NewSyscallError("seal", err)
	}
	return to, nil
}
