package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"giggle/api/giggle"
	"giggle/bench/demo"
	"giggle/shell"
)

// target is something that wrk asks: a proxy, or the instance itself.
type target struct {
	name      string
	prefix    []string
	url, host string
	pids      func() ([]int, error) // of the proxy; nil for none
	rates     []float64
	cpus      []float64 // µs of the proxy for each request
	p50, p99  series
	failed    []string // what wrk complained of
}

// gatewayLoad compares the gateway with nginx and haproxy before one and the same instance: the two run in its network
// namespace, as does wrk when it asks them, and reach it over the loopback device as the gateway does.
func gatewayLoad(ctx context.Context, r *run) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		return missing{"wrk"}
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return missing{"nsenter"}
	}
	return r.withHello(ctx, []string{"--idle", "40ms", "--prepared", "0"},
		func(p *platform, c *demo.Client) (err error) {
			// Always one, and with CPU also for requests that do not come through the gateway.
			url, err := c.Deploy(ctx, "busy", r.image, func(svc map[string]any) {
				template := svc["spec"].(map[string]any)["template"].(map[string]any)
				template["metadata"].(map[string]any)["annotations"] = map[string]string{
					"autoscaling.knative.dev/minScale": "1", "autoscaling.knative.dev/maxScale": "1",
					"run.googleapis.com/cpu-throttling": "false",
				}
			})
			if err == nil {
				err = c.AllowAll(ctx, "busy")
			}
			if err != nil {
				return err
			}
			defer func() { // none that runs for ever is left to the other benchmarks
				_, e := c.Deploy(ctx, "busy", r.image, nil)
				err = errors.Join(err, e)
			}()
			if _, err := c.Get(ctx, url); err != nil {
				return err
			}
			socket := shell.Dial(p.data)
			defer socket.CloseIdleConnections()
			st, err := status(ctx, socket)
			if err != nil {
				return err
			}
			host, err := hostOf(url)
			if err != nil {
				return err
			}
			// The hello service's own instance goes, this one stays.
			if err := p.until(ctx, func(st giggle.Status) bool {
				return st.Instances["ready"] == 1 &&
					st.Instances["starting"] == 0
			}); err != nil {
				return err
			}
			inside, err := p.inside()
			if err != nil {
				return err
			}
			platformPID := p.cmd.Process.Pid
			targets := []*target{
				{
					name: "giggle",
					url:  "http://" + st.Edge + "/",
					host: host,
					pids: func() ([]int, error) { return []int{platformPID}, nil },
				},
				{name: "direct", prefix: inside, url: "http://127.0.0.1:8080/"},
			}
			for _, server := range []*server{nginx(), haproxy()} {
				t, stop, err := r.startServer(server, inside)
				if errors.As(err, new(missing)) {
					fmt.Fprintf(r.cfg.Out, "  without %s: %v\n", server.name, err)
					continue
				}
				if err != nil {
					return err
				}
				defer stop()
				targets = append(targets, t)
			}
			for round := range r.n + 1 { // the first one warms up
				for i := range targets {
					t := targets[(i+round)%len(targets)]
					if err := t.measure(ctx, r.length(), round > 0); err != nil {
						return fmt.Errorf("%s: %w", t.name, err)
					}
				}
			}
			r.gatewayFigures(targets)
			return nil
		})
}

// inside is a command that runs another in the network namespace of the only instance. One that is being stopped may
// still listen, so it waits until there is one.
func (p *platform) inside() ([]string, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(statusPoll) {
		pids, err := children(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return !listens(pid, 8080) })
		if len(pids) == 1 {
			return []string{"nsenter", "--net=" + fmt.Sprintf("/proc/%d/ns/net", pids[0]), "--"}, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d instances listen", len(pids))
		}
	}
}

// listens reports whether something listens on the port in the network namespace of a process (proc_net(5)).
func listens(pid, port int) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // it has ended
		}
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) &&
				f[3] == "0A" {
				return true
			}
		}
	}
	return false
}

func (t *target) measure(ctx context.Context, length time.Duration, counts bool) error {
	before, err := t.cpu()
	if err != nil {
		return err
	}
	got, err := wrk(ctx, t.prefix, length, t.url, t.host)
	if err != nil {
		return err
	}
	after, err := t.cpu()
	if err != nil || !counts {
		return err
	}
	if got.failed != "" {
		t.failed = append(t.failed, got.failed)
	}
	t.rates, t.p50, t.p99 = append(t.rates, got.rate), append(t.p50, got.p50), append(t.p99, got.p99)
	t.cpus = append(t.cpus, float64((after-before).Microseconds())/float64(max(1, got.requests)))
	return nil
}

// cpu is what the proxy's processes have used.
func (t *target) cpu() (sum time.Duration, err error) {
	if t.pids == nil {
		return 0, nil
	}
	pids, err := t.pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		d, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// cpuTime is utime and stime of a process (proc_pid_stat(5)), which are in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// gatewayFigures adds what the targets say: the gateway beside nginx, and a line about all.
func (r *run) gatewayFigures(targets []*target) {
	var note []string
	by := make(map[string]*target)
	for _, t := range targets {
		by[t.name] = t
		if t.failed != nil {
			note = append(note, fmt.Sprintf("%s failed: %s", t.name, strings.Join(t.failed, ", ")))
		}
		note = append(note, fmt.Sprintf("%s %.0f/s, %.0f µs, p50 %.1f, p99 %.1f ms", t.name, median(t.rates),
			median(t.cpus), t.p50.quantile(0.5), t.p99.quantile(0.5)))
	}
	add := func(name, unit, text string, of func(*target) []float64, met func(ratio float64) bool) {
		values := of(by["giggle"])
		res := numbers(name, unit, values)
		if base := by["nginx"]; base != nil {
			// Ratios of the rounds: what slows the machine for a while slows both.
			var ratios []float64
			for i, v := range of(base) {
				ratios = append(ratios, values[i]/v)
			}
			res.Baseline, res.BaselineValue, res.Ratio = "nginx", median(of(base)), float64(int(median(ratios)*100+
				0.5))/100
			res.Goal, res.Met = text, met(res.Ratio)
		}
		r.results = append(r.results, res)
	}
	add("gateway_rps", "requests/s", "≥ 0.7 × nginx, no error", func(t *target) []float64 { return t.rates },
		func(x float64) bool { return x >= 0.7 && by["giggle"].failed == nil })
	r.last().Note = strings.Join(note, "; ")
	add("gateway_cpu", "µs", "", func(t *target) []float64 { return t.cpus }, func(x float64) bool { return true })
}

// missing says that a program is not installed.
type missing struct{ program string }

func (m missing) Error() string { return m.program + " is not installed" }

// server is a reverse proxy to stand beside the gateway.
type server struct {
	name, port string
	config     func(dir string) string
	args       func(file string) []string
}

func nginx() *server {
	return &server{"nginx", "8090", func(dir string) string {
		return `user root;
daemon off;
worker_processes auto;
pid ` + dir + `/pid;
error_log ` + dir + `/error.log;
events { worker_connections 1024; }
http {
	log_format json escape=json '{"time":"$time_iso8601","remote":"$remote_addr","method":"$request_method","uri":"$request_uri","status":$status,"size":$body_bytes_sent,"agent":"$http_user_agent","latency":$request_time,"upstream":"$upstream_addr"}';
	access_log ` + dir + `/access.log json;
	client_body_temp_path ` + dir + `; proxy_temp_path ` + dir + `; fastcgi_temp_path ` + dir + `; uwsgi_temp_path ` +
			dir + `; scgi_temp_path ` + dir + `;
	upstream app { server 127.0.0.1:8080; keepalive 64; keepalive_requests 10000000; }
	server {
		listen 127.0.0.1:8090;
		keepalive_requests 10000000;
		location / {
			proxy_pass http://app;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}
`
	}, func(file string) []string { return []string{"-c", file} }}
}

func haproxy() *server {
	return &server{"haproxy", "8091", func(dir string) string {
		return `global
	log stdout format raw local0
defaults
	mode http
	log global
	option httplog
	option forwardfor
	timeout connect 5s
	timeout client 60s
	timeout server 60s
frontend in
	bind 127.0.0.1:8091
	default_backend app
backend app
	http-reuse always
	server app 127.0.0.1:8080
`
	}, func(file string) []string { return []string{"-db", "-f", file} }}
}

// startServer starts a reverse proxy in the instance's network namespace. Stop ends it.
func (r *run) startServer(s *server, inside []string) (_ *target, stop func(), err error) {
	path := s.name
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err = exec.LookPath(dir + s.name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, missing{s.name}
	}
	dir := filepath.Join(r.dir, s.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(s.config(dir)), 0o600); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, nil, err
	}
	args := append(append(append([]string(nil), inside...), path), s.args(file)...)
	cmd := exec.Command(args[0], args[1:]...) // nsenter becomes the server: it does not fork
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // killed by the signal, or not: it is gone
		_ = log.Close()
	}
	pid := cmd.Process.Pid
	port, err := strconv.Atoi(s.port)
	if err != nil {
		return nil, nil, err
	}
	for deadline := time.Now().Add(5 * time.Second); !listens(pid, port); {
		if time.Now().After(deadline) {
			stop()
			text, _ := os.ReadFile(log.Name()) // for the message only
			return nil, nil, fmt.Errorf("%s does not listen: %s", s.name, text)
		}
		time.Sleep(statusPoll)
	}
	return &target{name: s.name, prefix: inside, url: "http://127.0.0.1:" + s.port + "/", pids: func() ([]int, error) {
		workers, err := children(pid)
		return append(workers, pid), err
	}}, stop, nil
}
