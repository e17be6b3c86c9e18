package steps

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"giggle/builds"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// GcloudImage is the mirror's image that the Cloud SDK of this machine is mounted in: Debian with Python.
const GcloudImage = "gcr.io/cloud-builders/gcloud:latest"

// sdkImages are the images that it stands in for, and the programs of the SDK that they run; "" is a shell
// (https://github.com/GoogleCloudPlatform/cloud-builders).
var sdkImages = map[string]string{
	"gcr.io/cloud-builders/gcloud":                    "gcloud",
	"gcr.io/cloud-builders/gcloud-slim":               "gcloud",
	"gcr.io/cloud-builders/gsutil":                    "gsutil",
	"gcr.io/cloud-builders/kubectl":                   "kubectl",
	"gcr.io/google.com/cloudsdktool/cloud-sdk":        "",
	"gcr.io/google.com/cloudsdktool/google-cloud-cli": "",
	"google/cloud-sdk":                                "",
	"docker.io/google/cloud-sdk":                      "",
}

// sdkDir is where the Cloud SDK is in the container.
const sdkDir = "/google-cloud-sdk"

// AddSDK adds the images with gcloud to the builders: an image of the mirror with the Cloud SDK that is installed on
// this machine mounted in it, read-only.
func AddSDK(
	to map[string]func(context.Context, builds.Build) (OwnImage, error), mirrored func(name string) (oci.Image, error),
) {
	for name, program := range sdkImages {
		to[name] = func(context.Context, builds.Build) (OwnImage, error) {
			root, err := sdkRoot()
			if err != nil {
				return OwnImage{}, err
			}
			img, err := mirrored(GcloudImage)
			if fault.Is(err, fault.NotFound) {
				return OwnImage{},
					fault.New(fault.FailedPrecondition,
						"The image %s is missing on this machine. Run `make images` in Giggle's repository to make it.",
						GcloudImage)
			}
			if err != nil {
				return OwnImage{}, err
			}
			img.Config.Entrypoint, img.Config.Cmd = nil, []string{"/bin/bash"}
			if program != "" {
				if _, err := os.Stat(filepath.Join(root, "bin", program)); err != nil {
					return OwnImage{}, fault.New(fault.FailedPrecondition,
						"The Cloud SDK of this machine has no %[1]s. Run `gcloud components install %[1]s`.", program)
				}
				img.Config.Entrypoint, img.Config.Cmd = []string{sdkDir + "/bin/" + program}, nil
			}
			// Google's have git and curl. Here another image has them, above the same Debian.
			switch tools, err := mirrored(gitImage + ":latest"); {
			case err == nil:
				above := slices.DeleteFunc(slices.Clone(img.Layers),
					func(l string) bool { return slices.Contains(tools.Layers, l) })
				img.Layers = slices.Concat(tools.Layers, above)
			case !fault.Is(err, fault.NotFound):
				return OwnImage{}, err
			}
			return OwnImage{
				Image:  img,
				Mounts: []engine.Mount{{Source: root, Target: sdkDir, ReadOnly: true}},
				Env: []string{
					"CLOUDSDK_PYTHON=/usr/bin/python3",
					"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE=/etc/ssl/certs/ca-certificates.crt",
					"CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=true",
					"CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=true", "CLOUDSDK_CORE_DISABLE_PROMPTS=true",
					"PYTHONDONTWRITEBYTECODE=1",
				},
			}, nil
		}
	}
}

// sdkRoot finds the Cloud SDK of this machine.
func sdkRoot() (string, error) {
	none := fault.New(fault.FailedPrecondition,
		"The Cloud SDK is not installed on this machine: there is no gcloud in the PATH that giggle was started with. Install it and start giggle again.")
	found, err := exec.LookPath("gcloud")
	if err != nil {
		return "", none
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		return "", none
	}
	root := filepath.Dir(filepath.Dir(found))
	if _, err := os.Stat(filepath.Join(root, "lib", "gcloud.py")); err != nil {
		return "", none
	}
	return root, nil
}
