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

// h2spec, the conformance suite of HTTP/2, against both listeners (test/h2spec pins it).
func TestLongH2Spec(t *testing.T) {
	suite := filepath.Join(t.TempDir(), "h2spec")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../test/h2spec", "-o", suite,
		"github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, strings.Repeat("knock ", 100))
	})
	s := edge.NewServer(edge.Config{
		CA:     newCA(t, t.TempDir(), time.Now),
		Router: edge.NewRouter(edge.Routes{API: map[string]http.Handler{"127.0.0.1": h}}),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
	})
	for _, tt := range []struct {
		name   string
		serve  func(net.Listener, edge.ConnContext) error
		flags  []string
		failed string
	}{
		{"TLS", s.ServeTLS, []string{"--tls", "--insecure"}, ""},
		// Without TLS, what does not begin as HTTP/2 is HTTP/1.1, whose answer to nonsense is 400.
		{"plain", s.ServePlain, []string{"--path", "/_/127.0.0.1/"}, "2: Sends invalid connection preface"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = tt.serve(l, nil) }()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			out, err := exec.CommandContext(t.Context(), suite,
				append(tt.flags, "--host", "127.0.0.1", "--port", port, "--timeout", "5")...).CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			_, failures, _ := strings.Cut(string(out), "Failures:")
			var failed []string
			for line := range strings.Lines(failures) {
				if _, name, ok := strings.Cut(line, "× "); ok {
					failed = append(failed, strings.TrimSpace(name))
				}
			}
			if !strings.Contains(string(out), "145 tests, ") || strings.Join(failed, "; ") != tt.failed {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
