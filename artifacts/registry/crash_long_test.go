//go:build long

package registry_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/google/uuid"

	"giggle/artifacts"
	"giggle/artifacts/registry"
	"giggle/blob"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/resource"
	"giggle/store"
)

// registryDir names the directory of the registry that a copy of this test program is.
const registryDir = "GIGGLE_TEST_REGISTRY_DIR"

// TestLongRegistryProcess is no test but a registry in a process of its own, which collects all the time, until it is
// killed. It prints its address and a token.
func TestLongRegistryProcess(t *testing.T) {
	dir := os.Getenv(registryDir)
	if dir == "" {
		return // only TestLongCrash starts it
	}
	ctx := t.Context()
	st, err := store.Open(ctx, filepath.Join(dir, "state.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := iam.New(ctx, iam.Config{Store: st, Owner: "you@giggle.test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Now: time.Now, Journal: st})
	if err != nil {
		t.Fatal(err)
	}
	a := artifacts.New(artifacts.Config{Store: st, Blobs: blobs, NewID: uuid.NewString})
	w := &world{Artifacts: a, identity: identity}
	if _, err := a.Repository(ctx, legacyIn("us").Name); fault.Is(err, fault.NotFound) {
		w.grant(t, "projects/giggle", "roles/owner", "user:you@giggle.test")
		if err := a.CreateOnPush(ctx, legacyIn("us").Name); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			if _, err := a.Forget(ctx, time.Now().Add(-5*time.Second)); err != nil {
				fmt.Println("ERROR", err)
			}
			if _, err := blobs.Collect(ctx, time.Now().Add(-100*time.Millisecond), a); err != nil {
				fmt.Println("ERROR", err)
			}
		}
	}()
	server := httptest.NewTLSServer(registry.New(registry.Config{
		Artifacts: a,
		Blobs:     blobs,
		Identity:  identity,
		Audit:     log,
		NewID:     uuid.NewString,
		Log:       slog.New(slog.NewTextHandler(os.Stdout, nil)),
		Project:   func(ref string) (resource.Project, error) { return resource.Project{ID: ref}, nil },
	}))
	fmt.Println("READY", server.Listener.Addr(), w.token(t, "you"))
	select {}
}

// process is a registry in a process.
type process struct {
	cmd            *exec.Cmd
	address, token string
}

func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{
		cmd: exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLongRegistryProcess$", "-test.timeout=10m"),
	}
	p.cmd.Env = append(os.Environ(), registryDir+"="+dir)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "READY" {
			p.address, p.token = f[1], f[2]
			break
		}
	}
	if p.token == "" {
		t.Fatal("the registry did not start")
	}
	go func() {
		for lines.Scan() {
			if strings.Contains(lines.Text(), "ERROR") {
				t.Log(lines.Text())
			}
		}
	}()
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // killed
}

func (p *process) options(ctx context.Context) []remote.Option {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, p.address)
		},
	}
	return []remote.Option{
		remote.WithTransport(tr), remote.WithContext(ctx),
		remote.WithAuth(&authn.Basic{Username: "oauth2accesstoken", Password: p.token}),
		remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Steps: 1}),
	}
}

// Fifty pushes and pulls at once, with collections all the time and the registry killed in the middle: what was
// acknowledged is there, whole, and what was not can be pushed again.
func TestLongCrash(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir)
	const n = 50
	images := make([]v1.Image, n)
	for i := range images {
		var err error
		if images[i], err = random.Image(200_000, 3); err != nil {
			t.Fatal(err)
		}
	}
	name := func(i int) string { return fmt.Sprintf("gcr.io/giggle/i%d:v1", i) }
	push := func(p *process, only func(int) bool, failed func(int, error), acknowledged func(int)) {
		var all sync.WaitGroup
		for i, img := range images {
			if !only(i) {
				continue
			}
			all.Go(func() {
				o := p.options(t.Context())
				if err := remote.Write(ref(t, name(i)), img, o...); err != nil {
					failed(i, err)
					return
				}
				acknowledged(i)
				got, err := remote.Image(ref(t, name(i)), o...)
				if err == nil {
					err = validate.Image(got)
				}
				if err != nil {
					failed(i, err)
				}
			})
		}
		all.Wait()
	}
	var mu sync.Mutex
	done := map[int]bool{}
	killed := make(chan struct{})
	push(p, func(int) bool { return true }, func(i int, err error) {
		select {
		case <-killed:
		default:
			mu.Lock()
			defer mu.Unlock()
			if len(done) < n/3 { // the kill may come first to the client
				t.Errorf("%d: %v", i, err)
			}
		}
	}, func(i int) {
		mu.Lock()
		defer mu.Unlock()
		if done[i] = true; len(done) == n/3 {
			p.kill(t)
			close(killed)
		}
	})
	if len(done) < n/3 || len(done) == n {
		t.Fatalf("%d of %d were acknowledged before the kill: it was not in the middle", len(done), n)
	}
	t.Logf("killed after %d of %d", len(done), n)

	p = startProcess(t, dir)
	defer p.kill(t)
	check := func(i int) {
		t.Helper()
		got, err := remote.Image(ref(t, name(i)), p.options(t.Context())...)
		if err == nil {
			err = validate.Image(got)
		}
		if err != nil || digest(t, got) != digest(t, images[i]) {
			t.Errorf("%d was acknowledged: %v", i, err)
		}
	}
	for i := range done {
		check(i)
	}
	push(p, func(i int) bool { return !done[i] }, func(i int, err error) { t.Errorf("again, %d: %v", i, err) },
		func(int) {})
	for i := range images {
		check(i)
	}
}
