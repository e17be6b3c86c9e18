# Giggle Cloud Platform. The two commands that matter: `make demo` and `make test`.

SHELL := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
export GOTOOLCHAIN := local
export CGO_ENABLED := 0
export GIGGLE_MIRROR ?= /var/cache/giggle/mirror
# Programs that are built once, beside the mirror.
TOOLS := $(dir $(GIGGLE_MIRROR))tools
# Containers need root; everything that runs one is run through this.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo 'sudo -E env "PATH=$$PATH"')
# Every target installs and builds what it needs itself: these parts. `hack/setup` without one lists them, with what each is for.
SETUP := @hack/setup

# How long the soak test loads and kills.
export GIGGLE_SOAK ?= 10m
# The packages that have long tests.
LONG := ./bench ./cloud ./artifacts/registry ./cmd/giggle ./edge ./gateway ./engine/egress

.PHONY: help build setup images images-ollama terraform demo test test-long test-cgroup2 test-models test-terraform check bench clean

help: ## show the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: ## build bin/giggle
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/giggle ./cmd/giggle

setup: ## what running the cloud and building images on it needs; a no-op when nothing is missing
	$(SETUP) run builder build

images: ## make the offline images that Dockerfiles and build steps start from; a no-op when the mirror has them
	$(SETUP) images

images-ollama: ## build Ollama from its source and make the offline image ollama/ollama; some minutes, once
	$(SETUP) images ollama

terraform: ## build Terraform from its source and get Google's provider from Terraform's registry, for test-terraform; some minutes, once
	$(SETUP) terraform

demo: ## build, deploy and call a service in a temporary directory
	$(SETUP) run builder
	@$(MAKE) --no-print-directory build
	@$(ROOT) bin/giggle demo

test: ## every test, with the real gcloud and real containers
	$(SETUP) run builder build images test
	@$(MAKE) --no-print-directory build
	$(ROOT) go test -count=1 -timeout 14m ./...

test-long: ## soak, big streams, suites by others
	$(SETUP) run builder build images test long bench
	@$(MAKE) --no-print-directory build
	$(ROOT) go test -p 1 -count=1 -timeout 40m -tags long -run Long $(LONG)
	go -C test/autoscaler test -count=1 ./...
	go -C hack/tinymodel test -count=1 ./...

test-cgroup2: ## what depends on cgroups, in a guest with Debian's stock kernel and cgroups v2 only; installs QEMU
	$(SETUP) run builder build images test machine
	$(ROOT) hack/machine/test '$(TOOLS)' '$(GIGGLE_MIRROR)'

test-models: ## module 6 and Gemini from a real Ollama; the embedded model's runtime beside llama.cpp, which npm has prebuilt
	$(SETUP) run builder build images test ollama
	@$(MAKE) --no-print-directory build
	$(ROOT) env "PATH=$(TOOLS):$$PATH" go test -count=1 -timeout 30m -tags models -run Models ./cmd/giggle
	@mkdir -p .cache/llama
	npm install --prefix .cache/llama --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1
	go test -count=1 -tags models -v ./test/llama -judge '$(CURDIR)/.cache/llama'

test-terraform: ## the real Terraform with Google's provider
	$(SETUP) run builder build images test terraform
	@$(MAKE) --no-print-directory build
	$(ROOT) env "PATH=$(TOOLS):$$PATH" go test -count=1 -timeout 30m -tags terraform -run Terraform ./cmd/giggle

check: ## format, vet, staticcheck, module files, architecture
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	go vet ./...
	go vet -tags 'long models terraform' $(LONG)
	go tool staticcheck ./...
	go mod tidy -diff
	go -C test/autoscaler mod tidy -diff
	go -C test/autoscaler vet ./...
	go -C test/cloudsql mod tidy -diff
	go -C test/cloudsql vet ./...
	go -C test/buildpacks mod tidy -diff
	go -C test/buildpacks vet ./...
	go -C hack/tinymodel mod tidy -diff
	go -C hack/tinymodel vet ./...
	go test ./internal/arch

bench: ## the figures of this machine, baselines beside them
	$(SETUP) run builder bench
	@$(MAKE) --no-print-directory build
	@$(ROOT) bin/giggle bench

clean:
	rm -rf bin
