//go:build long

package registry_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestLongThroughput pushes and pulls 200 MB here and to CNCF distribution, both over TLS with the same certificate, in
// turns, and prints the best of three each. It judges nothing: the figures are for people.
func TestLongThroughput(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "registry")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../test/conformance", "-o", bin,
		"github.com/distribution/distribution/v3/cmd/registry")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cert := w.server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"crt": {
		Type:  "CERTIFICATE",
		Bytes: cert.Certificate[0],
	}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q, tls: {certificate: %s, key: %s}}\n",
		filepath.Join(dir, "data"), address, filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	insecure := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the test's own server
	for end := time.Now().Add(30 * time.Second); ; {
		resp, err := (&http.Client{Transport: insecure}).Get("https://" + address + "/v2/")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	const layers, size = 4, 50_000_000
	theirs := []remote.Option{remote.WithTransport(insecure), remote.WithContext(t.Context())}
	best := map[string]time.Duration{}
	measure := func(what string, do func() error) {
		t.Helper()
		start := time.Now()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := time.Since(start); best[what] == 0 || d < best[what] {
			best[what] = d
		}
	}
	for i := range 3 {
		img := randomImage(t, layers, size)
		sides := []struct {
			who, name string
			options   []remote.Option
		}{
			{"giggle", host + "/giggle/my-repo/big:v" + fmt.Sprint(i), w.options(t, "oauth2accesstoken", w.owner)},
			{"distribution", address + "/giggle/big:v" + fmt.Sprint(i), theirs},
		}
		if i%2 == 1 { // who comes first has the colder caches
			slices.Reverse(sides)
		}
		for _, r := range sides {
			to := ref(t, r.name)
			measure(r.who+" push", func() error { return remote.Write(to, img, r.options...) })
			measure(r.who+" pull", func() error {
				got, err := remote.Image(to, r.options...)
				if err != nil {
					return err
				}
				all, err := got.Layers()
				if err != nil {
					return err
				}
				for _, l := range all {
					r, err := l.Compressed()
					if err != nil {
						return err
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						return err
					}
					r.Close()
				}
				return nil
			})
		}
	}
	for _, what := range []string{"push", "pull"} {
		ours, theirs := best["giggle "+what], best["distribution "+what]
		t.Logf("%s of 200 MB: giggle %v, distribution %v: %.2f ×", what, ours.Round(time.Millisecond),
			theirs.Round(time.Millisecond), theirs.Seconds()/ours.Seconds())
	}
}

// randomImage has layers that are ready to be sent: the client compresses and hashes nothing while the clock runs.
func randomImage(t *testing.T, layers, size int) v1.Image {
	t.Helper()
	img := empty.Image
	for range layers {
		content := make([]byte, size)
		_, _ = rand.Read(content) // never fails
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(content, types.DockerLayer)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := img.Digest(); err != nil {
		t.Fatal(err)
	}
	return img
}
