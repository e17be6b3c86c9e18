//go:build long

package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/edge"
)

// h2spec, the conformance suite of HTTP/2, against the TLS listener (test/h2spec pins it).
func TestLongH2Spec(t *testing.T) {
	suite := filepath.Join(t.TempDir(), "h2spec")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../test/h2spec", "-o", suite, "github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, strings.Repeat("knock ", 100))
	})
	s := edge.NewServer(edge.Config{CA: newCA(t, t.TempDir(), time.Now), Router: edge.NewRouter(edge.Routes{API: map[string]http.Handler{"127.0.0.1": h}})})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.ServeTLS(l, nil) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	out, err := exec.CommandContext(t.Context(), suite, "--tls", "--insecure", "--host", "127.0.0.1", "--port", port, "--timeout", "5").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// What net/http does otherwise, and means to.
	known := map[string]string{
		"Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                        "it hangs up on a setting that is sent twice in one frame",
		"Sends a HEADERS frame that contains the connection-specific header field":                     "it answers 400 in place of a stream error",
		`Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`: "as before",
	}
	_, failures, _ := strings.Cut(string(out), "Failures:")
	for line := range strings.Lines(failures) {
		if _, name, ok := strings.Cut(line, "× "); ok {
			if _, name, _ = strings.Cut(strings.TrimSpace(name), ": "); known[name] == "" {
				t.Errorf("failed: %s", name)
			}
		}
	}
	if !strings.Contains(string(out), "145 tests, ") || t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
}
