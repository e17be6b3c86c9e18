//go:build long

package cloud

import (
	"archive/tar"
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
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"giggle/bench/demo"
)

// app answers with the name of its revision.
const app = `package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, os.Getenv("K_REVISION")) })
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
`

// live is a platform that serves, in this process.
type live struct {
	*Cloud
	client *demo.Client
	token  string
	stop   func() // once; fails the test when the platform did not end well
}

func startLive(t *testing.T, address string, idle time.Duration) *live {
	t.Helper()
	dir := t.TempDir()
	c, err := New(t.Context(), Config{
		Data:     filepath.Join(dir, "data"),
		Mirror:   filepath.Join(dir, "mirror"),
		Project:  "giggle",
		Owner:    "you@giggle.test",
		Address:  address,
		Console:  "127.0.0.1:0",
		Edge:     "127.0.0.1:0",
		Idle:     idle,
		Prepared: 32,
		Version:  "test",
		Now:      time.Now,
		Log:      slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &live{Cloud: c}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	p.stop = sync.OnceFunc(func() {
		if p.client != nil {
			p.client.Close()
		}
		cancel()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			t.Errorf("the platform ended with %v", err)
		}
	})
	if err := c.Listen(); err != nil {
		t.Fatal(errors.Join(err, c.Close()))
	}
	go func() { ended <- c.Run(ctx, nil) }()
	t.Cleanup(p.stop)
	session, err := c.Session(t.Context(), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	if p.client, err = demo.NewClient(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	if p.token, _, err = c.identity.AccessToken(c.identity.Owner(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.client.EnsureRepository(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// transport sends everything to the platform's HTTPS edge, over HTTP/1.1 and one connection at most.
func (p *live) transport() *http.Transport {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.ca.CertPEM())
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.https.Addr().String())
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, MaxConnsPerHost: 1, DisableCompression: true,
	}
}

const repository = "europe-north1-docker.pkg.dev/giggle/cloud-run-source-deploy/"

// deploy builds the app, pushes it and makes a service of it. It returns the service's URL and image.
func (p *live) deploy(t *testing.T) (url, image string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", "app", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	err = tw.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = tw.Write(program)
	}
	if err := errors.Join(err, tw.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{
			OS:           "linux",
			Architecture: "amd64",
			Config:       v1.Config{Entrypoint: []string{"/app"}},
			RootFS:       must(img.ConfigFile()).RootFS,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(repository + "app:v1")
	if err != nil {
		t.Fatal(err)
	}
	tr := p.transport()
	tr.MaxConnsPerHost = 0
	defer tr.CloseIdleConnections()
	auth := &authn.Basic{Username: "oauth2accesstoken", Password: p.token}
	if err := remote.Write(ref, img, remote.WithTransport(tr), remote.WithAuth(auth),
		remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	image = ref.String()
	if url, err = p.client.Deploy(t.Context(), "app", image, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.client.AllowAll(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	return url, image
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// rss is this process's resident memory in bytes: the platform and the test's own client.
func rss(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// peak watches the resident memory while do runs, and returns how far it went above what it was before.
func peak(t *testing.T, do func()) int64 {
	t.Helper()
	debug.FreeOSMemory()
	before := rss(t)
	var most atomic.Int64
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most.Store(max(most.Load(), rss(t)))
			case <-done:
				return
			}
		}
	}()
	func() {
		defer func() { close(done); <-watched }()
		do()
	}()
	return most.Load() - before
}

// Fifty thousand requests over fifty connections while the service is redeployed ten times: none fails.
func TestLongRequestsWhileRedeploying(t *testing.T) {
	const requests, connections, redeploys = 50_000, 50, 10
	p := startLive(t, "127.71.91.1", 2*time.Second)
	url, image := p.deploy(t)

	var count, failed, conns atomic.Int64
	var revisions sync.Map
	over := make(chan struct{}) // closed when the redeploys are done
	turn := make(chan struct{}, redeploys)
	get := func(client *http.Client) error {
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if !i.Reused {
				conns.Add(1)
			}
		}}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", url, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return err
		}
		if res.StatusCode != 200 || !strings.HasPrefix(string(body), "app-") {
			return fmt.Errorf("%d %.300q", res.StatusCode, body)
		}
		revisions.LoadOrStore(string(body), true)
		return nil
	}
	load := func(until func(n int64) bool) {
		var wg sync.WaitGroup
		for range connections {
			wg.Go(func() {
				tr := p.transport()
				defer tr.CloseIdleConnections()
				client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
				for {
					n := count.Add(1)
					if until(n) {
						return
					}
					if err := get(client); err != nil && failed.Add(1) <= 10 {
						t.Errorf("request %d: %v", n, err)
					}
					if n%(requests/(redeploys+1)) == 0 && n < requests {
						turn <- struct{}{}
					}
				}
			})
		}
		wg.Wait()
	}
	// What the first requests need stays: buffers, goroutines, pages of the program itself.
	load(func(n int64) bool { return n > 4000 })
	count.Store(0)
	conns.Store(0)
	for len(turn) > 0 {
		<-turn
	}
	start := time.Now()
	go func() {
		defer close(over)
		for i := range redeploys {
			select {
			case <-turn:
			case <-t.Context().Done():
				return
			}
			began := time.Now()
			if _, err := p.client.Deploy(t.Context(), "app", image, nil); err != nil {
				t.Errorf("redeploy %d: %v", i+1, err)
			}
			t.Logf("redeploy %d after %d requests took %s", i+1, count.Load(),
				time.Since(began).Round(time.Millisecond))
		}
	}()
	grown := peak(t, func() {
		load(func(n int64) bool {
			if n <= requests {
				return false
			}
			select {
			case <-over:
				return true
			default:
				return n > 20*requests // it never ends: then the revisions below are too few
			}
		})
	})
	<-over
	seen := 0
	revisions.Range(func(any, any) bool { seen++; return true })
	took := time.Since(start)
	t.Logf("%d requests over %d connections in %s (%.0f/s), %d failed, %d revisions answered, resident memory grew by %.1f MB (with the client's)",
		count.Load(), conns.Load(), took.Round(time.Millisecond), float64(count.Load())/took.Seconds(), failed.Load(),
		seen, float64(grown)/1e6)
	if failed.Load() > 0 {
		t.Errorf("%d requests failed", failed.Load())
	}
	if seen != redeploys+1 {
		t.Errorf("%d revisions answered, want %d", seen, redeploys+1)
	}
	if grown > 128<<20 {
		t.Errorf("resident memory grew by %d MiB", grown>>20)
	}
	p.await(t, "scale to zero", func(ready, starting int) bool { return ready == 0 && starting == 0 })
}

// await waits for a state of the instances.
func (p *live) await(t *testing.T, what string, ok func(ready, starting int) bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := p.scaler.Instances()
		if ok(n.Ready, n.Starting) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s: %+v", what, n)
		}
		<-tick.C
	}
}

// gib is one GiB that no compression and no sparse file makes smaller, the same on every reading.
const gib = 1 << 30

func content() io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{71}), gib)
}

// memory bounds what a stream of any length may take.
const memory = 96 << 20

func TestLongObject(t *testing.T) {
	p := startLive(t, "127.71.92.1", time.Minute)
	tr := p.transport()
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	p.call(t, client, "POST", "https://storage.googleapis.com/storage/v1/b?project=giggle",
		`{"name":"a-big-bucket","location":"europe-north1"}`, 200)

	sum := sha256.New()
	in := io.TeeReader(content(), sum)
	grown := peak(t, func() {
		start := time.Now()
		res := p.send(t, client, "POST",
			"https://storage.googleapis.com/upload/storage/v1/b/a-big-bucket/o?uploadType=resumable&name=big",
			strings.NewReader("{}"), 200,
			"Content-Type", "application/json", "X-Upload-Content-Length", strconv.Itoa(gib))
		at := res.Header.Get("Location")
		const piece = gib / 4
		for from := int64(0); from < gib; from += piece {
			want := http.StatusPermanentRedirect // 308: go on
			if from+piece == gib {
				want = 200
			}
			res := p.send(t, client, "PUT", at, io.LimitReader(in, piece), want,
				"Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+piece-1, gib), "Content-Length",
				strconv.Itoa(piece))
			if got := res.Header.Get("Range"); want == 308 && got != fmt.Sprintf("bytes=0-%d", from+piece-1) {
				t.Fatalf("after %d bytes the upload has %q", from+piece, got)
			}
		}
		t.Logf("resumable upload of 1 GiB: %s", time.Since(start).Round(time.Millisecond))
	})
	t.Logf("resident memory grew by %.1f MB", float64(grown)/1e6)
	if grown > memory {
		t.Errorf("an upload of 1 GiB took %d MiB of memory", grown>>20)
	}

	back := sha256.New()
	grown = peak(t, func() {
		start := time.Now()
		const piece = gib / 8
		for from := int64(0); from < gib; from += piece {
			req := p.request(t, "GET", "https://storage.googleapis.com/storage/v1/b/a-big-bucket/o/big?alt=media", nil,
				"Range", fmt.Sprintf("bytes=%d-%d", from, from+piece-1))
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(back, res.Body)
			if err := errors.Join(err, res.Body.Close()); err != nil || n != piece ||
				res.StatusCode != http.StatusPartialContent {
				t.Fatalf("%d bytes from %d: %d, %v", n, from, res.StatusCode, err)
			}
		}
		t.Logf("download of 1 GiB by ranges: %s", time.Since(start).Round(time.Millisecond))
	})
	t.Logf("resident memory grew by %.1f MB", float64(grown)/1e6)
	if grown > memory {
		t.Errorf("a download of 1 GiB took %d MiB of memory", grown>>20)
	}
	if !bytes.Equal(sum.Sum(nil), back.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
}

func TestLongBlob(t *testing.T) {
	p := startLive(t, "127.71.93.1", time.Minute)
	tr := p.transport()
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	host, path, _ := strings.Cut(repository, "/")
	base := "https://" + host + "/v2/" + path + "big/blobs/"

	sum := sha256.New()
	var digest string
	grown := peak(t, func() {
		start := time.Now()
		res := p.send(t, client, "POST", base+"uploads/", nil, http.StatusAccepted)
		at := absolute(host, res.Header.Get("Location"))
		res = p.send(t, client, "PATCH", at, io.TeeReader(content(), sum), http.StatusAccepted,
			"Content-Type", "application/octet-stream", "Content-Length", strconv.Itoa(gib))
		at = absolute(host, res.Header.Get("Location"))
		digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
		sep := "?"
		if strings.Contains(at, "?") {
			sep = "&"
		}
		p.send(t, client, "PUT", at+sep+"digest="+digest, nil, http.StatusCreated)
		t.Logf("push of 1 GiB: %s", time.Since(start).Round(time.Millisecond))
	})
	t.Logf("resident memory grew by %.1f MB", float64(grown)/1e6)
	if grown > memory {
		t.Errorf("a push of 1 GiB took %d MiB of memory", grown>>20)
	}

	back := sha256.New()
	grown = peak(t, func() {
		start := time.Now()
		res, err := client.Do(p.request(t, "GET", base+digest, nil))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(back, res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil || n != gib || res.StatusCode != 200 {
			t.Fatalf("%d bytes, %d, %v", n, res.StatusCode, err)
		}
		t.Logf("pull of 1 GiB: %s", time.Since(start).Round(time.Millisecond))
	})
	t.Logf("resident memory grew by %.1f MB", float64(grown)/1e6)
	if grown > memory {
		t.Errorf("a pull of 1 GiB took %d MiB of memory", grown>>20)
	}
	if !bytes.Equal(sum.Sum(nil), back.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
}

func absolute(host, location string) string {
	if strings.HasPrefix(location, "/") {
		return "https://" + host + location
	}
	return location
}

// request makes a request as the owner; headers are name, value, …
func (p *live) request(t *testing.T, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Content-Length" {
			if req.ContentLength, err = strconv.ParseInt(headers[i+1], 10, 64); err != nil {
				t.Fatal(err)
			}
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// send sends a request and returns its answer, read to the end.
func (p *live) send(
	t *testing.T, client *http.Client, method, url string, body io.Reader, status int, headers ...string,
) *http.Response {
	t.Helper()
	res, err := client.Do(p.request(t, method, url, body, headers...))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, url, res.StatusCode, status, text)
	}
	return res
}

func (p *live) call(t *testing.T, client *http.Client, method, url, body string, status int) {
	t.Helper()
	if !json.Valid([]byte(body)) {
		t.Fatalf("%s is not JSON", body)
	}
	p.send(t, client, method, url, strings.NewReader(body), status, "Content-Type", "application/json")
}

// To zero and back a hundred times: every request is answered, and at the end nothing is left.
func TestLongZeroAndBack(t *testing.T) {
	const rounds = 100
	before := descriptors(t)
	p := startLive(t, "127.71.94.1", 50*time.Millisecond)
	url, _ := p.deploy(t)
	// A platform has children while it runs: else the check at the end would see none.
	p.await(t, "a child process", func(int, int) bool { return len(children(t)) > 0 })
	tr := p.transport()
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	var settled int
	start := time.Now()
	for i := range rounds {
		p.await(t, "scale to zero", func(ready, starting int) bool { return ready == 0 && starting == 0 })
		res, err := client.Do(p.request(t, "GET", url, nil))
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		body, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != 200 ||
			!strings.HasPrefix(string(body), "app-") {
			t.Fatalf("round %d: %d %.300q %v", i, res.StatusCode, body, err)
		}
		if i == rounds/10 {
			settled = descriptors(t)
		}
	}
	p.await(t, "scale to zero", func(ready, starting int) bool { return ready == 0 && starting == 0 })
	t.Logf("%d rounds in %s", rounds, time.Since(start).Round(time.Millisecond))
	// An instance that is being stopped or prepared has some; a leak of one for each round is more.
	if now := descriptors(t); now > settled+rounds/4 {
		t.Errorf("%d descriptors after %d rounds, %d after %d", now, rounds, settled, rounds/10)
	}
	tr.CloseIdleConnections()
	p.stop()
	if after := descriptors(t); after > before+8 { // the runtime's own poller and the like
		t.Errorf("%d descriptors after the platform has ended, %d before", after, before)
	}
	t.Logf("descriptors: %d before, %d after %d rounds, %d at the end", before, settled, rounds/10, descriptors(t))
	sum := sha256.Sum256([]byte(p.path("engine")))
	key := "giggle-" + hex.EncodeToString(sum[:6])
	for _, pattern := range []string{"/run/" + key, "/sys/fs/cgroup/" + key, "/sys/fs/cgroup/*/" + key} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), key) {
		t.Errorf("a mount is left, or: %v", err)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

// descriptors is how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// children are this process's children, by name and id.
func children(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(all) == 0 {
		t.Fatalf("no process is to be seen (%v)", err)
	}
	var out []string
	for _, f := range all {
		b, _ := os.ReadFile(f) // it may have ended
		// "PID (NAME) STATE PARENT …", and a name may hold anything (proc_pid_stat(5)).
		end := bytes.LastIndexByte(b, ')')
		if fields := strings.Fields(string(b[end+1:])); len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			out = append(out, string(b[:end+1]))
		}
	}
	return out
}
