//go:build long

package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"giggle/api/giggle"
	"giggle/bench/demo"
	"giggle/shell"
)

// soaked answers with the name of its service, and with what it was sent: at once, late, or much of it.
const soaked = `package main

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Service", os.Getenv("K_SERVICE"))
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, r.URL.Query().Get("id")+"\n")
		w.Write(sent)
	})
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
`

// soak is a platform of its own process, which is killed now and then, and what is seen of it.
type soak struct {
	binary, data string
	start        time.Time

	mu       sync.Mutex
	cmd      *exec.Cmd
	ended    chan struct{}
	outages  []span // of the platform, from the kill until it answers again
	deaths   []span // of instances
	answered atomic.Int64
	cut      atomic.Int64 // requests that a kill ended
	wrong    atomic.Int64
}

// span is a time in which something was being killed, since the start.
type span struct{ from, to time.Duration }

func (s span) overlaps(from, to time.Duration) bool { return from <= s.to && s.from <= to }

// Minutes of mixed load, while instances and the platform are killed at random: no answer is wrong, only requests that
// were in flight at a kill fail, and nothing is left behind. GIGGLE_SOAK is how long.
func TestLongSoak(t *testing.T) {
	length := 3 * time.Minute
	if v := os.Getenv("GIGGLE_SOAK"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s := &soak{binary: filepath.Join(dir, "giggle"), data: filepath.Join(dir, "data"), start: time.Now()}
	build := exec.Command("go", "build", "-o", s.binary, "giggle/cmd/giggle")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	namespaces := s.netNamespaces(t)
	s.up(t)
	t.Cleanup(func() { s.stop(t, syscall.SIGTERM) })
	names := []string{"one", "two"}
	image, urls := s.prepare(t, dir, names)

	// What the first requests need stays.
	s.load(t, urls, 10*time.Second, nil)
	settled := s.rest(t)
	s.load(t, urls, length, func(ctx context.Context) { s.havoc(ctx, t, image, names) })
	left := s.rest(t)
	if t.Failed() {
		s.warnings(t)
	}
	t.Logf("%d requests answered, %d cut by %d kills of instances and %d of the platform", s.answered.Load(),
		s.cut.Load(), len(s.deaths), len(s.outages))
	t.Logf("before: %+v", settled)
	t.Logf("after:  %+v", left)
	if len(s.outages) == 0 || len(s.deaths) == 0 {
		t.Errorf("too short to kill anything: %d platforms, %d instances", len(s.outages), len(s.deaths))
	}
	// Prepared containers, kept connections and the like come and go; a leak of one for each kill is more.
	slack := 8 + (len(s.deaths)+len(s.outages))/4
	for what, n := range map[string][2]int{
		"descriptors": {settled.descriptors, left.descriptors}, "goroutines": {settled.goroutines, left.goroutines},
		"mounts": {settled.mounts, left.mounts}, "cgroups": {settled.cgroups, left.cgroups},
	} {
		if n[1] > n[0]+slack {
			t.Errorf("%d %s, %d before", n[1], what, n[0])
		}
	}
	if left.heap > settled.heap+32<<20 {
		t.Errorf("%d MiB of heap, %d before", left.heap>>20, settled.heap>>20)
	}
	s.stop(t, syscall.SIGTERM)
	if mounts, cgroups := s.traces(t); mounts != 0 || cgroups != 0 {
		t.Errorf("%d mounts and %d cgroups are left behind", mounts, cgroups)
	}
	if now := s.netNamespaces(t); now > namespaces {
		t.Errorf("%d network namespaces have processes, %d before", now, namespaces)
	}
}

// up starts the platform and waits until it answers.
func (s *soak) up(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(s.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.binary, "up", "--data", s.data, "--address", "127.71.95.1", "--console", "127.0.0.1:0",
		"--edge", "127.0.0.1:0", "--idle", "5s", "--egress", "off", "--pull", "never")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed, mostly
	}()
	s.mu.Lock()
	s.cmd, s.ended = cmd, ended
	s.mu.Unlock()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if _, err := s.status(t.Context()); err == nil {
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the platform ended: %s", text[max(0, len(text)-4000):])
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the platform does not answer")
		}
	}
}

func (s *soak) status(ctx context.Context) (st giggle.Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://giggle/status", nil)
	if err != nil {
		return st, err
	}
	socket := shell.Dial(s.data)
	defer socket.CloseIdleConnections()
	res, err := socket.Do(req)
	if err != nil {
		return st, err
	}
	err = json.NewDecoder(res.Body).Decode(&st)
	return st, errors.Join(err, res.Body.Close())
}

// stop sends the platform a signal and waits for its end.
func (s *soak) stop(t *testing.T, sig syscall.Signal) {
	s.mu.Lock()
	cmd, ended := s.cmd, s.ended
	s.mu.Unlock()
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		<-ended
		t.Errorf("the platform did not end within a minute of %v", sig)
	}
}

// client signs in at the platform as it is now.
func (s *soak) client(ctx context.Context) (*demo.Client, error) {
	session, err := shell.SignIn(ctx, s.data)
	if err != nil {
		return nil, err
	}
	return demo.NewClient(ctx, session)
}

// prepare builds the image and makes the services.
func (s *soak) prepare(t *testing.T, dir string, names []string) (image string, urls []string) {
	t.Helper()
	src := filepath.Join(dir, "src")
	err := errors.Join(os.Mkdir(src, 0o700), os.WriteFile(filepath.Join(src, "main.go"), []byte(soaked), 0o600),
		os.WriteFile(filepath.Join(src, "go.mod"), []byte("module soaked\n\ngo 1.26\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.EnsureRepository(t.Context()); err != nil {
		t.Fatal(err)
	}
	up, err := c.Upload(t.Context(), src, "soaked.zip")
	if err != nil {
		t.Fatal(err)
	}
	if image, err = c.Build(t.Context(), up, "soaked"); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		url, err := c.Deploy(t.Context(), name, image, fewAtOnce)
		if err == nil {
			err = c.AllowAll(t.Context(), name)
		}
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, url)
	}
	return image, urls
}

// warnings shows why the platform says that it had no instance for a request.
func (s *soak) warnings(t *testing.T) {
	text, err := os.ReadFile(s.data + ".log")
	if err != nil {
		t.Error(err)
	}
	shown := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "no instance for a request") && shown < 20 {
			t.Log(strings.TrimSpace(line))
			shown++
		}
	}
}

// fewAtOnce lets an instance have four requests at once, so that there are several.
func fewAtOnce(svc map[string]any) {
	svc["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containerConcurrency"] = 4
}

// load asks the services in all ways for some time, while havoc goes on.
func (s *soak) load(t *testing.T, urls []string, length time.Duration, havoc func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	session, err := shell.SignIn(ctx, s.data)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(session.CA))
	edge := net.JoinHostPort(session.Address, strconv.Itoa(session.Ports.HTTPS))
	var wg sync.WaitGroup
	for worker := range 12 {
		wg.Go(func() {
			tr := &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, edge)
				},
				TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: worker%2 == 0, DisableCompression: true,
			}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, Timeout: 60 * time.Second}
			for random := rand.New(rand.NewPCG(71, uint64(worker))); ctx.Err() == nil; {
				s.ask(t, client, urls, random)
				// Now and then long enough for everything to become idle.
				pause := time.Duration(random.IntN(40)) * time.Millisecond
				if random.IntN(400) == 0 {
					pause = 3 * time.Second
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	if havoc != nil {
		havoc(ctx)
	}
	wg.Wait()
}

// ask makes one request and judges its answer.
func (s *soak) ask(t *testing.T, client *http.Client, urls []string, random *rand.Rand) {
	which := random.IntN(len(urls))
	id := strconv.FormatUint(random.Uint64(), 16)
	query, method := "?id="+id, "GET"
	var sent []byte
	switch random.IntN(5) {
	case 0:
		query += "&ms=" + strconv.Itoa(random.IntN(400))
	case 1:
		method, sent = "POST", make([]byte, random.IntN(300<<10))
		for i := range sent {
			sent[i] = byte(random.Uint32())
		}
	}
	req, err := http.NewRequest(method, urls[which]+"/"+query, bytes.NewReader(sent))
	if err != nil {
		t.Error(err)
		return
	}
	from := time.Since(s.start)
	res, err := client.Do(req)
	var body []byte
	status := 0
	if err == nil {
		status = res.StatusCode
		body, err = io.ReadAll(res.Body)
		err = errors.Join(err, res.Body.Close())
	}
	to := time.Since(s.start)
	switch {
	case err == nil && status == 200 && string(body) == id+"\n"+string(sent) &&
		res.Header.Get("Service") == []string{"one", "two"}[which]:
		s.answered.Add(1)
	case err == nil && status == 200:
		if s.wrong.Add(1) >= 20 {
			return
		}
		t.Errorf("a wrong answer to %s of %d bytes: %s, %d bytes, %.80q", query, len(sent), res.Header.Get("Service"),
			len(body), body)
	case s.killedIn(from, to):
		s.cut.Add(1)
	default:
		if s.wrong.Add(1) < 20 {
			t.Errorf("%s %s at %s, %s long, with nothing killed: %d %.200q %v", method, query,
				from.Round(time.Millisecond), (to - from).Round(time.Millisecond), status, body, err)
		}
	}
}

// killedIn reports whether something was killed while a request was in flight.
func (s *soak) killedIn(from, to time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	overlaps := func(sp span) bool { return sp.overlaps(from, to) }
	return slices.ContainsFunc(s.outages, overlaps) || slices.ContainsFunc(s.deaths, overlaps)
}

// havoc kills instances and the platform, deploys, and shifts traffic, until ctx is done.
func (s *soak) havoc(ctx context.Context, t *testing.T, image string, names []string) {
	random := rand.New(rand.NewPCG(71, 71))
	for n := 1; ; n++ {
		select {
		case <-time.After(time.Duration(1000+random.IntN(2000)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		switch {
		case n%10 == 0:
			s.mu.Lock()
			s.outages = append(s.outages, span{time.Since(s.start), time.Hour})
			s.mu.Unlock()
			s.stop(t, syscall.SIGKILL)
			s.up(t)
			s.mu.Lock()
			s.outages[len(s.outages)-1].to = time.Since(s.start)
			s.mu.Unlock()
		case n%3 == 0:
			s.redeploy(ctx, t, image, names[random.IntN(len(names))])
		default:
			s.killInstance(t, random)
		}
	}
}

func (s *soak) redeploy(ctx context.Context, t *testing.T, image, name string) {
	c, err := s.client(ctx)
	if err == nil {
		defer c.Close()
		_, err = c.Deploy(ctx, name, image, fewAtOnce)
	}
	if err != nil && ctx.Err() == nil {
		t.Errorf("redeploy %s: %v", name, err)
	}
}

// killInstance kills the first process of a container, whichever.
func (s *soak) killInstance(t *testing.T, random *rand.Rand) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Error(err)
		return
	}
	s.mu.Lock()
	parent := s.cmd.Process.Pid
	s.mu.Unlock()
	var found []int
	for _, pid := range childrenOf(parent) {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && ns != own {
			found = append(found, pid)
		}
	}
	if len(found) == 0 {
		return
	}
	pid := found[random.IntN(len(found))]
	from := time.Since(s.start)
	s.mu.Lock()
	s.deaths = append(s.deaths, span{from, time.Hour})
	at := len(s.deaths) - 1
	s.mu.Unlock()
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended by itself
	_ = syscall.Kill(pid, syscall.SIGKILL)
	// It needs CPU time to end, and may have very little.
	for deadline := time.Now().Add(30 * time.Second); slices.Contains(childrenOf(parent), pid); {
		if time.Now().After(deadline) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid))
			t.Errorf("process %d was killed and is not reaped: %s\n%s\n%s", pid, stat, stack, groups)
			break
		}
		time.Sleep(time.Millisecond) // the look's own interval; the condition is above
	}
	s.mu.Lock()
	s.deaths[at].to = time.Since(s.start)
	s.mu.Unlock()
}

// childrenOf lists the processes of a parent (proc_pid_stat(5)).
func childrenOf(parent int) (out []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range all {
		b, _ := os.ReadFile(f) // it may have ended
		if fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(fields) > 1 &&
			fields[1] == strconv.Itoa(parent) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// holdings are what the platform has while nothing happens.
type holdings struct {
	descriptors, goroutines, mounts, cgroups int
	heap                                     uint64
}

// rest waits until no instance runs, and looks.
func (s *soak) rest(t *testing.T) (h holdings) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; {
		st, err := s.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Instances["ready"]+st.Instances["starting"]+st.Instances["ending"] == 0 && st.Instances["prepared"] == 2 {
			h.heap, h.goroutines = st.Memory.Heap, st.Goroutines
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no rest: %v", st.Instances)
		}
		time.Sleep(10 * time.Millisecond) // the look's own interval; the condition is above
	}
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(all)
	h.mounts, h.cgroups = s.traces(t)
	return h
}

// traces counts the mounts and cgroups of the platform on the machine.
func (s *soak) traces(t *testing.T) (mounts, cgroups int) {
	t.Helper()
	key := s.key()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, key) || strings.Contains(line, s.data) {
			mounts++
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + key, "/sys/fs/cgroup/*/" + key} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(_ string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					cgroups++
				}
				return nil
			})
		}
	}
	return mounts, cgroups
}

// netNamespaces counts the network namespaces that processes are in, but for those of other platforms' containers.
func (s *soak) netNamespaces(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil || len(all) == 0 {
		t.Fatalf("no process is to be seen (%v)", err)
	}
	seen := make(map[string]bool)
	for _, f := range all {
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "../cgroup"))
		if bytes.Contains(groups, []byte("/giggle-")) && !bytes.Contains(groups, []byte(s.key())) {
			continue
		}
		if ns, err := os.Readlink(f); err == nil {
			seen[ns] = true
		}
	}
	return len(seen)
}

// key is in the names of the platform's cgroups and mounts: its engine has it from its directory.
func (s *soak) key() string {
	sum := sha256.Sum256([]byte(filepath.Join(s.data, "engine")))
	return "giggle-" + hex.EncodeToString(sum[:6])
}
