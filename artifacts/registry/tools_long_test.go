//go:build long

package registry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// podman pushes an image, forgets it and pulls it again, to and from gcr.io.
func TestLongPodman(t *testing.T) {
	bin, err := exec.LookPath("podman")
	if err != nil {
		t.Fatal("podman is not installed (apt-get install podman)")
	}
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "giggle-podman-") // podman makes a name of it, and names have no upper case
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	img, err := random.Image(20_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(dir, "from")
	p, err := layout.Write(from, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "auth.json"), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := w.proxy(t)
	run := func(args ...string) {
		t.Helper()
		storage := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
			"--storage-driver", "vfs", "--events-backend", "none"}
		cmd := exec.CommandContext(t.Context(), bin, append(storage, args...)...)
		cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "NO_PROXY=", "no_proxy=",
			"REGISTRY_AUTH_FILE="+filepath.Join(dir, "auth.json"), "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("podman %v: %v\n%s", args[0], err, out)
		}
	}
	const name = "gcr.io/giggle/by-podman:v1"
	creds := "--creds=oauth2accesstoken:" + w.owner
	run("pull", "--signature-policy", policy, "oci:"+from)
	run("push", "--signature-policy", policy, "--tls-verify=false", creds, configName(t, img), "docker://"+name)
	run("rmi", "--all", "--force")
	run("pull", "--signature-policy", policy, "--tls-verify=false", creds, "docker://"+name)
}

// configName is what podman calls an image: the digest of its configuration.
func configName(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.Hex
}

// oras pushes a file as an artifact, attaches another to it, finds that one as its referrer and pulls both.
func TestLongOras(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	bin := filepath.Join(dir, "oras")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../test/conformance", "-o", bin,
		"oras.land/oras/cmd/oras")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of oras: %v\n%s", err, out)
	}
	proxy := w.proxy(t)
	run := func(args ...string) string {
		t.Helper()
		sides := []string{"--"}
		if args[0] == "copy" {
			sides = []string{"--from-", "--to-"}
		}
		for _, side := range sides {
			args = append(args, side+"insecure", side+"username", "oauth2accesstoken", side+"password", w.owner)
		}
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "NO_PROXY=", "no_proxy=", "HOME="+dir,
			"DOCKER_CONFIG="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("oras %v: %v\n%s", args[0], err, out)
		}
		return string(out)
	}
	for name, text := range map[string]string{"notes.txt": "what changed", "sbom.json": `{"packages":[]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const name = host + "/giggle/my-repo/by-oras:v1"
	run("push", name, "--artifact-type", "application/vnd.example.notes", "notes.txt:text/plain")
	run("attach", name, "--artifact-type", "application/vnd.example.sbom", "sbom.json:application/json")
	if out := run("discover", name, "--format", "json"); !strings.Contains(out, "application/vnd.example.sbom") {
		t.Errorf("the attached artifact is no referrer: %s", out)
	}
	run("pull", name, "--include-subject=false", "-o", "out")
	got, err := os.ReadFile(filepath.Join(dir, "out", "notes.txt"))
	if err != nil || string(got) != "what changed" {
		t.Errorf("pulled %q, %v", got, err)
	}
	run("copy", name, host+"/giggle/my-repo/copied:v1", "--recursive")
	if out := run("discover", host+"/giggle/my-repo/copied:v1", "--format", "json"); !strings.Contains(out,
		"application/vnd.example.sbom") {
		t.Errorf("the copy has no referrer: %s", out)
	}
}
