package cloudbuild

import (
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"

	"giggle/builds/config"
	"giggle/fault"
)

// ParseConfig reads a cloudbuild.yaml or cloudbuild.json. It fails with InvalidArgument and the path of the field.
func ParseConfig(data []byte) (*cloudbuildpb.Build, error) {
	b := &cloudbuildpb.Build{}
	if err := config.Parse(data, b); err != nil {
		return nil, err
	}
	return b, nil
}

// refuseUnknown refuses the fields of a body that Cloud Build has not, or that this platform has not yet. What a build
// has come to is not the caller's to say, whatever it is.
func refuseUnknown(_ string, paths []string) error {
	for _, p := range paths {
		parent, name := "", p
		if i := strings.LastIndexByte(p, '.'); i >= 0 {
			parent, name = p[:i], p[i+1:]
		}
		switch {
		case strings.HasPrefix(parent, "build.results"):
		case config.Newer(p):
			return config.NotServed(p)
		case parent == "":
			return fault.New(fault.InvalidArgument,
				"Invalid JSON payload received. Unknown name %.100q: Cannot find field.", name)
		default:
			return fault.New(fault.InvalidArgument,
				"Invalid JSON payload received. Unknown name %.100q at '%.200s': Cannot find field.", name, parent)
		}
	}
	return nil
}
