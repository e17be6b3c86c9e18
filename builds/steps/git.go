package steps

import (
	"context"

	"giggle/builds"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// gitImage is the image of git steps.
const gitImage = "gcr.io/cloud-builders/git"

// AddGit adds the image of git steps to the builders: git with a configuration.
func AddGit(
	to map[string]func(context.Context, builds.Build) (OwnImage, error),
	mirrored func(name string) (oci.Image, error),
	config string, // git's own, of the system
) {
	to[gitImage] = func(context.Context, builds.Build) (OwnImage, error) {
		img, err := mirrored(gitImage + ":latest")
		if fault.Is(err, fault.NotFound) {
			return OwnImage{}, fault.New(fault.FailedPrecondition,
				"The image %s is missing on this machine. Run `make images` in Giggle's repository to make it.", gitImage)
		}
		system := engine.File{Path: "/etc/gitconfig", Data: []byte(config)}
		return OwnImage{Image: img, Files: []engine.File{system}}, err
	}
}
