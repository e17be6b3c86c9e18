package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"giggle/artifacts/mirror"
)

// cmdRegistry starts a registry with images of the machine's mirror, each in an index, and a mirror of foreign images
// beside it that has them not and knows how to ask for them: registry NAME=IMAGE... Its address is in $REGISTRY, the
// digests in $INDEX and $MANIFEST of the first, the mirror in $MIRROR, and each request is a line of registry.log.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	out, err := os.Create(ts.MkAbs("registry.log"))
	ts.Check(err)
	var mu sync.Mutex
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_, _ = fmt.Fprintln(out, r.Method, r.URL.Path)
		mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	ts.Defer(func() { server.Close(); _ = out.Close() })
	host := strings.TrimPrefix(server.URL, "http://")
	shared := os.Getenv("GIGGLE_MIRROR")
	if shared == "" {
		shared = defaultMirror
	}
	m, err := mirror.Open(shared)
	ts.Check(err)
	for i, arg := range args {
		to, from, _ := strings.Cut(arg, "=")
		file := ts.MkAbs(fmt.Sprint("image", i, ".tar"))
		f, err := os.Create(file)
		ts.Check(err)
		ts.Check(m.Export(context.Background(), from, f))
		ts.Check(f.Close())
		img, err := tarball.ImageFromPath(file, nil)
		ts.Check(err)
		config, err := img.ConfigFile()
		ts.Check(err)
		index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: config.Architecture},
		}})
		ref, err := name.ParseReference(host + "/" + to)
		ts.Check(err)
		ts.Check(remote.WriteIndex(ref, index))
		if i == 0 {
			of, err := index.Digest()
			ts.Check(err)
			manifest, err := img.Digest()
			ts.Check(err)
			ts.Setenv("INDEX", of.String())
			ts.Setenv("MANIFEST", manifest.String())
		}
	}
	dir := ts.MkAbs("machine/mirror")
	ts.Check(os.MkdirAll(dir, 0o755))
	for _, name := range []string{"blobs", "layers", "index.json"} {
		ts.Check(os.Symlink(filepath.Join(shared, name), filepath.Join(dir, name)))
	}
	ts.Check(os.Symlink(filepath.Join(filepath.Dir(shared), "tools"), ts.MkAbs("machine/tools")))
	list := fmt.Sprintf(`{"registries":[{"host":"docker.io","mirrors":[%q]},{"host":%q}]}`, host, host)
	ts.Check(os.WriteFile(filepath.Join(dir, "registries.json"), []byte(list), 0o644))
	ts.Setenv("REGISTRY", host)
	ts.Setenv("MIRROR", dir)
}
