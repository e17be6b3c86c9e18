package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"giggle/engine"
)

func TestHello(t *testing.T) {
	dir := t.TempDir()
	layer := filepath.Join(dir, "layer")
	os.Mkdir(layer, 0o755)
	cmd := exec.Command("go", "build", "-o", layer+"/app", "./testdata/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	t0 := time.Now()
	e, err := engine.Open(t.Context(), engine.Config{Dir: dir + "/engine", Log: slog.Default(), Runtime: os.Getenv("RT")})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	t.Log(e.Runtime(), time.Since(t0))
	for k := range 20 {
		time.Sleep(50 * time.Millisecond)
		t0 = time.Now()
		i, err := e.Prepare(t.Context(), engine.Spec{ID: fmt.Sprint(k), Layers: []string{layer}, Args: []string{"/app", ":8080"}, Memory: 512 << 20, CPU: 1000,
			Output: func(l engine.Line) { t.Log(l) }})
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		go i.Start(context.Background())
		for {
			c, err := i.Dial(t.Context(), 8080)
			if err != nil {
				time.Sleep(500 * time.Microsecond)
				continue
			}
			fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
			http.ReadResponse(bufio.NewReader(c), nil)
			break
		}
		t2 := time.Now()
		i.Stop(t.Context(), 0)
		t.Log("prepare", t1.Sub(t0), "first byte", t2.Sub(t1), "stop", time.Since(t2), i.Exit())
	}
}
