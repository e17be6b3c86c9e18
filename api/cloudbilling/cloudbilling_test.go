package cloudbilling_test

import (
	"testing"

	"giggle/api/cloudbilling"
	"giggle/api/guard/guardtest"
	"giggle/rest"
)

func TestNothingIsBilled(t *testing.T) {
	w := guardtest.New(t)
	w.Serve(t, "cloudbilling.googleapis.com", "", cloudbilling.Rules, func(m *rest.Mux) {
		cloudbilling.New(cloudbilling.Config{Project: w.Projects.Find}).Register(m)
	})
	for _, ref := range []string{"giggle", w.Project.Number} {
		got := w.Call(t, "GET", "/v1/projects/"+ref+"/billingInfo", "", 200)
		if got["name"] != "projects/giggle/billingInfo" || got["projectId"] != "giggle" ||
			got["billingEnabled"] != false || got["billingAccountName"] != "" {
			t.Errorf("%s: %v", ref, got)
		}
	}
	w.Call(t, "PUT", "/v1/projects/giggle/billingInfo", `{"billingAccountName":"billingAccounts/000000-000000-000000"}`,
		405)
	for _, tt := range []struct {
		name, token, path string
		status            int
	}{
		{"no token", "", "/v1/projects/giggle/billingInfo", 401},
		{"a stranger", w.Stranger, "/v1/projects/giggle/billingInfo", 403},
		{"no project", w.Owner, "/v1/projects/nowhere/billingInfo", 403},
	} {
		t.Run(tt.name, func(t *testing.T) { w.CallAs(t, tt.token, "GET", tt.path, "", tt.status) })
	}
}
