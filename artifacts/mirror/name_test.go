package mirror_test

import (
	"testing"

	"giggle/artifacts/mirror"
)

func TestFamiliar(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for in, want := range map[string]string{
		"ubuntu":                                   "ubuntu:latest",
		"golang:1.22-bookworm":                     "golang:1.22-bookworm",
		"docker.io/library/golang:1.22":            "golang:1.22",
		"index.docker.io/library/golang":           "golang:latest",
		"me/app":                                   "me/app:latest",
		"docker.io/me/app:v1":                      "me/app:v1",
		"gcr.io/distroless/static-debian11":        "gcr.io/distroless/static-debian11:latest",
		"gcr.io/cloud-builders/docker:latest":      "gcr.io/cloud-builders/docker:latest",
		"golang:1.22@" + digest:                    "golang@" + digest,
		"gcr.io/distroless/static@" + digest:       "gcr.io/distroless/static@" + digest,
		"mirror.gcr.io/library/debian:12":          "debian:12",
		"mirror.gcr.io/me/app":                     "me/app:latest",
		"localhost:5000/x":                         "localhost:5000/x:latest",
		"":                                         "",
		"UPPER/case":                               "",
		"a b":                                      "",
		"ubuntu:" + string(make([]byte, 300)):      "",
		"gcr.io/distroless/static@sha256:tooshort": "",
	} {
		got, err := mirror.Familiar(in)
		if (err != nil) != (want == "") || got != want {
			t.Errorf("Familiar(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestRepository(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for in, want := range map[string]string{
		"ubuntu:latest":                 "ubuntu",
		"gcr.io/me/app:v1":              "gcr.io/me/app",
		"node@" + digest:                "node",
		"gcr.io/me/app@" + digest:       "gcr.io/me/app",
		"localhost:5000/x:latest":       "localhost:5000/x",
		"localhost:5000/x@" + digest:    "localhost:5000/x",
		"localhost:5000/without-either": "localhost:5000/without-either",
	} {
		if got := mirror.Repository(in); got != want {
			t.Errorf("Repository(%q) = %q; want %q", in, got, want)
		}
	}
}
