package steps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/build"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// gcloudNames are the images that the machine's Cloud SDK stands in for.
var gcloudNames = []string{
	"gcr.io/cloud-builders/gcloud",
	"gcr.io/google.com/cloudsdktool/cloud-sdk", "gcr.io/google.com/cloudsdktool/google-cloud-cli",
	"google/cloud-sdk", "docker.io/google/cloud-sdk",
}

// sdkDir is where the Cloud SDK is in the container.
const sdkDir = "/opt/google-cloud-sdk"

// AddSDK adds the images with gcloud to the builders: the Cloud SDK that is installed on this machine, with this
// machine's programs and libraries (/usr/bin, /usr/lib, /usr/share), all read-only. layer is a directory of its own
// for the little that a root file system needs beside them.
func AddSDK(to map[string]func(context.Context, build.Build) (Builder, error), layer string) error {
	made, err := sdk(layer)
	if err != nil && fault.From(err).Code == fault.Internal {
		return err
	}
	for _, name := range gcloudNames {
		to[name] = func(context.Context, build.Build) (Builder, error) {
			b := made
			if name == gcloudNames[0] {
				b.Config.Entrypoint = []string{sdkDir + "/bin/gcloud"}
			} else {
				b.Config.Cmd = []string{"/bin/bash"}
			}
			return b, err
		}
	}
	return nil
}

func sdk(layer string) (Builder, error) {
	none := fault.New(fault.FailedPrecondition, "The Cloud SDK is not installed on this machine: there is no gcloud in the PATH that giggle was started with. Install it and start giggle again.")
	found, err := exec.LookPath("gcloud")
	if err != nil {
		return Builder{}, none
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		return Builder{}, none
	}
	root := filepath.Dir(filepath.Dir(found))
	if _, err := os.Stat(filepath.Join(root, "lib", "gcloud.py")); err != nil {
		return Builder{}, none
	}
	b := Builder{Mounts: []engine.Mount{{Source: root, Target: sdkDir, ReadOnly: true}}}
	if err := errors.Join(os.RemoveAll(layer), os.MkdirAll(layer, 0o755)); err != nil {
		return b, err
	}
	for _, dir := range []string{"etc", "tmp", "root", "usr", "usr/lib", "usr/bin", "usr/share"} {
		if err := os.Mkdir(filepath.Join(layer, dir), 0o755); err != nil {
			return b, err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		if err := os.WriteFile(filepath.Join(layer, name), []byte(text), 0o644); err != nil {
			return b, err
		}
	}
	// A machine's /bin and /lib are links into /usr, or directories of their own.
	for _, name := range []string{"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/share", "/bin", "/lib", "/lib64"} {
		st, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return b, err
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			b.Mounts = append(b.Mounts, engine.Mount{Source: name, Target: name, ReadOnly: true})
			continue
		}
		to, err := os.Readlink(name)
		if err == nil {
			err = os.Symlink(to, filepath.Join(layer, name))
		}
		if err != nil {
			return b, err
		}
	}
	python := "/usr/bin/python3"
	if _, err := os.Stat(filepath.Join(root, "platform/bundledpythonunix/bin/python3")); err == nil {
		python = sdkDir + "/platform/bundledpythonunix/bin/python3"
	} else if _, err := os.Stat(python); err != nil {
		return b, fault.New(fault.FailedPrecondition, "gcloud needs Python, and this machine has no /usr/bin/python3.")
	}
	version, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		version = nil // then all versions look the same
	}
	sum := sha256.Sum256(append([]byte("giggle cloud-sdk "), version...))
	b.Image = oci.Image{
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Layers: []string{layer},
		Config: v1.Config{Env: []string{"PATH=" + sdkDir + "/bin:" + engine.DefaultPath}},
	}
	b.Env = []string{
		"CLOUDSDK_PYTHON=" + python, "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE=/etc/ssl/certs/ca-certificates.crt",
		"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true", "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true", "CLOUDSDK_CORE_DISABLE_PROMPTS=true",
		"PYTHONDONTWRITEBYTECODE=1",
	}
	return b, nil
}
