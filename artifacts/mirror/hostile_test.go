package mirror_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/fault"
)

// status answers with a status and headers, "KEY: VALUE".
func status(code int, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for _, h := range headers {
			key, value, _ := strings.Cut(h, ": ")
			w.Header().Set(key, value)
		}
		w.WriteHeader(code)
		return true
	}
}

// body answers with what write writes.
func body(write func(w io.Writer)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		write(w)
		return true
	}
}

// A registry that refuses, lies or hangs: why, and what to do, is said in time, and nothing of it is kept.
func TestPullFails(t *testing.T) {
	const app = "library/app:1"
	for name, c := range map[string]struct {
		config func(*mirror.PullerConfig)
		hub    func(*hub)
		image  string
		code   fault.Code
		want   string
	}{
		"no image":   {image: "library/none:1", code: fault.FailedPrecondition, want: "has no such image"},
		"no digest":  {image: "library/app@sha256:" + strings.Repeat("0", 64), code: fault.FailedPrecondition, want: "has no such image"},
		"private":    {hub: func(h *hub) { h.user = "me" }, code: fault.PermissionDenied, want: "giggle images login"},
		"rate limit": {hub: func(h *hub) { h.manifest = status(429, "Retry-After: 120") }, code: fault.ResourceExhausted, want: "resets in 2m0s"},
		"rate limit, window only": {
			hub:  func(h *hub) { h.manifest = status(429, "RateLimit-Limit: 100;w=21600") },
			code: fault.ResourceExhausted, want: "100 in 6h0m0s",
		},
		"broken registry": {hub: func(h *hub) { h.manifest = status(503) }, code: fault.Unavailable, want: "503"},
		"gone registry":   {hub: func(h *hub) { h.Close() }, code: fault.Unavailable, want: "can't be reached"},
		"other manifest": {
			hub:  func(h *hub) { h.manifest = status(200, "Docker-Content-Digest: sha256:"+strings.Repeat("0", 64)) },
			code: fault.DataLoss, want: "not what it says",
		},
		"no manifest": {
			hub:  func(h *hub) { h.manifest = body(func(w io.Writer) { fmt.Fprint(w, "<html>") }) },
			code: fault.DataLoss, want: "can't be read",
		},
		"huge manifest": {
			hub: func(h *hub) {
				h.manifest = body(func(w io.Writer) { _, _ = io.CopyN(w, zeros{}, 64<<20) })
			},
			code: fault.FailedPrecondition, want: "more than 4 MiB",
		},
		"hanging manifest": {
			hub: func(h *hub) {
				h.manifest = func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
			},
			code: fault.Unavailable, want: "sent nothing",
		},
		"impossible part": {
			hub: func(h *hub) {
				h.manifest = body(func(w io.Writer) {
					fmt.Fprint(w, `{"config":{"digest":"sha256:`+strings.Repeat("1", 64)+`","size":-1},"layers":[]}`)
				})
			},
			code: fault.DataLoss, want: "can't be",
		},
		"path for a digest": {
			hub: func(h *hub) {
				h.manifest = body(func(w io.Writer) {
					fmt.Fprint(w, `{"config":{"digest":"sha256:../../../../etc/passwd","size":1},"layers":[]}`)
				})
			},
			code: fault.DataLoss, want: "can't be read",
		},
		"indexes without end": {
			hub: func(h *hub) {
				h.blobs[indexOf(h, "x")] = nil
				h.manifest = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] == "1" {
						fmt.Fprintf(w, `{"manifests":[{"digest":"%s","mediaType":"application/vnd.oci.image.index.v1+json","size":1}]}`, indexOf(h, "4"))
						return true
					}
					return false
				}
			},
			code: fault.FailedPrecondition, want: "indexes in indexes",
		},
		"another machine's": {image: "library/other:1", code: fault.FailedPrecondition, want: "only for linux/s390x"},
		"damaged layer": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, _ *http.Request, b []byte) bool {
					_, _ = w.Write(make([]byte, len(b)))
					return true
				}
			},
			code: fault.DataLoss, want: "damaged",
		},
		"short layer": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, b []byte) bool {
					if r.Header.Get("Range") == "" {
						_, _ = w.Write(b[:len(b)-1])
					}
					return true
				}
			},
			code: fault.Unavailable, want: "before it is whole",
		},
		"hanging layer": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, b []byte) bool {
					_, _ = w.Write(b[:0])
					<-r.Context().Done()
					return true
				}
			},
			config: func(c *mirror.PullerConfig) { c.Stalls = 50 * time.Millisecond },
			code:   fault.Unavailable, want: "sent nothing",
		},
		"no layer": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool { return status(404)(w, r) }
			},
			code: fault.FailedPrecondition, want: "has no such image",
		},
		"redirects without end": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
					http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
					return true
				}
			},
			code: fault.Unavailable, want: "redirects without end",
		},
		"redirect to the metadata server": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
					http.Redirect(w, r, "http://169.254.169.254/computeMetadata/v1/", http.StatusFound)
					return true
				}
			},
			code: fault.PermissionDenied, want: "link-local",
		},
		"redirect to the network inside": {
			hub: func(h *hub) {
				h.layer = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
					http.Redirect(w, r, "http://[::ffff:10.0.0.1]/", http.StatusFound)
					return true
				}
			},
			code: fault.PermissionDenied, want: "private",
		},
		"registry that nobody named": {
			config: func(c *mirror.PullerConfig) { c.Policy.Registries = nil },
			code:   fault.PermissionDenied, want: "administrator",
		},
		"bigger than the cache": {
			config: func(c *mirror.PullerConfig) { c.Policy.Limit = 10 },
			code:   fault.ResourceExhausted, want: "--pull-limit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, c.config)
			image, _ := d.hub.image(t, runtime.GOARCH, "the real one")
			d.hub.tag(app, image)
			other, _ := d.hub.image(t, "s390x", "x")
			d.hub.tag("library/other:1", d.hub.put(fmt.Appendf(nil,
				`{"manifests":[{"digest":%q,"size":1,"platform":{"os":"linux","architecture":"s390x"}}]}`, other)))
			if c.hub != nil {
				c.hub(d.hub)
			}
			if c.image == "" {
				c.image = app
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := d.text(ctx, d.name(c.image))
			if !fault.Is(err, c.code) || !strings.Contains(fault.From(err).Message, c.want) {
				t.Errorf("got %v (code %v), want %v with %q", err, fault.From(err).Code, c.code, c.want)
			}
			if all, err := d.mirror.All(); err != nil || len(all) != 0 {
				t.Errorf("kept %+v, %v", all, err)
			}
		})
	}
}

// indexOf puts an index that holds another, so deep.
func indexOf(h *hub, depth string) string {
	below := digestOf([]byte("nothing"))
	for range len(depth) + 3 {
		b := fmt.Appendf(nil, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"%s","mediaType":"application/vnd.oci.image.index.v1+json","size":1}]}`, below)
		h.blobs[digestOf(b)] = b
		below = digestOf(b)
	}
	return below
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is cached, or was made here, serves while the registry doesn't; it is said, and the registry is left alone for a
// while. A registry that says that there is no such tag any more is believed.
func TestPullFallsBack(t *testing.T) {
	for name, c := range map[string]struct {
		hub  func(*hub)
		want string // what the cached image says, "" for none
	}{
		"rate limit":      {func(h *hub) { h.manifest = status(429, "Retry-After: 5") }, "rate limit"},
		"broken registry": {func(h *hub) { h.manifest = status(502) }, "502"},
		"gone registry":   {func(h *hub) { h.Close() }, "can't be reached"},
		"hanging registry": {func(h *hub) {
			h.manifest = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		}, "sent nothing"},
		"gone tag": {func(h *hub) { delete(h.tags, "library/app:1") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, nil)
			image, _ := d.hub.image(t, runtime.GOARCH, "the real one")
			d.hub.tag("library/app:1", image)
			d.want(d.name("library/app:1"), "the real one")
			if err := put(t.Context(), d.mirror, d.name("library/made:1"), "stand-in"); err != nil {
				t.Fatal(err)
			}
			d.pass(time.Hour)
			c.hub(d.hub)
			d.want(d.name("library/made:1"), "stand-in")
			if c.want == "" {
				if _, err := d.text(t.Context(), d.name("library/app:1")); !fault.Is(err, fault.FailedPrecondition) {
					t.Errorf("got %v", err)
				}
				return
			}
			asked := d.hub.count("GET manifests") + d.hub.count("HEAD manifests")
			d.want(d.name("library/app:1"), "the real one")
			d.want(d.name("library/app:1"), "the real one")
			if now := d.hub.count("GET manifests") + d.hub.count("HEAD manifests"); now != asked {
				t.Errorf("%d requests to a registry that does not answer", now-asked)
			}
			if said := d.said(); !strings.Contains(said, "warning: ") || !strings.Contains(said, c.want) {
				t.Errorf("said %q; want %q", said, c.want)
			}
		})
	}
}

// A connection that breaks costs what was not there yet, and so does the end of the process.
func TestPullResumes(t *testing.T) {
	text := randomText(600_000)
	for name, c := range map[string]struct {
		layer func(n int64) func(http.ResponseWriter, *http.Request, []byte) bool // of the nth request
		most  float64                                                             // how often the layer may be sent
	}{
		"breaks": {func(n int64) func(http.ResponseWriter, *http.Request, []byte) bool {
			return func(w http.ResponseWriter, r *http.Request, b []byte) bool {
				if n < 4 {
					http.ServeContent(&brokenWriter{w, 100_000}, r, "", time.Time{}, strings.NewReader(string(b)))
				}
				return n < 4
			}
		}, 1},
		"does not know ranges": {func(n int64) func(http.ResponseWriter, *http.Request, []byte) bool {
			return func(w http.ResponseWriter, _ *http.Request, b []byte) bool {
				if n == 0 {
					_, _ = (&brokenWriter{w, 100_000}).Write(b)
				}
				_, _ = w.Write(b)
				return true
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			image, layer := d.hub.image(t, runtime.GOARCH, text)
			d.hub.tag("library/app:1", image)
			var n atomic.Int64
			d.hub.layer = func(w http.ResponseWriter, r *http.Request, b []byte) bool {
				return len(b) == len(d.hub.blobs[layer]) && c.layer(n.Add(1)-1)(w, r, b)
			}
			d.want(d.name("library/app:1"), text)
			if most := c.most * float64(len(d.hub.blobs[layer])); c.most > 0 && float64(d.hub.sent) > most {
				t.Errorf("%d bytes sent at the end of a layer of %d that had broken four times", d.hub.sent, int(most))
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		d := newDesk(t, nil)
		image, layer := d.hub.image(t, runtime.GOARCH, text)
		d.hub.tag("library/app:1", image)
		size := len(d.hub.blobs[layer])
		ctx, cancel := context.WithCancel(t.Context())
		d.hub.layer = func(w http.ResponseWriter, r *http.Request, b []byte) bool {
			if len(b) != size {
				return false
			}
			_, _ = w.Write(b[:size/2])
			w.(http.Flusher).Flush()
			for sizeOfUploads(d.dir) < int64(size/2) && r.Context().Err() == nil {
				time.Sleep(time.Millisecond) // the server's side of a connection has nothing to wait for
			}
			cancel()
			<-r.Context().Done()
			return true
		}
		if _, err := d.text(ctx, d.name("library/app:1")); err == nil {
			t.Fatal("pulled what never came")
		}
		var from atomic.Value
		d.hub.mu.Lock()
		d.hub.layer = func(_ http.ResponseWriter, r *http.Request, b []byte) bool {
			if len(b) == size {
				from.Store(r.Header.Get("Range"))
			}
			return false
		}
		d.hub.mu.Unlock()
		d.reopen(nil)
		d.want(d.name("library/app:1"), text)
		if want := fmt.Sprintf("bytes=%d-", size/2); from.Load() != want {
			t.Errorf("went on from %v, want %s", from.Load(), want)
		}
		if !strings.Contains(d.said(), "of it before") {
			t.Errorf("said %q", d.said())
		}
		if left, err := os.ReadDir(filepath.Join(d.dir, "cache", "partial")); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// sizeOfUploads is how much of what is half downloaded is there.
func sizeOfUploads(dir string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(dir, "cache", "blobs", "uploads", "*"))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			n = max(n, st.Size())
		}
	}
	return n
}

// brokenWriter breaks the connection after so many bytes.
type brokenWriter struct {
	http.ResponseWriter
	left int
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		_, _ = w.ResponseWriter.Write(p[:w.left])
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}

// randomText does not compress much.
func randomText(n int) string {
	var b strings.Builder
	x := uint32(1)
	for b.Len() < n {
		x = x*1664525 + 1013904223
		b.WriteByte(byte(x >> 24))
	}
	return b.String()
}
