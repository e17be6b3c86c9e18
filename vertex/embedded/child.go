package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"giggle/fault"
)

// writeTime is how long the child may take to read a request: it does nothing else with its input.
const writeTime = 10 * time.Second

// childEndTimeout is how long a child that should end may take.
const childEndTimeout = 2 * time.Second

// errEnded is among the causes of a fault which the end of the process brought.
var errEnded = errors.New("the process ended")

// child is a running model process.
type child struct {
	cmd    *exec.Cmd
	stdin  *os.File
	to     *lines
	ready  chan struct{} // closed when the model is loaded, or when the child ended
	ended  chan struct{} // closed when the process is gone
	stderr tail

	mu    sync.Mutex
	err   error // why it ended, or why it could not load the model
	last  uint64
	calls map[uint64]*call
}

// call is a request in progress: the replies that nobody has read yet. Their number is bounded by the model's context.
type call struct {
	mu      sync.Mutex
	replies []reply
	some    chan struct{} // has one element if there may be replies
}

func (c *call) put(r reply) {
	c.mu.Lock()
	c.replies = append(c.replies, r)
	c.mu.Unlock()
	select {
	case c.some <- struct{}{}:
	default:
	}
}

func (c *call) take() []reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.replies
	c.replies = nil
	return all
}

// tail keeps the last of what is written, for the log.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailLength = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > tailLength {
		t.b = append([]byte(nil), t.b[len(t.b)-tailLength:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// start starts the process. It does not wait for the model.
func start(binary string, args []string) (*child, error) {
	in, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c := &child{
		stdin: stdin,
		to:    &lines{w: deadline{stdin}},
		ready: make(chan struct{}),
		ended: make(chan struct{}),
		calls: make(map[uint64]*call),
	}
	c.cmd = exec.Command(binary, args...)
	// It needs nothing of the platform's. That it first collects garbage at 16 MB, and not at 4, saves it one round
	// while it loads the built-in model and its caller waits; what it may have at most, LimitMemory says.
	c.cmd.Env = []string{"GOGC=400"}
	c.cmd.Dir = "/"
	c.cmd.Stdin, c.cmd.Stderr = in, &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.launch()
	}
	if err != nil {
		stdin.Close()
		return nil, fault.New(fault.Unavailable, "the model's process can't be started: %v", err)
	}
	// When memory is short, the kernel shall take this process before the platform.
	_ = os.WriteFile("/proc/"+strconv.Itoa(c.cmd.Process.Pid)+"/oom_score_adj", []byte("1000"), 0)
	go c.read(out)
	return c, nil
}

// launch starts the process from a thread that lives as long as it does: Pdeathsig is sent when the thread that started
// a process ends (prctl(2), PR_SET_PDEATHSIG), and others of this program's do, with each network namespace that is
// made.
func (c *child) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			<-c.ended
		}
	}()
	return <-started
}

// deadline writes to the child, which must read it in time.
type deadline struct{ f *os.File }

func (d deadline) Write(p []byte) (int, error) {
	if err := d.f.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return d.f.Write(p)
}

// read gives the replies to the calls until the child ends.
func (c *child) read(out io.Reader) {
	loaded := sync.OnceFunc(func() { close(c.ready) })
	err := scan(out, func(r reply) {
		if r.ID == 0 {
			if r.Error != nil {
				c.fail(r.Error.fault())
			}
			loaded()
			return
		}
		c.mu.Lock()
		call := c.calls[r.ID]
		c.mu.Unlock()
		if call != nil { // else it was cancelled
			call.put(r)
		}
	})
	if err != nil {
		_ = c.cmd.Process.Kill()
	}
	// it has closed its output: it must be at its end
	gone := time.AfterFunc(childEndTimeout, func() { _ = c.cmd.Process.Kill() })
	defer gone.Stop()
	if wait := c.cmd.Wait(); err == nil {
		err = wait
	}
	c.fail(&fault.Error{
		Code:    fault.Unavailable,
		Message: "The model's process ended; the next call starts it again.",
		Cause:   errors.Join(errEnded, err, c.said()),
	})
	loaded()
	c.mu.Lock()
	for id, call := range c.calls {
		call.put(reply{
			ID: id,
			Error: &failure{fault.Unavailable,
				"The model's process ended during the call; the next call starts it again.", errEnded},
		})
	}
	c.calls = make(map[uint64]*call)
	c.mu.Unlock()
	c.stdin.Close()
	close(c.ended)
}

func (c *child) said() error {
	if s := c.stderr.String(); s != "" {
		return fmt.Errorf("it wrote: %s", s)
	}
	return nil
}

// fail keeps the first reason.
func (c *child) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// broken returns why the child takes no more calls, or nil.
func (c *child) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// begin sends a request and returns where its replies come.
func (c *child) begin(r request) (uint64, *call, error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, nil, c.err
	}
	c.last++
	id, call := c.last, &call{some: make(chan struct{}, 1)}
	c.calls[id] = call
	c.mu.Unlock()
	r.ID = id
	if err := c.to.write(r); err != nil {
		c.forget(id)
		if f := new(fault.Error); errors.As(err, &f) {
			return 0, nil, err
		}
		_ = c.cmd.Process.Kill() // half a request may be in the pipe
		err := &fault.Error{
			Code:    fault.Unavailable,
			Message: "The model's process does not read: " + err.Error() + ".",
			Cause:   errEnded,
		}
		c.fail(err)
		return 0, nil, err
	}
	return id, call, nil
}

func (c *child) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// stop ends the process: it is asked to, by the end of its input, and killed if it does not.
func (c *child) stop() {
	c.fail(fault.New(fault.Unavailable, "the model's process is being ended"))
	c.stdin.Close()
	select {
	case <-c.ended:
	case <-time.After(childEndTimeout):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}
