package mirror

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"giggle/fault"
)

// Familiar is the name under which the mirror knows a foreign image, as people write it: "ubuntu" is "ubuntu:latest",
// "docker.io/library/golang:1.22" is "golang:1.22", "docker.io/me/app" is "me/app:latest". It fails with
// InvalidArgument on what is no reference.
func Familiar(reference string) (string, error) {
	ref, err := name.ParseReference(reference, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		return "", fault.New(fault.InvalidArgument, "%.200q is not the name of an image.", reference)
	}
	repository := ref.Context().RepositoryStr()
	switch registry := ref.Context().RegistryStr(); registry {
	case "docker.io", "index.docker.io", "registry-1.docker.io",
		"mirror.gcr.io": // https://cloud.google.com/artifact-registry/docs/pull-cached-dockerhub-images
		repository = strings.TrimPrefix(repository, "library/")
	default:
		repository = registry + "/" + repository
	}
	if _, ok := ref.(name.Digest); ok {
		return repository + "@" + ref.Identifier(), nil
	}
	return repository + ":" + ref.Identifier(), nil
}

// Repository is a familiar name without its tag or digest: "gcr.io/me/app" of "gcr.io/me/app:v1".
func Repository(familiar string) string {
	if name, _, ok := strings.Cut(familiar, "@"); ok {
		return name
	}
	if at := strings.LastIndexByte(familiar, ':'); at > strings.LastIndexByte(familiar, '/') {
		return familiar[:at]
	}
	return familiar
}
