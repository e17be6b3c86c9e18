package fault_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"giggle/fault"
)

// An API's names take the place of the model's, in the message too; what stands in lists keeps its places.
func TestFieldNames(t *testing.T) {
	names := fault.FieldNames{
		"template.containers[].env[].name": "spec.containers[].env[].key", "traffic": "spec.traffic", "template.containers[].image": "spec.containers[0].image",
		"scaling.max": "metadata[run.example/max]",
	}
	names.Nest("template.containers[].startup", "spec.containers[].startupProbe",
		fault.FieldNames{".timeout": ".seconds"})
	other := errors.New("no fault")
	quota := fault.New(fault.InvalidArgument, "traffic: is in the message only")
	for _, tt := range []struct{ in, want error }{
		{fault.Invalid("template.containers[2].env[31].name", "is %s",
			"bad"), fault.Invalid("spec.containers[2].env[31].key", "is bad")},
		{fault.Invalid("template.containers[2].image", "is bad"), fault.Invalid("spec.containers[0].image", "is bad")},
		{fault.NotImplemented("traffic", "is bad"), fault.NotImplemented("spec.traffic", "is bad")},
		{fault.Invalid("scaling.max", "is bad"), fault.Invalid("metadata[run.example/max]", "is bad")},
		{fault.Invalid("template.containers[1].startup.timeout",
			"is bad"), fault.Invalid("spec.containers[1].startupProbe.seconds", "is bad")},
		{fault.Invalid("traffic[x]", "is bad"), fault.Invalid("traffic[x]", "is bad")},
		{fault.Invalid("unnamed[3].field", "is bad"), fault.Invalid("unnamed[3].field", "is bad")},
		{&fault.Error{
			Code:    fault.Aborted,
			Message: "Its own words.",
			Fields:  []fault.Field{{Path: "traffic", Description: "d"}},
		},
			&fault.Error{
				Code:    fault.Aborted,
				Message: "Its own words.",
				Fields:  []fault.Field{{Path: "spec.traffic", Description: "d"}},
			}},
		{quota, quota}, {other, other}, {nil, nil},
	} {
		before := fmt.Sprintf("%+v", tt.in)
		if got := names.Translate(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v became %v, want %v", tt.in, got, tt.want)
		}
		if fmt.Sprintf("%+v", tt.in) != before {
			t.Errorf("%v was changed", tt.in)
		}
	}
	wrapped := fmt.Errorf("run.Services.Create: %w", fault.Invalid("traffic", "is bad"))
	if got := names.Translate(wrapped); !reflect.DeepEqual(got, error(fault.Invalid("spec.traffic", "is bad"))) {
		t.Errorf("%v", got)
	}
}
