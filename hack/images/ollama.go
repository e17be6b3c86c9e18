package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/artifacts/mirror"
	"giggle/oci"
)

// ollamaBase is what the original starts from.
const ollamaBase = "ubuntu:24.04"

// ollamaConfig is the original's (https://github.com/ollama/ollama/blob/v0.17.4/Dockerfile), on the base's environment.
func ollamaConfig() v1.Config {
	return v1.Config{
		Env: []string{
			debianPath, "LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
			"NVIDIA_DRIVER_CAPABILITIES=compute,utility",
			"NVIDIA_VISIBLE_DEVICES=all", "OLLAMA_HOST=0.0.0.0:11434",
		},
		ExposedPorts: map[string]struct{}{"11434/tcp": {}},
		Entrypoint:   []string{"/bin/ollama"},
		Cmd:          []string{"serve"},
	}
}

// addOllama puts a stand-in for the image ollama/ollama into the mirror: the program, which hack/ollama/build has built
// from its source, on the mirror's ubuntu. A version's image, of the same program on the same base, is left alone.
func addOllama(ctx context.Context, dir, program, version string) error {
	m, err := mirror.Open(dir)
	if err != nil {
		return err
	}
	base, err := m.Get(ollamaBase)
	if err != nil {
		return fmt.Errorf("%w (`make images` puts it there)", err)
	}
	sum, size, err := digestOf(program)
	if err != nil {
		return err
	}
	config := ollamaConfig()
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(strings.Join([]string{recipe, base.Digest, sum, string(b)}, " ")))
	label := hex.EncodeToString(hash[:8])
	config.Labels = map[string]string{mirror.StandInLabel: "true", recipeLabel: label}
	all := names("ollama/ollama", "latest", version)
	have, err := m.List()
	if err != nil {
		return err
	}
	missing := len(all)
	for _, e := range have {
		for _, n := range all {
			if e.Name == n && e.Config.Labels[recipeLabel] == label {
				missing--
			}
		}
	}
	if missing == 0 {
		return nil
	}
	start := time.Now()
	file := oci.File{
		Path: "/usr/bin/ollama",
		Mode: 0o755,
		Size: size,
		Open: func() (io.ReadCloser, error) { return os.Open(program) },
	}
	origin := "Ollama " + version + ", built here from its source, without GPUs"
	err = m.PutAll(ctx, all, origin, time.Now(), func(images *oci.Images) (string, error) {
		below, err := images.Inspect(ctx, base.Digest)
		if err != nil {
			return "", err
		}
		layer, err := images.AddLayer(ctx, []oci.File{file})
		if err != nil {
			return "", err
		}
		layer.CreatedBy = "giggle: ollama " + version
		digest, _, err := images.Assemble(ctx, append(below.Layers, layer), v1.ConfigFile{
			Architecture: runtime.GOARCH,
			OS:           "linux",
			Created:      v1.Time{Time: start.UTC().Truncate(time.Second)},
			History:      below.Config.History,
			Config:       config,
		})
		return digest, err
	})
	if err == nil {
		fmt.Fprintf(os.Stderr, "images: %s, a program of %d MB, in %s\n", all[0], size>>20,
			time.Since(start).Round(100*time.Millisecond))
	}
	return err
}

func digestOf(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}
