package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"giggle/fault"
	"giggle/resource"
)

func TestCheckLabels(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, tt := range []struct{ key, value, want string }{
		{"env", "prod", ""},
		{"env", "", ""},
		{"a-b_c9", "9-_", ""},
		{long, long, ""},
		{"größe", "groß", ""},
		{"run.googleapis.com/startupProbeType", "Default", ""}, // as services of Google's are exported
		{"serving.knative.dev/configurationGeneration", "1", ""},
		{"client.knative.dev/nonce", "abcdefghij", ""},
		{"example.com/version", "1.2.3", ""},
		{"Env", "prod", "must begin with a letter and have only lower-case letters"},
		{"9a", "", "must begin with a letter"},
		{"-a", "", "must begin with a letter"},
		{"a.b", "", "must begin with a letter and have only"},
		{"a b", "", "must begin with a letter and have only"},
		{"", "x", "has no name"},
		{"example.com/", "x", "has no name"},
		{"/x", "x", "has a prefix that is no domain"},
		{"Example.com/x", "x", "has a prefix that is no domain"},
		{strings.Repeat("a", 254) + "/x", "", "has a prefix that is no domain"},
		{long + "x", "", "more than 63 characters"},
		{"example.com/" + long + "x", "", "more than 63 characters"},
		{"env", long + "x", "more than 63 characters"},
		{"env", "Prod", "may only have lower-case letters"},
		{"env", "a.b", "may only have lower-case letters"},
		{"example.com/version", "1 2", "may only have letters"},
		{"example.com/version", "-1", "may only have letters"},
		{"example.com/a/b", "", "must begin with a letter and have only"},
	} {
		err := resource.CheckLabels(map[string]string{tt.key: tt.value}, "metadata.labels")
		if tt.want == "" && err != nil || tt.want != "" && (!fault.Is(err, fault.InvalidArgument) ||
			!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "metadata.labels")) {
			t.Errorf("%.70q: %.70q = %v, want %q", tt.key, tt.value, err, tt.want)
		}
	}
	many := make(map[string]string)
	for i := range 64 {
		many[fmt.Sprint("l", i)] = ""
	}
	if err := resource.CheckLabels(many, "labels"); err != nil {
		t.Error(err)
	}
	many["one-more"] = ""
	if err := resource.CheckLabels(many, "labels"); err == nil || !strings.Contains(err.Error(), "64 are the most") {
		t.Errorf("65 labels: %v", err)
	}
}
