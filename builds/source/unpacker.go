package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// Command is the first argument of the process that unpacks an archive: it is Serve.
const Command = "source-unpacker"

// What an archive may take by default. A zip of as many files as are allowed takes 150 MiB, one of 4 GiB of source code
// half a minute.
const (
	defaultMemory = 512 << 20
	defaultCPU    = 5 * time.Minute
)

// Unpacker unpacks each archive in a process of its own, so that one which takes more memory or time than there is for
// it ends that process only.
type Unpacker struct {
	Binary string        // the program that is Serve when its first argument is Command; "" to unpack in this process
	Memory int64         // the most bytes that the process may write to; 0 for a default
	CPU    time.Duration // the most that it may compute, in whole seconds; 0 for a default
}

// job is what the process is to do. The archive is its descriptor 3, the directory is where it starts.
type job struct {
	Size   int64
	Limits Limits
	Memory int64
	CPU    time.Duration
}

// verdict is what it says at its end.
type verdict struct {
	Code    fault.Code // 0 where all went well
	Message string
}

// Extract is the function of that name. It fails with InvalidArgument, too, on an archive that takes more memory or
// time than allowed.
func (u Unpacker) Extract(
	ctx context.Context, archive io.ReadSeeker, size int64, dir string, limits Limits,
) (err error) {
	if u.Binary == "" {
		return Extract(ctx, archive, size, dir, limits)
	}
	defer fault.Wrap(&err, "source.Unpacker.Extract")
	f, ok := archive.(*os.File)
	if !ok {
		if f, err = temporary(archive, size, filepath.Dir(dir)); err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it has no name any more
	}
	text, err := json.Marshal(job{size, limits, cmp.Or(u.Memory, defaultMemory), cmp.Or(u.CPU, defaultCPU)})
	if err != nil {
		return err
	}
	out, said := &head{most: 64 << 10}, &head{most: 4 << 10}
	cmd := exec.CommandContext(ctx, u.Binary, Command, string(text))
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, []string{}, []*os.File{f}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, said, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// Pdeathsig is sent when the thread that started the process ends (prctl(2), PR_SET_PDEATHSIG), and threads of this
	// program do: this one stays as long as the process.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return died(err, said.Bytes())
	}
	var v verdict
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		return fmt.Errorf("the process that unpacks said %.200q: %w", out.Bytes(), err)
	}
	switch v.Code {
	case 0:
		return nil
	case fault.Internal:
		return errors.New(v.Message)
	}
	return fault.New(v.Code, "%s", v.Message)
}

// died is what it means that the process ended without a verdict. At the end of its time, the kernel kills it, or
// because the machine has no more memory; at the end of its own, Go's runtime gives up in one way or another, which is
// not a panic.
func died(err error, said []byte) error {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return err
	}
	status, ok := e.Sys().(syscall.WaitStatus)
	killed := ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	gaveUp := slices.ContainsFunc([]string{"fatal error: ", "runtime: ", "SIGSEGV: "},
		func(s string) bool { return bytes.HasPrefix(said, []byte(s)) })
	if killed || gaveUp {
		return bad("it takes more memory or time than allowed")
	}
	return fmt.Errorf("the process that unpacks: %w: %s", err, said)
}

// temporary is a copy of an archive in a file without a name.
func temporary(archive io.ReadSeeker, size int64, dir string) (_ *os.File, err error) {
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "archive-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, io.LimitReader(archive, size)); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// head keeps the beginning of what is written.
type head struct {
	bytes.Buffer
	most int
}

func (h *head) Write(p []byte) (int, error) {
	_, err := h.Buffer.Write(p[:min(len(p), max(0, h.most-h.Len()))])
	return len(p), err
}

// Serve is the process that unpacks an archive: args are those after Command, out gets what is to be said of it. It
// returns the exit status.
func Serve(args []string, out io.Writer) int {
	var j job
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &j) != nil {
		return 2
	}
	j.limit()
	archive := os.NewFile(3, "archive")
	var v verdict
	if err := Extract(context.Background(), archive, j.Size, ".", j.Limits); err != nil {
		f := fault.From(err)
		v = verdict{f.Code, f.Message}
		if f.Code == fault.Internal {
			v.Message = err.Error()
		}
	}
	if err := json.NewEncoder(out).Encode(v); err != nil {
		return 1
	}
	return 0
}

// limit bounds what this process takes. When the machine's memory is short, the kernel shall end it before the
// platform.
func (j *job) limit() {
	debug.SetMemoryLimit(j.Memory / 10 * 9)
	seconds := uint64(max(1, j.CPU/time.Second))
	for resource, most := range map[int]uint64{
		unix.RLIMIT_DATA:   uint64(j.Memory),
		unix.RLIMIT_CPU:    seconds,
		unix.RLIMIT_FSIZE:  uint64(min(j.Limits.Bytes, math.MaxInt64-1)) + 1, // one more tells that it is too large
		unix.RLIMIT_NOFILE: 64,
		unix.RLIMIT_CORE:   0,
	} {
		var l unix.Rlimit
		if unix.Getrlimit(resource, &l) == nil {
			// the platform has limits of its own
			_ = unix.Setrlimit(resource, &unix.Rlimit{Cur: min(most, l.Max), Max: min(most, l.Max)})
		}
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}
