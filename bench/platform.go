package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"giggle/api/giggle"
	"giggle/bench/demo"
	"giggle/shell"
)

// address is the loopback address of the platform under test: not the one of a platform in use.
const address = "127.71.71.77"

// platform is `giggle up` as a child process.
type platform struct {
	data   string
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when the process has ended
	err    error         // how; valid then
	client *demo.Client
}

// launch starts a platform on a data directory, and returns once its socket answers.
func (r *run) launch(ctx context.Context, data string, flags ...string) (*platform, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, "platform.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"up", "--data", data, "--project", "giggle-bench", "--address", address, "--https-port", "0", "--http-port",
		"0", "--dns-port", "0",
		"--console", "127.0.0.1:0", "--edge", "127.0.0.1:0", "--mirror", r.cfg.Mirror, "--runtime", r.cfg.Runtime,
		"--egress", "off", "--pull", "never", // nothing that is measured goes out
	}, flags...)
	p := &platform{data: data, cmd: exec.Command(r.cfg.Binary, args...), log: log, ended: make(chan struct{})}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours: we stop it
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if err := p.until(ctx, func(giggle.Status) bool { return true }); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// statusPoll is the time between two looks at the platform's status.
const statusPoll = time.Millisecond

// until waits for a state of the platform.
func (p *platform) until(ctx context.Context, ok func(giggle.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	socket := shell.Dial(p.data)
	defer socket.CloseIdleConnections()
	tick := time.NewTicker(statusPoll)
	defer tick.Stop()
	var last giggle.Status
	for {
		st, err := status(ctx, socket)
		if err == nil && ok(st) {
			return nil
		}
		last = st
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("the platform ended: %v\n%s", p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w while the platform had %v", ctx.Err(), last.Instances)
		}
	}
}

func status(ctx context.Context, socket *http.Client) (st giggle.Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://giggle/status", nil)
	if err != nil {
		return st, err
	}
	res, err := socket.Do(req)
	if err != nil {
		return st, err
	}
	err = json.NewDecoder(res.Body).Decode(&st)
	return st, errors.Join(err, res.Body.Close())
}

// tail is the end of the platform's log.
func (p *platform) tail() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// stop ends the platform as Ctrl-C does, and kills it when that takes too long.
func (p *platform) stop() error {
	if p.client != nil {
		p.client.Close()
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		if err := p.cmd.Process.Kill(); err != nil {
			return err
		}
		<-p.ended
	}
	err := p.log.Close()
	if p.err != nil {
		err = errors.Join(err, fmt.Errorf("the platform ended: %w", p.err))
	}
	return err
}

// signIn returns a client of the platform's APIs.
func (p *platform) signIn(ctx context.Context) (*demo.Client, error) {
	if p.client != nil {
		return p.client, nil
	}
	session, err := shell.SignIn(ctx, p.data)
	if err != nil {
		return nil, err
	}
	p.client, err = demo.NewClient(ctx, session)
	return p.client, err
}

// zero reports whether no instance runs, and as many as said are prepared.
func zero(prepared int) func(giggle.Status) bool {
	return func(st giggle.Status) bool {
		return st.Instances["ready"] == 0 && st.Instances["starting"] == 0 && st.Instances["prepared"] == prepared
	}
}

// atZero reports whether no instance runs, however many are prepared.
func atZero(st giggle.Status) bool {
	return st.Instances["ready"] == 0 && st.Instances["starting"] == 0
}

// withPlatform runs a platform.
func (r *run) withPlatform(
	ctx context.Context, flags []string, do func(p *platform, c *demo.Client) error,
) (err error) {
	p, err := r.launch(ctx, r.data, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	c, err := p.signIn(ctx)
	if err != nil {
		return err
	}
	return do(p, c)
}

// withHello runs a platform with the hello service on it.
func (r *run) withHello(ctx context.Context, flags []string, do func(p *platform, c *demo.Client) error) error {
	return r.withPlatform(ctx, flags, func(p *platform, c *demo.Client) error {
		if r.url == "" {
			if err := r.deployHello(ctx, c); err != nil {
				return err
			}
		}
		if got, err := c.Get(ctx, r.url); err != nil || !strings.HasPrefix(got, "hello") {
			return fmt.Errorf("the service answers %q, %v", got, err)
		}
		return do(p, c)
	})
}

// deployHello builds the hello service and deploys it.
func (r *run) deployHello(ctx context.Context, c *demo.Client) (err error) {
	if err := c.EnsureRepository(ctx); err != nil {
		return err
	}
	src, err := uploadHello(ctx, c, r.dir, 0)
	if err != nil {
		return err
	}
	if r.image, err = c.Build(ctx, src, "hello"); err != nil {
		return err
	}
	url, err := c.Deploy(ctx, "hello", r.image, nil)
	if err != nil {
		return err
	}
	r.url = url
	return c.AllowAll(ctx, "hello")
}

func uploadHello(ctx context.Context, c *demo.Client, dir string, number int) (_ demo.Source, err error) {
	src, err := writeHello(dir, number)
	if err != nil {
		return demo.Source{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	return c.Upload(ctx, src, "hello-"+strconv.Itoa(number)+".zip")
}
