package serviceusage_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"giggle/api/guard/guardtest"
	"giggle/api/serviceusage"
	"giggle/catalog"
	"giggle/rest"
)

func newWorld(t *testing.T) *guardtest.World {
	w := guardtest.New(t)
	w.Serve(t, "serviceusage.googleapis.com", "", serviceusage.Rules, func(m *rest.Mux) {
		serviceusage.New(serviceusage.Config{
			Projects: w.Projects,
			Pages:    w.Pages,
			Log:      slog.New(slog.DiscardHandler),
		}).Register(m)
	})
	return w
}

const run = "/v1/projects/giggle/services/run.googleapis.com"

// As `gcloud services disable` and `enable` go: the operation that is answered is done, and may be asked for.
func TestDisableAndEnable(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ verb, state string }{{"disable", "DISABLED"}, {"disable", "DISABLED"},
		{"enable", "ENABLED"}, {"enable", "ENABLED"}} {
		op := w.Call(t, "POST", run+":"+tt.verb, "{}", 200)
		response, _ := op["response"].(map[string]any)
		service, _ := response["service"].(map[string]any)
		if op["done"] != true || service["state"] != tt.state {
			t.Errorf("%s: %v", tt.verb, op)
		}
		if again := w.Call(t, "GET", "/v1/"+op["name"].(string), "", 200); again["done"] != true {
			t.Errorf("polled: %v", again)
		}
		for _, p := range []string{"giggle", w.Project.Number} {
			have := w.Call(t, "GET", "/v1/projects/"+p+"/services/run.googleapis.com", "", 200)
			if have["state"] != tt.state ||
				have["name"] != "projects/"+w.Project.Number+"/services/run.googleapis.com" {
				t.Errorf("after %s: %v", tt.verb, have)
			}
		}
	}
}

func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", run+":disable", "{}", 200)
	w.Call(t, "POST", "/v1/projects/giggle/services:batchEnable",
		`{"serviceIds":["run.googleapis.com","no.example.com"]}`, 404)
	if have := w.Call(t, "GET", run, "", 200); have["state"] != "DISABLED" {
		t.Errorf("half of a failed batch was done: %v", have)
	}
	op := w.Call(t, "POST", "/v1/projects/giggle/services:batchEnable",
		`{"serviceIds":["run.googleapis.com","storage.googleapis.com"]}`, 200)
	response, _ := op["response"].(map[string]any)
	if got := guardtest.Names(response, "services", "state"); op["done"] != true ||
		!slices.Equal(got, []string{"ENABLED", "ENABLED"}) {
		t.Errorf("batchEnable: %v", op)
	}
	get := w.Call(t, "GET", "/v1/projects/giggle/services:batchGet?names=projects/giggle/services/run.googleapis.com&names=projects/giggle/services/iam.googleapis.com", "", 200)
	if got := guardtest.Names(get, "services", "state"); len(got) != 2 {
		t.Errorf("batchGet: %v", get)
	}
}

// What tutorials enable in one line is enabled as a whole, whether it is served here or not, and is said once.
func TestServicesThatAreNotServed(t *testing.T) {
	w := guardtest.New(t)
	var log bytes.Buffer
	w.Serve(t, "serviceusage.googleapis.com", "", serviceusage.Rules, func(m *rest.Mux) {
		serviceusage.New(serviceusage.Config{
			Projects: w.Projects,
			Pages:    w.Pages,
			Log:      slog.New(slog.NewTextHandler(&log, nil)),
		}).Register(m)
	})
	w.Call(t, "POST", run+":disable", "{}", 200)
	for range 2 {
		op := w.Call(t, "POST", "/v1/projects/giggle/services:batchEnable",
			`{"serviceIds":["run.googleapis.com","compute.googleapis.com","pubsub.googleapis.com"]}`, 200)
		response, _ := op["response"].(map[string]any)
		if got := guardtest.Names(response, "services", "state"); op["done"] != true ||
			!slices.Equal(got, []string{"ENABLED", "ENABLED", "ENABLED"}) {
			t.Errorf("batchEnable: %v", op)
		}
	}
	for _, name := range []string{"compute.googleapis.com", "pubsub.googleapis.com"} {
		if n := strings.Count(log.String(), "service="+name); n != 1 {
			t.Errorf("%s is said %d times: %s", name, n, &log)
		}
	}
	if strings.Contains(log.String(), "run.googleapis.com") {
		t.Errorf("what is served is said to be not: %s", &log)
	}
	enabled := guardtest.Names(w.Call(t, "GET", "/v1/projects/giggle/services?filter=state:ENABLED", "", 200), "services",
		"name")
	if !slices.Contains(enabled, "projects/"+w.Project.Number+"/services/compute.googleapis.com") {
		t.Errorf("enabled: %v", enabled)
	}
	w.Call(t, "POST", "/v1/projects/giggle/services/compute.googleapis.com:disable", "{}", 200)
	w.Call(t, "POST", "/v1/projects/giggle/services/rum.googleapis.com:enable", "{}", 404)
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, token, method, path, body string
		status                          int
	}{
		{"unknown service", w.Owner, "GET", "/v1/projects/giggle/services/no.example.com", "", 404},
		{"enable what is not there", w.Owner, "POST", "/v1/projects/giggle/services/no.example.com:enable", "{}", 404},
		{"disable what a project needs", w.Owner, "POST", "/v1/projects/giggle/services/iam.googleapis.com:disable", "{}", 400},
		{"unknown project", w.Owner, "GET", "/v1/projects/nowhere/services/run.googleapis.com", "", 403},
		{"stranger", w.Stranger, "POST", run + ":disable", "{}", 403},
		{"no token", "", "GET", run, "", 401},
		{"bad filter", w.Owner, "GET", "/v1/projects/giggle/services?filter=title:x", "", 400},
		{"bad page token", w.Owner, "GET", "/v1/projects/giggle/services?pageToken=x", "", 400},
		{"a folder", w.Owner, "GET", "/v1/folders/1/services/run.googleapis.com", "", 403},
		{"another project's in a batch", w.Owner, "GET", "/v1/projects/giggle/services:batchGet?names=projects/another-project/services/run.googleapis.com", "", 400},
		{"a bad name in a batch", w.Owner, "GET", "/v1/projects/giggle/services:batchGet?names=run.googleapis.com", "", 400},
		{"unknown operation", w.Owner, "GET", "/v1/operations/acf.1", "", 404},
	} {
		t.Run(tt.name, func(t *testing.T) { w.CallAs(t, tt.token, tt.method, tt.path, tt.body, tt.status) })
	}
}

func TestListByPages(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", run+":disable", "{}", 200)
	all := len(catalog.Hosts())
	for _, api := range catalog.All() {
		all += len(api.Parts)
	}
	for _, tt := range []struct {
		filter string
		want   int
	}{{"", all}, {"state:ENABLED", all - 1}, {"state:DISABLED", 1}} {
		whole := guardtest.Names(w.Call(t, "GET", "/v1/projects/giggle/services?filter="+tt.filter, "", 200),
			"services", "name")
		if len(whole) != tt.want || !slices.IsSorted(whole) {
			t.Errorf("%q: %v, want %d in order", tt.filter, whole, tt.want)
		}
		var paged []string
		for token, pages := "", 0; ; pages++ {
			page := w.Call(t, "GET", "/v1/projects/giggle/services?pageSize=2&filter="+tt.filter+"&pageToken="+token,
				"", 200)
			got := guardtest.Names(page, "services", "name")
			if paged = append(paged, got...); len(got) > 2 || pages > len(whole) {
				t.Fatalf("%q: page %d is %v", tt.filter, pages, got)
			}
			if token, _ = page["nextPageToken"].(string); token == "" {
				break
			}
		}
		if !slices.Equal(paged, whole) {
			t.Errorf("%q by pages: %v, want %v", tt.filter, paged, whole)
		}
	}
	page := w.Call(t, "GET", "/v1/projects/giggle/services?pageSize=2", "", 200)
	w.Call(t, "GET", "/v1/projects/giggle/services?pageSize=2&filter=state:ENABLED&pageToken="+
		page["nextPageToken"].(string), "", 400)
}
