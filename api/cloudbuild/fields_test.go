package cloudbuild

import (
	"slices"
	"testing"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What comes of each field is said, and of none that there is not.
func TestEveryFieldIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		fields *fields
		of     proto.Message
		but    []string // refused for want of an entry
	}{
		"build":   {&buildFields, &cloudbuildpb.Build{}, []string{"options.enableStructuredLogging"}},
		"trigger": {&triggerFields, &cloudbuildpb.BuildTrigger{}, nil},
		"run":     {&firingFields, &cloudbuildpb.RepoSource{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(map[string]bool)
			var walk func(path string, d protoreflect.MessageDescriptor)
			walk = func(path string, d protoreflect.MessageDescriptor) {
				for i := range d.Fields().Len() {
					f := d.Fields().Get(i)
					at := joined(path, f.JSONName())
					_, known := c.fields.of(at)
					inner := f.Message() != nil && !f.IsMap() && f.Message().ParentFile().Package() != "google.protobuf"
					switch {
					case known:
						seen[at] = true
					case inner:
						walk(at, f.Message())
					case !slices.Contains(c.but, at):
						t.Errorf("nothing is said of %s", at)
					}
				}
			}
			walk("", c.of.ProtoReflect().Descriptor())
			all := slices.Concat(c.fields.real, c.fields.own)
			for path := range c.fields.refused {
				all = append(all, path)
			}
			for _, path := range all {
				if !seen[path] {
					t.Errorf("there is no field %s, or it is listed twice", path)
				}
			}
		})
	}
}
