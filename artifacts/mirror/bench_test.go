package mirror_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"giggle/artifacts/mirror"
)

// BenchmarkPull pulls an image of 500 MB in five layers into an empty cache, beside skopeo, which copies the same from
// the same registry on the loopback to an OCI layout: go test -bench Pull -benchtime 3x ./artifacts/mirror.
func BenchmarkPull(b *testing.B) {
	const layers, size = 5, 100_000_000
	hub := newHub(b)
	var list []any
	for range layers {
		layer := make([]byte, size)
		_, _ = rand.Read(layer)
		list = append(list, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": size,
			"digest": hub.put(layer)})
	}
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, runtime.GOARCH)
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": list,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
			"digest": hub.put(config)},
	})
	if err != nil {
		b.Fatal(err)
	}
	hub.tag("library/big:1", hub.put(raw))
	b.Run("giggle", func(b *testing.B) {
		b.SetBytes(layers * size)
		for range b.N {
			m, err := mirror.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			p, err := mirror.NewPuller(mirror.PullerConfig{
				Mirror: m,
				Policy: mirror.Policy{Allowed: true, Registries: []mirror.Registry{{Host: hub.host}}},
				Own:    func(string) bool { return false },
				Now:    time.Now,
				Log:    slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Find(b.Context(), hub.host+"/library/big:1", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("skopeo", func(b *testing.B) {
		if _, err := exec.LookPath("skopeo"); err != nil {
			b.Skip("skopeo is what this is measured by")
		}
		b.SetBytes(layers * size)
		for range b.N {
			c := exec.Command("skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+hub.host+"/library/big:1",
				"oci:"+filepath.Join(b.TempDir(), "layout")+":big")
			if out, err := c.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}
