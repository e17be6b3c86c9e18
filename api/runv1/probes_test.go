package runv1_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// Probes come back as they were sent, and what exists on Cloud Run only is refused by path.
func TestProbes(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]string{
		"startupProbe by TCP": `"startupProbe":{"timeoutSeconds":5,"periodSeconds":10,"failureThreshold":24,"initialDelaySeconds":3,"tcpSocket":{"port":8080}}`,
		"startupProbe HTTP":   `"startupProbe":{"timeoutSeconds":1,"periodSeconds":10,"failureThreshold":3,"httpGet":{"path":"/up","port":8081,"httpHeaders":[{"name":"X-A","value":"b"},{"name":"X-A","value":"c"}]}}`,
		"livenessProbe HTTP":  `"livenessProbe":{"initialDelaySeconds":600,"periodSeconds":3600,"timeoutSeconds":60,"failureThreshold":2,"httpGet":{"path":"/alive"}}`,
		"livenessProbe gRPC":  `"livenessProbe":{"timeoutSeconds":1,"periodSeconds":10,"failureThreshold":3,"grpc":{"port":9000,"service":"jokes.v1"}}`,
		"readinessProbe gRPC": `"readinessProbe":{"timeoutSeconds":1,"failureThreshold":3,"periodSeconds":30,"successThreshold":2,"grpc":{}}`,
	} {
		body := asGcloud("p"+strings.ToLower(strings.NewReplacer(" ", "-", "startupProbe", "s", "livenessProbe", "l",
			"readinessProbe", "r").Replace(name)), ","+tt)
		code, got := w.do(t, "POST", regional, services+"?dryRun=all", body)
		if code != 200 {
			t.Errorf("%s = %d %v", name, code, got)
			continue
		}
		var want map[string]any
		if err := json.Unmarshal([]byte("{"+tt+"}"), &want); err != nil {
			t.Fatal(err)
		}
		for field, probe := range want {
			if have := at(got, "spec/template/spec/containers/0/"+field); !reflect.DeepEqual(have, probe) {
				t.Errorf("%s: %v, want %v", name, have, probe)
			}
		}
	}
	for name, tt := range map[string]struct {
		probe string
		code  int
		path  string
	}{
		"host":     {`"livenessProbe":{"httpGet":{"path":"/","host":"elsewhere"}}`, 405, "livenessProbe.httpGet.host"},
		"exec":     {`"livenessProbe":{"exec":{"command":["true"]}}`, 400, "livenessProbe.exec"},
		"two ways": {`"startupProbe":{"httpGet":{"path":"/"},"grpc":{"port":1}}`, 400, "startupProbe"},
		"by TCP":   {`"readinessProbe":{"tcpSocket":{"port":80}}`, 400, "readinessProbe.tcpSocket"},
		"too long": {`"startupProbe":{"periodSeconds":240,"failureThreshold":2}`, 400, "startupProbe.failureThreshold"},
	} {
		code, got := w.do(t, "POST", regional, services+"?dryRun=all", asGcloud("jokes", ","+tt.probe))
		text, _ := json.Marshal(got)
		if code != tt.code || !strings.Contains(string(text), "spec.template.spec.containers[0]."+tt.path) {
			t.Errorf("%s = %d %s, want %d at %s", name, code, text, tt.code, tt.path)
		}
	}
}

// The bounds of a whole service are annotations of the service itself.
func TestServiceScaling(t *testing.T) {
	w := newWorld(t)
	body := strings.Replace(asGcloud("jokes", ""), `"annotations":{`,
		`"annotations":{"run.googleapis.com/minScale":"1","run.googleapis.com/maxScale":"4",`, 1)
	code, got := w.do(t, "POST", regional, services+"?dryRun=all", body)
	notes, _ := at(got, "metadata/annotations").(map[string]any)
	if code != 200 || notes["run.googleapis.com/minScale"] != "1" || notes["run.googleapis.com/maxScale"] != "4" {
		t.Errorf("created with bounds = %d %v", code, got)
	}
}

// What `gcloud run deploy --add-cloudsql-instances` writes is kept and shown, and goes with an empty value, as
// --clear-cloudsql-instances writes it.
func TestDatabases(t *testing.T) {
	for _, names := range []string{"giggle:europe-north1:jokes", "giggle:europe-north1:jokes,giggle:us-central1:shop", ""} {
		w := newWorld(t)
		const key = "run.googleapis.com/cloudsql-instances"
		body := strings.Replace(asGcloud("jokes", ""), `"run.googleapis.com/startup-cpu-boost":`,
			`"`+key+`":"`+names+`","run.googleapis.com/startup-cpu-boost":`, 1)
		code, got := w.do(t, "POST", regional, services+"?dryRun=all", body)
		notes, _ := at(got, "spec/template/metadata/annotations").(map[string]any)
		if shown, _ := notes[key].(string); code != 200 || shown != names {
			t.Errorf("created with %q = %d %v", names, code, got)
		}
	}
}
