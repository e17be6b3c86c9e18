package engine_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"giggle/engine"
)

// Many instances at once, coming and going: each keeps its own sockets, network and ids, and nothing leaks.
func TestManyAtOnce(t *testing.T) { eachRuntime(t, manyAtOnce) }

func manyAtOnce(t *testing.T, e *engine.Engine) {
	before := resources(t)
	var wg sync.WaitGroup
	for k := range 40 {
		wg.Go(func() {
			id := fmt.Sprint("many-", k)
			s := serving(id)
			s.Layers = []string{layer}
			s.Files = []engine.File{{Path: "/etc/motd", Data: []byte("for all")}, {Path: "/etc/name", Data: []byte(id)}}
			s.Sockets.Metadata = func(l net.Listener) {
				http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, id) }))
			}
			i, err := e.Prepare(t.Context(), s)
			if err != nil {
				t.Error(err)
				return
			}
			defer i.Stop(t.Context(), 0)
			if k%4 == 3 {
				return // never started
			}
			if err := i.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			for path, query := range map[string][2]string{"/get": {"url", "http://169.254.169.254/"},
				"/read": {"path", "/etc/name"}} {
				if got, err := get(t, i, 8080, path, query[0], query[1]); err != nil || got != id {
					t.Errorf("%s of %s = %q, %v", path, id, got, err)
				}
			}
		})
	}
	wg.Wait()
	if err := e.Close(); err != nil { // waits for what goes on in the background
		t.Error(err)
	}
	if after := resources(t); after.files > before.files {
		t.Errorf("descriptors: %d before, %d after", before.files, after.files)
	} else if after.zombies > before.zombies {
		t.Errorf("zombies: %d before, %d after", before.zombies, after.zombies)
	}
}

type held struct{ files, zombies int }

// resources counts what this process holds.
func resources(t *testing.T) (h held) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h.files = len(fds)
	processes, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf(" Z %d ", os.Getpid())
	for _, p := range processes {
		if stat, err := os.ReadFile("/proc/" + p.Name() + "/stat"); err == nil && strings.Contains(string(stat), ours) {
			h.zombies++
		}
	}
	return h
}
