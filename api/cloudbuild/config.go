package cloudbuild

import (
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
