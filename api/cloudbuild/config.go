package cloudbuild

import (
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"

	"giggle/builds/config"
)

// ParseConfig reads a cloudbuild.yaml or cloudbuild.json. It fails with InvalidArgument and the path of the field.
func ParseConfig(data []byte) (*cloudbuildpb.Build, error) {
	b := &cloudbuildpb.Build{}
	if err := config.Parse(data, b); err != nil {
		return nil, err
	}
	return b, nil
}

// notServed says of a field that the protos don't have what is known of it: that this platform doesn't have it yet.
// What a build has come to is not the caller's to say, whatever it is.
func notServed(path string) (skip bool, err error) {
	if config.Newer(path) {
		return false, config.NotServed(path)
	}
	return strings.HasPrefix(path, "build.results."), nil
}
