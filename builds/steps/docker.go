package steps

import (
	"context"

	"giggle/builds"
	"giggle/fault"
	"giggle/oci"
)

// dockerImage is the image of docker steps: the CLI, which finds the platform's own Docker API at its socket.
const dockerImage = "gcr.io/cloud-builders/docker"

// AddDocker adds the image of docker steps to the builders: the docker CLI, which finds its build's socket.
func AddDocker(
	to map[string]func(context.Context, builds.Build) (OwnImage, error),
	mirrored func(name string) (oci.Image, error),
) {
	to[dockerImage] = func(context.Context, builds.Build) (OwnImage, error) {
		img, err := mirrored(dockerImage + ":latest")
		if fault.Is(err, fault.NotFound) {
			return OwnImage{}, fault.New(fault.FailedPrecondition,
				"The image with the docker CLI is not on this machine. Run `make images`, which makes it.")
		}
		if err != nil {
			return OwnImage{}, err
		}
		return OwnImage{Image: img}, nil
	}
}
