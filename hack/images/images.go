package main

import (
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// image is one image of the set, with all its names.
type image struct {
	names  []string
	layers []string // of layers, bottom first
	config v1.Config
}

const debianPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// gcloudRoot is where the machine's Google Cloud SDK is mounted in a build step of the gcloud builder.
const gcloudRoot = "/google-cloud-sdk"

// Where build steps and RUN steps find packages: the platform's proxies on the metadata address. Elsewhere Go goes on
// to this machine's own; npm needs its variable unset.
const (
	goProxy     = "GOPROXY=http://169.254.169.254/goproxy"
	npmRegistry = "npm_config_registry=http://169.254.169.254/npm/"
)

// packageSources are where this machine gets packages from, by its own settings, and what it has of its own.
type packageSources struct {
	modules string // GOPROXY; "" where it has none
	sdk     string // version of its Google Cloud SDK; "" where it has none
}

// goProxies is the variable with both.
func (p packageSources) goProxies() string {
	if p.modules == "" || p.modules == "off" {
		return goProxy
	}
	return goProxy + "|" + p.modules
}

// set is the offline images: what the tutorial and most Dockerfiles start from. The names say a version that the
// original has; what is inside is what Debian and this machine have.
func set(from packageSources) []image {
	shell := func(cmd ...string) v1.Config { return v1.Config{Env: []string{debianPath}, Cmd: cmd} }
	builder := func(entrypoint ...string) v1.Config {
		return v1.Config{Env: []string{debianPath}, Entrypoint: entrypoint, WorkingDir: "/workspace"}
	}
	golang := v1.Config{
		Env:        []string{"PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOPATH=/go", "GOTOOLCHAIN=local", from.goProxies()},
		Cmd:        []string{"bash"},
		WorkingDir: "/go",
	}
	node := shell("node")
	node.Env = append(node.Env, npmRegistry)
	// The official images let pip install into their own Python; Debian's is asked to.
	python := shell("python3")
	python.Env = append(python.Env, "PIP_BREAK_SYSTEM_PACKAGES=1", "PIP_ROOT_USER_ACTION=ignore")
	goBuilder := golang
	goBuilder.Entrypoint, goBuilder.Cmd, goBuilder.WorkingDir = []string{"go"}, nil, "/workspace"
	static := v1.Config{
		Env:        []string{debianPath, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
		User:       "0",
		WorkingDir: "/",
	}
	nonroot := static
	nonroot.User, nonroot.WorkingDir = "65532", "/home/nonroot"
	gcloud := builder(gcloudRoot + "/bin/gcloud")
	gcloud.Env = []string{
		"PATH=" + gcloudRoot + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CLOUDSDK_PYTHON=/usr/bin/python3",
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE=/etc/ssl/certs/ca-certificates.crt",
		"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true", "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true",
	}
	gsutil := gcloud
	gsutil.Entrypoint = []string{gcloudRoot + "/bin/gsutil"}
	sdk := gcloud
	sdk.Entrypoint, sdk.Cmd = nil, []string{"bash"}
	sdkTags := []string{"latest", "slim", "stable"}
	if from.sdk != "" {
		sdkTags = append(sdkTags, from.sdk, from.sdk+"-slim", from.sdk+"-stable")
	}
	nodeBuilder := func(entrypoint string) v1.Config {
		c := builder(entrypoint)
		c.Env = append(c.Env, npmRegistry)
		return c
	}
	distroless := func(kind string, tag string) (out []string) {
		for _, suffix := range []string{"", "-debian11", "-debian12"} {
			out = append(out, "gcr.io/distroless/"+kind+suffix+":"+tag)
		}
		return out
	}
	return []image{
		{names("debian", "latest", "stable", "12", "bookworm", "stable-slim", "12-slim",
			"bookworm-slim"), []string{"debian"}, shell("bash")},
		{names("ubuntu", "latest", "22.04", "24.04", "jammy", "noble"), []string{"debian"}, shell("bash")},
		{names("golang", "latest", "1", "bookworm", "1.22", "1.22-bookworm", "1.23", "1.23-bookworm", "1.24",
			"1.24-bookworm", "1.25", "1.25-bookworm", "1.26", "1.26-bookworm"),
			[]string{"debian", "tools", "go", "go-cache"}, golang},
		{names("node", "latest", "lts", "18", "18-bookworm", "20", "20-bookworm", "22", "22-bookworm"),
			[]string{"debian", "tools", "node"}, node},
		{names("node", "slim", "lts-slim", "18-slim", "18-bookworm-slim", "20-slim", "20-bookworm-slim", "22-slim",
			"22-bookworm-slim"), []string{"debian", "node"}, node},
		{names("python", "latest", "3", "3.11", "3.11-slim", "3.11-bookworm", "3.11-slim-bookworm", "3.12", "3.12-slim",
			"3.13", "3.13-slim"), []string{"debian", "python", "python-names"}, python},
		{distroless("static", "latest"), []string{"static"}, static},
		{distroless("static", "nonroot"), []string{"static"}, nonroot},
		{distroless("base", "latest"), []string{"static", "libc"}, static},
		{distroless("base", "nonroot"), []string{"static", "libc"}, nonroot},
		{names("gcr.io/cloud-builders/docker", "latest"), []string{"debian", "docker"}, builder("/usr/bin/docker")},
		{append(names("gcr.io/cloud-builders/gcloud", "latest"), names("gcr.io/cloud-builders/gcloud-slim", "latest")...),
			[]string{"debian", "sdk", "gcloud"}, gcloud},
		{names("gcr.io/cloud-builders/gsutil", "latest"), []string{"debian", "sdk", "gcloud"}, gsutil},
		{slices.Concat(names("gcr.io/google.com/cloudsdktool/cloud-sdk", sdkTags...),
			names("gcr.io/google.com/cloudsdktool/google-cloud-cli", sdkTags...), names("google/cloud-sdk", sdkTags...)),
			[]string{"debian", "sdk", "gcloud"}, sdk},
		{names("gcr.io/cloud-builders/git", "latest"), []string{"debian", "tools"}, builder("git")},
		{names("gcr.io/cloud-builders/curl", "latest"), []string{"debian", "tools"}, builder("curl")},
		{names("gcr.io/cloud-builders/wget", "latest"), []string{"debian", "tools"}, builder("wget")},
		{names("gcr.io/cloud-builders/npm", "latest"), []string{"debian", "tools", "node"}, nodeBuilder("npm")},
		{names("gcr.io/cloud-builders/yarn", "latest"), []string{"debian", "tools", "node"}, nodeBuilder("yarn")},
		{names("gcr.io/cloud-builders/go", "latest"), []string{"debian", "tools", "go", "go-cache"}, goBuilder},
		{names("gcr.io/serverless-journey/failing", "latest"), []string{"static",
			"failing"}, v1.Config{Entrypoint: []string{"/failing"}, User: "65532"}},
	}
}

func names(repository string, tags ...string) (out []string) {
	for _, t := range tags {
		out = append(out, fmt.Sprintf("%s:%s", repository, t))
	}
	return out
}
