package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"giggle/builds/dockerfile/runtime"
	"giggle/fault"
	"giggle/oci"
)

// files are those of a layer that is not made by apt.
func (w *workshop) files(name string) ([]oci.File, error) {
	switch name {
	case "static":
		return w.static()
	case "libc":
		return w.libc()
	case "go":
		return w.golang()
	case "go-cache":
		return w.goCache()
	case "node":
		return w.node()
	case "docker":
		return w.docker()
	case "gcloud":
		return w.gcloud()
	case "python-names":
		return []oci.File{{Path: "/usr/local/bin/python", Link: "/usr/bin/python3"}}, nil
	case "failing":
		return w.failing()
	}
	return nil, fmt.Errorf("no layer is called %q", name)
}

// static is what a program without libraries needs: certificates, users, time zones, a place for temporary files.
func (w *workshop) static() ([]oci.File, error) {
	t, err := w.debian()
	if err != nil {
		return nil, err
	}
	files := []oci.File{
		{Path: "/tmp", Mode: fs.ModeDir | 0o777 | fs.ModeSticky},
		{Path: "/root", Mode: fs.ModeDir | 0o700},
		{Path: "/home/nonroot", Mode: fs.ModeDir | 0o755},
		{
			Path: "/etc/passwd",
			Mode: 0o644,
			Data: []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"),
		},
		{
			Path: "/etc/group",
			Mode: 0o644,
			Data: []byte("root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n"),
		},
		{Path: "/etc/nsswitch.conf", Mode: 0o644, Data: []byte("hosts: files dns\n")},
	}
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/os-release", "/usr/lib/os-release"} {
		if files, err = add(files, filepath.Join(t.dir, path), path, nil); err != nil {
			return nil, err
		}
	}
	return add(files, filepath.Join(t.dir, "usr/share/zoneinfo"), "/usr/share/zoneinfo",
		func(rel string, dir bool) bool { return dir && rel == "right" })
}

// libc is the C library and OpenSSL.
func (w *workshop) libc() ([]oci.File, error) {
	t, err := w.debian()
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(w.ctx, "sh", "-c",
		`cat "$1"/var/lib/dpkg/info/libc6*.list "$1"/var/lib/dpkg/info/libgcc-s1*.list "$1"/var/lib/dpkg/info/libssl3*.list 2>/dev/null | sort -u`, "sh", t.dir).Output()
	if err != nil {
		return nil, err
	}
	// In Debian /lib and /lib64 are links into /usr.
	files := []oci.File{{Path: "/lib", Link: "usr/lib"}, {Path: "/lib64", Link: "usr/lib64"}}
	seen := make(map[string]bool)
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		if path == "/lib" || path == "/lib64" || strings.HasPrefix(path, "/usr/share") ||
			strings.HasPrefix(path, "/etc") {
			continue
		}
		if strings.HasPrefix(path, "/lib/") || strings.HasPrefix(path, "/lib64/") {
			path = "/usr" + path
		}
		info, err := os.Lstat(filepath.Join(t.dir, path))
		if err != nil || info.IsDir() || seen[path] {
			continue
		}
		seen[path] = true
		if files, err = add(files, filepath.Join(t.dir, path), path, nil); err != nil {
			return nil, err
		}
	}
	if len(seen) < 10 {
		return nil, fmt.Errorf("only %d files of the C library were found", len(seen))
	}
	return files, nil
}

// goRoot is where the official image has the toolchain.
const goRoot = "/usr/local/go"

// goCache is the standard library, compiled as a Dockerfile's `go build` needs it: with cgo, by the image's own C
// compiler, and without. It is where the platform's RUN steps take it from (builds/dockerfile/runtime).
func (w *workshop) goCache() ([]oci.File, error) {
	t, err := w.installed("tools")
	if err != nil {
		return nil, err
	}
	goroot := output(w.ctx, "go", "env", "GOROOT")
	if goroot == "" {
		return nil, fault.New(fault.FailedPrecondition, "`go env GOROOT` failed: is Go on the PATH?")
	}
	cache := filepath.Join(t.dir, runtime.WarmCache)
	if err := errors.Join(os.MkdirAll(filepath.Join(t.dir, goRoot), 0o755), os.MkdirAll(cache, 0o755)); err != nil {
		return nil, err
	}
	build := "export GOENV=off GOFLAGS= GOTOOLCHAIN=local GOCACHE=" + runtime.WarmCache + " PATH=" + goRoot +
		"/bin:$PATH; unset GOROOT; " +
		"CGO_ENABLED=0 go build std && CGO_ENABLED=1 go build std"
	if err := t.run(w.ctx, build, "BIND="+goroot, "AT="+goRoot); err != nil {
		return nil, fmt.Errorf("go build std: %w", err)
	}
	return add(nil, cache, runtime.WarmCache, nil)
}

// golang is the local toolchain where the official image has it.
func (w *workshop) golang() ([]oci.File, error) {
	goroot := output(w.ctx, "go", "env", "GOROOT")
	if goroot == "" {
		return nil, fault.New(fault.FailedPrecondition, "`go env GOROOT` failed: is Go on the PATH?")
	}
	files := []oci.File{
		{
			Path: "/go",
			Mode: fs.ModeDir | 0o777,
		}, {Path: "/go/bin", Mode: fs.ModeDir | 0o777}, {Path: "/go/src", Mode: fs.ModeDir | 0o777},
	}
	return add(files, goroot, goRoot, func(rel string, dir bool) bool {
		return dir && (rel == "test" || rel == "doc" || rel == "api" || rel == "pkg/obj" ||
			filepath.Base(rel) == "testdata") ||
			!dir && strings.HasSuffix(rel, "_test.go")
	})
}

// node is the machine's Node.js with npm.
func (w *workshop) node() ([]oci.File, error) {
	node := output(w.ctx, "sh", "-c", `readlink -f "$(command -v node)"`)
	if node == "" {
		return nil, fault.New(fault.FailedPrecondition, "Node.js is missing: install the package nodejs.")
	}
	npm := output(w.ctx, "sh", "-c", `dirname "$(dirname "$(readlink -f "$(command -v npm)")")"`)
	if _, err := os.Stat(filepath.Join(npm, "bin", "npm-cli.js")); err != nil {
		return nil, fault.New(fault.FailedPrecondition,
			"npm is missing, or not where Node.js has it: install the package nodejs with npm.")
	}
	files, err := add(nil, node, "/usr/local/bin/node", nil)
	if err != nil {
		return nil, err
	}
	files = append(files,
		oci.File{Path: "/usr/local/bin/npm", Link: "../lib/node_modules/npm/bin/npm-cli.js"},
		oci.File{Path: "/usr/local/bin/npx", Link: "../lib/node_modules/npm/bin/npx-cli.js"},
		oci.File{Path: "/usr/local/bin/nodejs", Link: "node"},
		oci.File{Path: "/home/node", Mode: fs.ModeDir | 0o777},
	)
	yarn, err := w.yarn()
	if err != nil {
		return nil, err
	}
	return add(append(files, yarn...), npm, "/usr/local/lib/node_modules/npm", nil)
}

// yarnPackage is the last yarn of its kind, which the official images of Node.js have, and the npm package's sum.
const (
	yarnPackage = "yarn@1.22.22"
	yarnSum     = "c17d3797fb9a9115bf375e31bfd30058cac6bc9c3b8807a3d8cb2094794b51ca"
)

// yarn is yarn out of npm's registry. It is left out, and that is said, where the registry can't be reached.
func (w *workshop) yarn() ([]oci.File, error) {
	dir := filepath.Join(w.dir, "yarn")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	get := exec.CommandContext(w.ctx, "npm", "pack", "--silent", yarnPackage)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		w.say("yarn is left out of node: npm pack %s: %v: %.300s", yarnPackage, err, out)
		return nil, nil
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("npm pack %s made %v: %w", yarnPackage, archives, err)
	}
	sum, _, err := digestOf(archives[0])
	if err != nil {
		return nil, err
	}
	if sum != yarnSum {
		return nil, fmt.Errorf("npm pack %s brought something with the sum %s, not %s", yarnPackage, sum, yarnSum)
	}
	unpack := exec.CommandContext(w.ctx, "tar", "-xzf", archives[0], "-C", dir, "--no-same-owner")
	if out, err := unpack.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("tar: %w\n%s", err, out)
	}
	files := []oci.File{
		{Path: "/usr/local/bin/yarn", Link: "/opt/yarn/bin/yarn"},
		{Path: "/usr/local/bin/yarnpkg", Link: "/opt/yarn/bin/yarnpkg"},
	}
	return add(files, filepath.Join(dir, "package"), "/opt/yarn", nil)
}

// sdkParts are what of the Google Cloud SDK is in the image: gcloud, gsutil and bq. Emulators, kubectl, its own Python
// and what was compiled for that stay out: 1.5 of 1.9 GB.
var sdkParts = []string{"VERSION", "bin/bootstrapping", "bin/bq", "bin/gcloud", "bin/gsutil", "data", "lib",
	"platform/bq", "platform/gsutil", "properties"}

// gcloud is this machine's Google Cloud SDK, or the place of one.
func (w *workshop) gcloud() (files []oci.File, err error) {
	files = []oci.File{
		{Path: gcloudRoot, Mode: fs.ModeDir | 0o755},
		{Path: "/builder/google-cloud-sdk", Link: gcloudRoot},
	}
	root := sdkRoot(w.ctx)
	if root == "" {
		w.say("this machine has no Google Cloud SDK: gcloud is in build steps only once it is installed")
		return files, nil
	}
	for _, part := range sdkParts {
		from := filepath.Join(root, part)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if files, err = add(files, from, filepath.Join(gcloudRoot, part), compiled); err != nil {
			return nil, err
		}
	}
	manifests, err := filepath.Glob(filepath.Join(root, ".install", "*"))
	if err != nil {
		return nil, err
	}
	for _, m := range manifests { // what gcloud says that it has
		switch name, _, _ := strings.Cut(filepath.Base(m), "."); name {
		case "core", "core-nix", "gcloud", "gcloud-deps", "gsutil", "gsutil-nix", "bq", "bq-nix":
			if files, err = add(files, m, filepath.Join(gcloudRoot, ".install", filepath.Base(m)), nil); err != nil {
				return nil, err
			}
		}
	}
	for _, program := range []string{"bq", "gcloud", "gsutil"} {
		files = append(files, oci.File{Path: "/usr/local/bin/" + program, Link: gcloudRoot + "/bin/" + program})
	}
	return files, nil
}

// compiled leaves out what another Python has compiled.
func compiled(rel string, dir bool) bool { return dir && filepath.Base(rel) == "__pycache__" }

// sdkRoot is where this machine's Google Cloud SDK is, "" where it has none.
func sdkRoot(ctx context.Context) string {
	root := output(ctx, "sh", "-c", `dirname "$(dirname "$(readlink -f "$(command -v gcloud)")")"`)
	if _, err := os.Stat(filepath.Join(root, "lib", "gcloud.py")); err != nil {
		return ""
	}
	return root
}

// sdkVersion is that of this machine's Google Cloud SDK, "" where it has none.
func sdkVersion(ctx context.Context) string {
	root := sdkRoot(ctx)
	if root == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// docker is the command line of Docker, out of Debian's package; the daemon stays out.
func (w *workshop) docker() ([]oci.File, error) {
	dir := filepath.Join(w.dir, "docker")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	get := exec.CommandContext(w.ctx, "sh", "-c",
		"apt-get -qq -o APT::Sandbox::User=root download docker.io && dpkg-deb -x docker.io_*.deb out")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("apt-get download docker.io: %w\n%s", err, out)
	}
	return add(nil, filepath.Join(dir, "out/usr/bin/docker"), "/usr/bin/docker", nil)
}

// failing is the tutorial's service that answers 500 to everything.
func (w *workshop) failing() ([]oci.File, error) {
	program := filepath.Join(w.dir, "failing")
	cmd := exec.CommandContext(w.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program,
		"./hack/images/failing")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return add(nil, program, "/failing", nil)
}

// free is how many bytes a file system has left, 0 where it can't be told.
func free(dir string) uint64 {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

// add adds the files at and below a path, under another path.
func add(files []oci.File, from, to string, skip func(rel string, dir bool) bool) ([]oci.File, error) {
	more, err := oci.Tree(from, to, skip)
	return append(files, more...), err
}
