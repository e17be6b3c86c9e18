package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"giggle/api/discoverytest"
	"giggle/api/giggle"
)

// binary is the giggle that the scripts run: the real one, built for them.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "giggle-test-bin-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		// Readable for the ordinary user that a script becomes.
		if err := os.Chmod(dir, 0o755); err != nil {
			panic(err)
		}
		binary = filepath.Join(dir, "giggle")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("go build: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

// addresses gives each script's platform a loopback address of its own, which no other test process has either.
var addresses atomic.Int32

// platform is the cloud of one script.
type platform struct {
	data, address string
	documents     string // a directory of Google's discovery documents
	cmd           *exec.Cmd
	killed        bool // it had no chance to clean up
	ended         chan struct{}
	around        *internet // or nil
}

type platformKey struct{}

// TestScripts runs the product as a user would: the real binary, the real gcloud, real containers.
func TestScripts(t *testing.T) { runScripts(t, "test/scripts") }

// TestOnline is for a developer's machine with a network: its platforms reach the real one.
func TestOnline(t *testing.T) {
	if os.Getenv("GIGGLE_ONLINE") != "1" {
		t.Skip("it asks real registries, with GIGGLE_ONLINE=1")
	}
	runScripts(t, "test/scripts/online")
}

// runScripts runs the scripts of a directory of the repository.
func runScripts(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the scripts run containers: root is needed")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(root, dir),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// Above the temporary directory of the test: an ordinary user can't pass through that one.
			data, err := os.MkdirTemp("", "giggle-test-data-")
			if err != nil {
				return err
			}
			p := &platform{
				data:    filepath.Join(data, "d"),
				address: fmt.Sprintf("127.71.%d.%d", 100+addresses.Add(1), 1+os.Getpid()%250),
			}
			env.Values[platformKey{}] = p
			env.Defer(func() {
				if p.cmd == nil && p.killed { // a script that failed between a kill and the next start
					_ = exec.Command(binary, "reset", "--yes", "--data", p.data).Run()
				}
				p.stop(syscall.SIGTERM)
				for _, wrong := range undocumented(filepath.Join(env.WorkDir, "platform.log")) {
					t.Errorf("an answer is not as Google's document says: %s", wrong)
				}
				if left := leftovers(p.data); len(left) > 0 {
					t.Errorf("a platform on %s has left behind: %v", p.data, left)
				}
				_ = os.RemoveAll(data)
			})
			if err := os.Chmod(data, 0o711); err != nil {
				return err
			}
			env.Setenv("GIGGLE_DATA", p.data)
			env.Setenv("GIGGLE_EGRESS", "off") // no test sends a packet to what it has not made
			env.Setenv("GIGGLE_PULL", "never")
			if filepath.Base(dir) == "online" {
				env.Setenv("GIGGLE_EGRESS", "auto")
				env.Setenv("GIGGLE_PULL", "auto")
			}
			env.Setenv("ADDRESS", p.address)
			env.Setenv("ROOT", root)
			env.Setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
			for _, name := range []string{"GIGGLE_MIRROR", "GOPROXY", "GOFLAGS", "GOCACHE", "GOMODCACHE",
				"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR",
				"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"} {
				if v := os.Getenv(name); v != "" {
					env.Setenv(name, v)
				}
			}
			// For scripts that compile what takes minutes: the caches of the one who runs the tests.
			caches, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
			if err != nil {
				return err
			}
			if p.documents, err = discoverytest.Dir(); err != nil {
				return err
			}
			cache, modules, _ := strings.Cut(strings.TrimSpace(string(caches)), "\n")
			env.Setenv("TESTER_GOCACHE", cache)
			env.Setenv("TESTER_GOMODCACHE", modules)
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"up":       cmdUp,
			"down":     cmdDown,
			"freeze":   cmdKill,
			"online":   cmdOnline,
			"status":   cmdStatus,
			"until":    cmdUntil,
			"setvar":   cmdSetvar,
			"registry": cmdRegistry,
			"postgres": cmdPostgres,
		},
	})
}

// leftovers lists what the platform on a data directory, which is gone, has left on the machine: containers, cgroups,
// runtime state, mounts. Its engine names them by its directory.
func leftovers(data string) []string {
	sum := sha256.Sum256([]byte(filepath.Join(data, "engine")))
	key := "giggle-" + hex.EncodeToString(sum[:6])
	var out []string
	for _, pattern := range []string{"/run/" + key, "/sys/fs/cgroup/" + key, "/sys/fs/cgroup/*/" + key} {
		found, _ := filepath.Glob(pattern)
		out = append(out, found...)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), key) {
			out = append(out, p)
		}
	}
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), data) ||
		strings.Contains(string(b), key) {
		out = append(out, "a mount")
	}
	return out
}

func platformOf(ts *testscript.TestScript) *platform { return ts.Value(platformKey{}).(*platform) }

// cmdUp starts the script's platform and waits until it listens: up [FLAGS].
func cmdUp(ts *testscript.TestScript, neg bool, args []string) {
	p := platformOf(ts)
	log, err := os.OpenFile(filepath.Join(ts.Getenv("WORK"), "platform.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o644)
	ts.Check(err)
	p.cmd = exec.Command(binary,
		append([]string{"up", "--data", p.data, "--address", p.address, "--console", "127.0.0.1:0", "--edge",
			"127.0.0.1:0"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// The ordinary user of the scripts started it, and no script asks a registry that is not its own.
	p.cmd.Env = append(os.Environ(), "SUDO_UID=65534", "GIGGLE_EGRESS="+ts.Getenv("GIGGLE_EGRESS"),
		"GIGGLE_PULL="+ts.Getenv("GIGGLE_PULL"), "GIGGLE_DISCOVERY="+p.documents)
	ts.Check(p.start())
	_ = log.Close()
	ended := make(chan struct{})
	p.ended = ended
	cmd := p.cmd
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err = waitForStatus(ctx, p.data, 30*time.Second)
	if (err != nil) != neg {
		text, _ := os.ReadFile(filepath.Join(ts.Getenv("WORK"), "platform.log"))
		ts.Fatalf("up: %v\n%s", err, text)
	}
}

// undocumented returns what a platform's log says of its own answers that Google's discovery documents don't have, but
// for the known ones.
func undocumented(log string) []string {
	text, err := os.ReadFile(log)
	if err != nil {
		return nil // it was never started
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		_, what, ok := strings.Cut(line, `msg="an answer is not as its document says" what=`)
		if what = strings.Trim(strings.TrimSpace(what), `"`); ok && !slices.Contains(out, what) &&
			!slices.ContainsFunc(knownViolations, func(known string) bool { return strings.Contains(what, known) }) {
			out = append(out, what)
		}
	}
	return out
}

// knownViolations are what answers are known to have beside Google's documents, each with its reason. There may only be
// fewer of them.
var knownViolations = []string{}

// stop ends the platform with a signal and waits for its end.
func (p *platform) stop(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.ended:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.cmd = nil
}

// cmdDown stops the platform as Ctrl-C does.
func cmdDown(ts *testscript.TestScript, _ bool, _ []string) { platformOf(ts).stop(syscall.SIGTERM) }

// cmdKill kills the platform with no chance to clean up.
func cmdKill(ts *testscript.TestScript, _ bool, _ []string) {
	p := platformOf(ts)
	p.stop(syscall.SIGKILL)
	p.killed = true
}

// cmdStatus checks a number of the platform's status: status ready|starting|prepared N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: status ready|starting|prepared N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	deadline := time.Now().Add(30 * time.Second)
	var st giggle.Status
	for {
		st, err = getStatus(context.Background(), platformOf(ts).data)
		ts.Check(err)
		if (st.Instances[args[0]] == want) != neg {
			return
		}
		if time.Now().After(deadline) {
			b, _ := json.Marshal(st)
			ts.Fatalf("%s is not %d: %s", args[0], want, b)
		}
		time.Sleep(20 * time.Millisecond) // the look's own interval; the condition is above
	}
}

// cmdUntil runs a command again and again until it succeeds: until SECONDS COMMAND [ARGS].
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until SECONDS COMMAND [ARGS]")
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	ts.Check(err)
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("until: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // the look's own interval; the condition is above
	}
}

// cmdSetvar sets a variable to the last command's output: setvar NAME.
func cmdSetvar(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: setvar NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// cmdPostgres starts a PostgreSQL of this machine's, as an ordinary user and until the script's end, with a superuser
// joker who needs no password, and sets PGPORT.
func cmdPostgres(ts *testscript.TestScript, _ bool, _ []string) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	ts.Check(err)
	if len(found) == 0 {
		ts.Fatalf("there is no PostgreSQL: run hack/setup test")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "giggle-test-postgres-")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	const nobody = 65534
	ts.Check(os.Chown(dir, nobody, nobody))
	run := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir = dir
		c.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		}
		return c
	}
	if out, err := run("initdb", "-D", "db", "-U", "joker", "--auth=trust", "--no-sync").CombinedOutput(); err != nil {
		ts.Fatalf("initdb: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(errors.Join(err, l.Close()))
	server := run("postgres", "-D", "db", "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	log, err := os.Create(filepath.Join(ts.Getenv("WORK"), "postgres.log"))
	ts.Check(err)
	server.Stdout, server.Stderr = log, log
	ts.Check(server.Start())
	_ = log.Close()
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	ts.Defer(func() {
		_ = server.Process.Signal(syscall.SIGINT) // its clients are cut off
		<-ended
	})
	for deadline := time.Now().Add(30 * time.Second); run("pg_isready", "-h", "127.0.0.1", "-p", port).Run() != nil; {
		if text, _ := os.ReadFile(log.Name()); time.Now().After(deadline) {
			ts.Fatalf("PostgreSQL is not up:\n%s", text)
		}
	}
	ts.Setenv("PGPORT", port)
}
