package discovery_test

import (
	"slices"
	"strings"
	"testing"

	"giggle/api/discovery"
	"giggle/api/discoverytest"
)

// An answer with a member that the document lacks, or with one of another type, is found; what the document has is not.
func TestCheck(t *testing.T) {
	dir, err := discoverytest.Dir()
	if err != nil {
		t.Fatal(err)
	}
	c := discovery.NewChecker(dir)
	const v2 = "/v2/projects/p/locations/l/services/s"
	for _, tt := range []struct{ host, method, path, body, want string }{
		{"run.googleapis.com", "GET", v2, `{"name":"x","labels":{"any":"thing"}}`, ""},
		{"run.googleapis.com", "GET", v2, `{"nom":"x"}`, "run.projects.locations.services.get: GoogleCloudRunV2Service.nom is not a member"},
		{"run.googleapis.com", "GET", v2, `{"template":{"containers":[{"imagee":"x"}]}}`, ".template.containers[].imagee is not a member"},
		{"run.googleapis.com", "GET", v2, `{"name":5}`, ".name is a number, not a string"},
		{"run.googleapis.com", "GET", v2, `{"generation":"5","invokerIamDisabled":"no"}`, ".invokerIamDisabled is a text, not a boolean"},
		{"run.googleapis.com", "GET", v2, `{"labels":["a"]}`, ".labels is a list, not a object"},
		{"run.googleapis.com", "GET", v2, `{"ingress":"INGRESS_TRAFFIC_SOME"}`, "which is not one of its own"},
		{"run.googleapis.com", "PATCH", v2, `{"name":"o","response":{"@type":"type.googleapis.com/google.cloud.run.v2.Service","nom":"x"}}`,
			"google.cloud.run.v2.Service.nom is not a member"},
		{"run.googleapis.com", "PATCH", v2, `{"name":"o","metadata":{"@type":"type.googleapis.com/made.Up","nom":"x"}}`, ""},
		{"run.googleapis.com", "GET", "/apis/serving.knative.dev/v1/namespaces/p/services/s", `{"spec":{"template":{"specs":{}}}}`,
			"run.namespaces.services.get: Service.spec.template.specs"},
		{"storage.googleapis.com", "GET", "/storage/v1/b/b/o/o%2Fp", `{"kind":"storage#object","size":"5","colour":"red"}`,
			"storage.objects.get: Object.colour"},
		{"cloudbuild.googleapis.com", "GET", "/v1/projects/p/builds/b", `{"id":"b","steps":[{"name":"x","exitCode":"1"}]}`,
			".steps[].exitCode is a text, not a integer"},
		{"run.googleapis.com", "GET", "/v9/nothing", `{"nom":"x"}`, ""},
		{"made-up.googleapis.com", "GET", "/v1/x", `{"nom":"x"}`, ""},
		{"storage.googleapis.com", "GET", "/storage/v1/b/b/o/o", "the bytes of an object", ""},
	} {
		got := c.Check(tt.host, tt.method, tt.path, []byte(tt.body))
		if tt.want == "" && len(got) > 0 ||
			tt.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, tt.want) }) {
			t.Errorf("%s %s %s: %q, want %q", tt.method, tt.path, tt.body, got, tt.want)
		}
	}
}
