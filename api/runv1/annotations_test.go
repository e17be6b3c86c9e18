package runv1

import (
	"regexp"
	"strings"
	"testing"

	"giggle/api/discoverytest"
)

// The kinds of resources that may have an annotation are those of the reference, and there is none that the reference
// has and this API doesn't know.
func TestAnnotationsAreThoseOfTheReference(t *testing.T) {
	doc, err := discoverytest.Read("run", "v1")
	if err != nil {
		t.Fatal(err)
	}
	text := doc.Schemas["ObjectMeta"].Properties["annotations"].Description
	// In the reference two entries end with a comma too many, and one names a resource that isn't public.
	found := regexp.MustCompile("`([a-z.]+/[A-Za-z-]+)`: ([A-Za-z, ]+)").FindAllStringSubmatch(text, -1)
	if len(found) < 40 {
		t.Fatalf("the reference names %d annotations in:\n%s", len(found), text)
	}
	for _, m := range found {
		key, kinds := m[1], strings.Trim(m[2], ", ")
		if got := annotations[key].kinds; got != kinds && !strings.HasPrefix(key, "run.googleapis.com/job") {
			t.Errorf("%s is for %q, want %q", key, got, kinds)
		}
	}
}

// Each annotation has its place, and an empty value is none.
func TestPlacesOfAnnotations(t *testing.T) {
	for _, tt := range []struct {
		kind, key, value string
		want             string // part of the error; "" for none, "kept" or "read" for what becomes of it
	}{
		{"Service", "autoscaling.knative.dev/minScale", "1",
			"Annotation 'autoscaling.knative.dev/minScale' is not supported on resources of kind 'Service'. Supported kinds are: Revision"},
		{"Service", "run.googleapis.com/startup-cpu-boost", "true", "Supported kinds are: Revision"},
		{"Service", "run.googleapis.com/cloudsql-instances", "p:europe-north1:db", "Supported kinds are: Revision, Execution, Instance"},
		{"Revision", "run.googleapis.com/ingress", "all", "of kind 'Revision'. Supported kinds are: Service, Instance"},
		{"Revision", "run.googleapis.com/minScale", "1", "Supported kinds are: Service"},
		{"Revision", "run.googleapis.com/custom-audiences", `["a"]`, "Supported kinds are: Service"},
		{"Revision", "run.googleapis.com/made-up", "x", "is not supported on resources of kind 'Revision'"},
		{"Service", "autoscaling.knative.dev/class", "hpa", "is not supported on resources of kind 'Service'"},
		{"Revision", "run.googleapis.com/launch-stage", "BETA", "kept"},
		{"Service", "run.googleapis.com/launch-stage", "BETA", "read"},
		{"Service", "run.googleapis.com/client-name", "gcloud", "read"},
		{"Revision", "run.googleapis.com/client-name", "gcloud", "read"},
		{"Revision", "run.googleapis.com/base-images", `{"":"x"}`, "kept"},
		{"Service", "serving.knative.dev/creator", "me", ""},
		{"Revision", "client.knative.dev/user-image", "i", "kept"},
		{"Service", "serving.knative.dev/rollout-duration", "1s", "kept"},
		{"Service", "example.com/made-up", "x", "kept"},
		{"Revision", "run.googleapis.com/cloudsql-instances", "", ""},
		{"Revision", "run.googleapis.com/vpc-access-connector", "", ""},
		{"Revision", "run.googleapis.com/sessionAffinity", "", ""},
		{"Service", "autoscaling.knative.dev/minScale", "", ""},
		{"Service", "run.googleapis.com/maxScale", "", ""},
		{"Service", "run.googleapis.com/made-up", "", "is not supported"},
		{"Revision", "run.googleapis.com/sessionAffinity", "false", "kept"},
		{"Service", "run.googleapis.com/default-url-disabled", "False", "kept"},
		{"Service", "run.googleapis.com/scalingMode", "automatic", "kept"},
		{"Service", "run.googleapis.com/scalingMode", "manual", "not implemented"},
		{"Revision", "run.googleapis.com/sessionAffinity", "true", "not implemented"},
		{"Service", "run.googleapis.com/binary-authorization", "default", "not implemented"},
		{"Revision", "run.googleapis.com/vpc-access-connector", "c", "connector"},
	} {
		kept, fields, err := sift(map[string]string{tt.key: tt.value}, tt.kind, "annotations")
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case len(kept) == 1 && kept[tt.key] == tt.value:
			got = "kept"
		case len(fields) == 1 && fields[tt.key] == tt.value:
			got = "read"
		}
		if got != tt.want && (err == nil || tt.want == "" || !strings.Contains(got, tt.want)) {
			t.Errorf("%s %s=%q: %q, want %q", tt.kind, tt.key, tt.value, got, tt.want)
		}
	}
}
