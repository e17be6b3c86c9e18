package dockerfile

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The registries that a Dockerfile names are found before BuildKit reads it, which has to be told of each.
func TestRegistriesOfADockerfile(t *testing.T) {
	b := &Builder{cfg: Config{Hosts: []string{"europe-north1-docker.pkg.dev"}}}
	for content, c := range map[string]struct {
		args map[string]string
		want []string
	}{
		"FROM ubuntu:24.04\nFROM me/app:1\nFROM ghcr.io/me/app\nFROM europe-north1-docker.pkg.dev/a/b/c": {},
		"FROM registry.example.com/a/b:1 AS x\nfrom lan:5000/a\n":                                        {nil, []string{"lan:5000", "registry.example.com"}},
		"FROM --platform=linux/amd64 10.0.0.1:5000/a@sha256:0":                                           {nil, []string{"10.0.0.1:5000"}},
		"COPY --from=registry.example.com/a:1 /x /y\nRUN --mount=type=bind,from=other.example/b,target=/b true": {
			nil, []string{"other.example", "registry.example.com"},
		},
		"ARG BASE=registry.example.com/a\nARG HOST=\"lan.example:5000\"\nFROM $BASE": {nil, []string{"lan.example:5000", "registry.example.com"}},
		"ARG V=1.22\nARG P=python:3\nFROM $P":                                        {map[string]string{"V": "1.23", "T": "debian:12"}, nil},
		"ARG R\nFROM $R/a":                                                           {map[string]string{"R": "127.0.0.1:5000"}, []string{"127.0.0.1:5000"}},
		"RUN curl https://example.com/x":                                             {},
		"FROM 169.254.169.254/stage/x":                                               {},
		"FROM \"]evil\"/a":                                                           {},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := b.look(Request{Context: dir, Dockerfile: "Dockerfile", Args: c.args}, io.Discard)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q with %v: %q, %v; want %q", content, c.args, got, err, c.want)
		}
	}
}
