package runv2

import (
	"strings"
	"testing"

	"cloud.google.com/go/run/apiv2/runpb"

	"giggle/run"
)

// Every field of the model has a name of this API, and that name is one of a field that its messages have.
func TestFieldNames(t *testing.T) {
	all := run.Fields()
	for _, f := range all {
		name, ok := fieldNames[f]
		switch {
		case !ok:
			t.Errorf("%s has no name", f)
			continue
		case name == "serviceId", strings.HasSuffix(name, ".successThreshold"): // of the request; of v1 only
			continue
		}
		in := (&runpb.Service{}).ProtoReflect().Descriptor()
		for _, step := range strings.Split(strings.TrimSuffix(name, "[nvidia.com/gpu]"), ".") {
			if in == nil {
				t.Errorf("%s: nothing is below what is before %q in %s", f, step, name)
				break
			}
			field, _, _ := strings.Cut(step, "[")
			fd := in.Fields().ByJSONName(field)
			if fd == nil {
				t.Errorf("%s: there is no field %s of %s in %s", f, step, in.Name(), name)
				break
			}
			if in = fd.Message(); fd.IsMap() {
				break // keys are what the client names them
			}
		}
	}
	if len(fieldNames) != len(all) {
		t.Errorf("%d names for %d fields", len(fieldNames), len(all))
	}
}
