//go:build long

package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
)

// A gibibyte each way, by every protocol that may carry it, and little of it is in memory at any time.
func TestLongGibibyte(t *testing.T) {
	const size = 1 << 30
	everyWay(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, " ", err)
			return
		}
		if r.URL.Path == "/announced" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		_, _ = io.CopyN(w, zeros{}, size)
	}, func(t *testing.T, w *road, c *http.Client, _, h2c bool) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		paths := []string{"/chunks"}
		if h2c { // what HTTP/1 announces is bounded
			paths = append(paths, "/announced")
		}
		for _, path := range paths {
			res, err := c.Get("https://" + host + path)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if n != size || err != nil {
				t.Errorf("%s: %d bytes, %v", path, n, err)
			}
		}
		if h2c { // HTTP/1's bodies are bounded
			res, err := c.Post("https://"+host+"/", "application/octet-stream", io.LimitReader(zeros{}, size))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if string(b) != fmt.Sprint(size, " <nil>") {
				t.Errorf("up: %s", b)
			}
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128<<20 {
			t.Errorf("the heap has grown by %d MiB", grown>>20)
		}
	})
}
