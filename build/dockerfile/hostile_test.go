package dockerfile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/build/dockerfile"
	"giggle/fault"
)

// What RUN steps do stays in their containers, their limits and their network.
func TestHostileRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the host's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := files(t, map[string]string{"Dockerfile": fmt.Sprintf(`FROM debian:12
RUN ! (exec 3<>/dev/tcp/%s) 2>/dev/null || { echo the host answers; exit 1; }
SHELL ["/bin/bash", "-c"]
RUN ! (exec 3<>/dev/tcp/127.0.0.1/%d) 2>/dev/null || { echo the host answers; exit 1; }
RUN exec 3<>/dev/tcp/169.254.169.254/80 && printf 'GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n' >&3 && cat <&3 | tee /answer | grep 'have no identity'
RUN exec 3<>/dev/tcp/169.254.169.254/80 && printf 'POST /v2/stage/x/blobs/uploads/ HTTP/1.0\r\n\r\n' >&3 && cat <&3 | grep '401 Unauthorized'
RUN ! mount -t tmpfs none /mnt 2>/dev/null && mknod /tmp/zero c 1 11 && ! head -c1 /tmp/zero 2>/dev/null && rm /tmp/zero
RUN ls -d /proc/[0-9]* | wc -l | xargs test 20 -gt
`, strings.Replace(l.Addr().String(), ":", "/", 1), l.Addr().(*net.TCPAddr).Port)})
	if _, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true}); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
}

// A fork bomb ends in its limit, and the next build works.
func TestForkBomb(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": "FROM debian:12\nSHELL [\"/bin/bash\", \"-c\"]\nRUN for i in {1..2000}; do sleep 30 & done; echo all of them\n"})
	_, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true})
	if err == nil || !strings.Contains(log, "Resource temporarily unavailable") {
		t.Errorf("2000 processes with a limit of 512: %v\n%.2000s", err, log)
	}
	dir = files(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN true\n"})
	if _, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true}); err != nil {
		t.Errorf("the next build: %v\n%s", err, log)
	}
}

func TestSourceBombs(t *testing.T) {
	if _, err := builder.BuildSource(t.Context(), job, strings.NewReader("no archive"), 10, io.Discard); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("no archive: %v", err)
	}
}

// BuildKit ends when it is idle, with the builder, and is started again; its cache stays.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(dir, m)
	cfg.Idle = time.Millisecond
	cfg.Engine = shared
	if err := builder.Close(); err != nil { // one engine has one BuildKit
		t.Fatal(err)
	}
	idle, err := dockerfile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	src := files(t, map[string]string{"Dockerfile": "FROM gcr.io/distroless/static-debian11\nCOPY Dockerfile /x\n"})
	for i := range 2 {
		var log bytes.Buffer
		if _, err := idle.Build(t.Context(), dockerfile.Request{Build: job, Context: src}, &log); err != nil {
			t.Fatal(err)
		}
		if cached := strings.Contains(log.String(), "CACHED"); cached != (i == 1) {
			t.Errorf("build %d: from the cache: %t\n%s", i, cached, &log)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		for idle.Running() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		if idle.Running() {
			t.Fatal("BuildKit still runs")
		}
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/*/daemon-buildkit"); len(left) > 0 {
		for _, p := range left {
			if pids, err := os.ReadFile(filepath.Join(p, "cgroup.procs")); err == nil && strings.HasPrefix(string(pids), fmt.Sprint(os.Getpid())) {
				t.Errorf("left behind: %v", left)
			}
		}
	}
	if _, err := idle.Build(t.Context(), dockerfile.Request{Build: job, Context: src}, io.Discard); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
	var next *dockerfile.Builder
	if next, err = dockerfile.New(config(filepath.Join(dir, "next"), m)); err != nil {
		t.Fatal(err)
	}
	builder = next // for the tests that follow
}

// Without its programs the message says what to do.
func TestNoBuildKit(t *testing.T) {
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t.TempDir(), m)
	cfg.Path, cfg.Log = nil, slog.Default()
	t.Setenv("PATH", "/nowhere")
	none, err := dockerfile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = none.Build(t.Context(), dockerfile.Request{Build: job, Context: files(t, map[string]string{"Dockerfile": "FROM scratch\n"})}, io.Discard)
	if f := fault.From(err); f.Code != fault.FailedPrecondition || !strings.Contains(f.Message, "make setup") {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
