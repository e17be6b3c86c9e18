package cloudbuild_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"giggle/api/cloudbuild"
	"giggle/api/guard/guardtest"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/store"
)

type world struct {
	*guardtest.World
	builds   *builds.Builds
	triggers *trigger.Triggers
}

func account(p resource.Project) string { return iam.BuildAccount(p.Number) }

func newWorld(t *testing.T) *world {
	w := &world{World: guardtest.New(t)}
	serial := 0
	w.builds = builds.New(w.Store, func() string {
		serial++
		return fmt.Sprintf("00000000-0000-0000-0000-%012d", serial)
	})
	w.Serve(t, "cloudbuild.googleapis.com", "cloudbuild.googleapis.com", cloudbuild.Rules, func(m *rest.Mux) {
		cloudbuild.New(cloudbuild.Config{
			Builds:     w.builds,
			Operations: operation.New(w.Store),
			Project:    w.Projects.Find,
			Account:    account,
			Pages:      w.Pages,
			ActAs: func(_ context.Context, _ iam.Principal, _ resource.Project, email string) error {
				if email != "builder@giggle.iam.gserviceaccount.com" {
					return fault.New(fault.PermissionDenied,
						"Permission 'iam.serviceaccounts.actAs' denied on service account %s.", email)
				}
				return nil
			},
			LogsBucket: func(context.Context, resource.Project) (string, error) { return "logs", nil },
		}).Register(m)
	})
	return w
}

// create queues a build.
func (w *world) create(t *testing.T, project, location string) builds.Build {
	t.Helper()
	b, err := w.builds.Submit(t.Context(), resource.Location{Project: project, Location: location}, builds.Request{
		Source:  builds.Source{Bucket: "sources", Object: "source.zip", Generation: 7},
		Spec:    builds.ImageOf(builds.Buildpack, "europe-north1-docker.pkg.dev/giggle/r/jokes", nil),
		Account: func(context.Context, string) (string, error) { return iam.BuildAccount(w.Project.Number), nil },
		LogsIn:  "logs",
		Tags:    []string{"a-tag"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func operationOf(b builds.Build) string {
	return resource.Operation(b.Name.Project, b.Name.Location.Location, b.Name.ID).String()
}

func TestGet(t *testing.T) {
	w := newWorld(t)
	b := w.create(t, "giggle", "europe-north1")
	global := w.create(t, "giggle", "global")
	for path, id := range map[string]string{
		"/v1/" + b.Name.String(): b.Name.ID,
		"/v1/" + strings.Replace(b.Name.String(), "giggle", w.Project.Number, 1):       b.Name.ID,
		"/v1/projects/giggle/builds/" + global.Name.ID:                                 global.Name.ID,
		"/v1/projects/" + w.Project.Number + "/builds/" + global.Name.ID + "?alt=json": global.Name.ID,
	} {
		have := w.Call(t, "GET", path, "", 200)
		if have["id"] != id || have["projectId"] != "giggle" || have["status"] != "QUEUED" ||
			have["logsBucket"] != "gs://logs" || have["timeout"] != "3600s" {
			t.Errorf("%s: %v", path, have)
		}
		if want := "projects/giggle/serviceAccounts/" +
			iam.BuildAccount(w.Project.Number); have["serviceAccount"] != want {
			t.Errorf("%s: serviceAccount = %v, want %s", path, have["serviceAccount"], want)
		}
		if name, _ := have["name"].(string); !strings.HasPrefix(name, "projects/"+w.Project.Number+"/locations/") {
			t.Errorf("%s: name = %s", path, name)
		}
	}
}

func TestOperation(t *testing.T) {
	w := newWorld(t)
	b := w.create(t, "giggle", "europe-north1")
	path := "/v1/" + operationOf(b)
	op := w.Call(t, "GET", path, "", 200)
	meta, _ := op["metadata"].(map[string]any)
	inner, _ := meta["build"].(map[string]any)
	if op["done"] == true || meta["@type"] != "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata" || inner["id"] != b.Name.ID {
		t.Errorf("a running build's operation: %v", op)
	}
	w.Call(t, "POST", path+":cancel", "{}", 200)
	op = w.Call(t, "GET", strings.Replace(path, "giggle", w.Project.Number, 1), "", 200)
	meta, _ = op["metadata"].(map[string]any)
	inner, _ = meta["build"].(map[string]any)
	if op["done"] != true || inner["status"] != "CANCELLED" {
		t.Errorf("a cancelled build's operation: %v", op)
	}
	if e, _ := op["error"].(map[string]any); op["response"] == nil && (e == nil || e["message"] == "") {
		t.Errorf("a done operation has neither a response nor an error: %v", op)
	}
	// Another kind of operation is not Cloud Build's.
	foreign := resource.Operation("giggle", "europe-north1", "another").String()
	openForeign(t, w, foreign)
	w.Call(t, "GET", "/v1/"+foreign, "", 404)
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	b := w.create(t, "giggle", "global")
	have := w.Call(t, "POST", "/v1/projects/giggle/builds/"+b.Name.ID+":cancel", "{}", 200)
	if have["status"] != "CANCELLED" || have["finishTime"] == nil {
		t.Errorf("cancelled: %v", have)
	}
	w.Call(t, "POST", "/v1/"+b.Name.String()+":cancel", "{}", 400) // it has ended
	w.Call(t, "POST", "/v1/"+operationOf(b)+":cancel", "{}", 400)
}

func TestListByPages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 5 {
		want = append(want, w.create(t, "giggle", "global").Name.ID)
		if i == 2 {
			w.create(t, "giggle", "europe-north1")
			w.create(t, "another-project", "global")
		}
	}
	slices.Reverse(want)
	for _, path := range []string{"/v1/projects/giggle/builds?",
		"/v1/projects/" + w.Project.Number + "/locations/global/builds?"} {
		var got []string
		for token, pages := "", 0; ; pages++ {
			page := w.Call(t, "GET", path+"pageSize=2&pageToken="+token, "", 200)
			ids := guardtest.Names(page, "builds", "id")
			if got = append(got, ids...); len(ids) > 2 || pages > 5 {
				t.Fatalf("page %d: %v", pages, ids)
			}
			if token, _ = page["nextPageToken"].(string); token == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if got := guardtest.Names(w.Call(t, "GET", "/v1/projects/giggle/locations/-/builds", "", 200), "builds",
		"id"); len(got) != 6 {
		t.Errorf("everywhere: %v", got)
	}
}

// gcloud 528 takes the account's e-mail address out of this form.
func TestDefaultServiceAccount(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/projects/giggle/locations/europe-north1/defaultServiceAccount"
	have := w.Call(t, "GET", path, "", 200)
	if want := "projects/giggle/serviceAccounts/" +
		iam.BuildAccount(w.Project.Number); have["serviceAccountEmail"] != want ||
		"/v1/"+have["name"].(string) != path {
		t.Errorf("%v, want %s", have, want)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	b := w.create(t, "giggle", "global")
	const none = "00000000-0000-0000-0000-000000000099"
	for _, tt := range []struct {
		name, token, method, path, body string
		status                          int
	}{
		{"unknown", w.Owner, "GET", "/v1/projects/giggle/locations/global/builds/" + none, "", 404},
		{"unknown by project and id", w.Owner, "GET", "/v1/projects/giggle/builds/" + none, "", 404},
		{"in another location", w.Owner, "GET", strings.Replace("/v1/"+b.Name.String(), "global", "europe-north1",
			1), "", 404},
		{"in another project", w.Owner, "GET", strings.Replace("/v1/"+b.Name.String(), "giggle", "another-project",
			1), "", 404},
		{"bad id", w.Owner, "GET", "/v1/projects/giggle/builds/a%20b", "", 400},
		{"bad name", w.Owner, "GET", "/v1/projects/giggle/locations/global/builds/a%20b", "", 400},
		{"unknown project", w.Owner, "GET", "/v1/projects/nowhere/builds/" + b.Name.ID, "", 403},
		{"stranger", w.Stranger, "GET", "/v1/" + b.Name.String(), "", 403},
		{"stranger cancels", w.Stranger, "POST", "/v1/" + operationOf(b) + ":cancel", "{}", 403},
		{"no token", "", "GET", "/v1/" + b.Name.String(), "", 401},
		{"unknown operation", w.Owner, "GET", "/v1/projects/giggle/locations/global/operations/" + none, "", 404},
		{"bad operation", w.Owner, "GET", "/v1/projects/giggle/locations/global/operations/a%20b", "", 400},
		{"cancel an unknown operation", w.Owner, "POST", "/v1/projects/giggle/locations/global/operations/" + none + ":cancel", "{}", 404},
		{"cancel what is unknown", w.Owner, "POST", "/v1/projects/giggle/builds/" + none + ":cancel", "{}", 404},
		{"bad page token", w.Owner, "GET", "/v1/projects/giggle/builds?pageToken=x", "", 400},
		{"filter", w.Owner, "GET", "/v1/projects/giggle/builds?filter=x", "", 400},
		{"stranger submits", w.Stranger, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu"}]}`, 403},
		{"a build without steps", w.Owner, "POST", "/v1/projects/giggle/builds", `{}`, 400},
		{"retry what has not ended", w.Owner, "POST", "/v1/" + b.Name.String() + ":retry", "{}", 400},
		{"approve what needs no approval", w.Owner, "POST", "/v1/" + b.Name.String() + ":approve", `{"approvalResult":{"decision":"APPROVED"}}`, 400},
		{"an account that one may not act as", w.Owner, "POST", "/v1/projects/giggle/builds",
			`{"steps":[{"name":"ubuntu"}],"serviceAccount":"projects/giggle/serviceAccounts/x@giggle.iam.gserviceaccount.com","options":{"logging":"NONE"}}`, 403},
		{"secrets", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu","secretEnv":["X"]}]}`, 405},
		{"a field that there is not", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu"}],"colour":"red"}`, 400},
		{"one of a message", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu","arg":["x"]}]}`, 400},
		{"one that is new", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu"}],"options":{"pubsubTopic":"t"}}`, 405},
		{"one that is new and nested", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu","results":[]}]}`, 405},
		{"one that is left out", w.Owner, "POST", "/v1/projects/giggle/builds", `{"steps":[{"name":"ubuntu"}],"options":{"enableStructuredLogging":true}}`, 405},
		{"a location that is none", w.Owner, "POST", "/v1/projects/giggle/locations/moon/builds", `{"steps":[{"name":"ubuntu"}]}`, 404},
	} {
		t.Run(tt.name, func(t *testing.T) { w.CallAs(t, tt.token, tt.method, tt.path, tt.body, tt.status) })
	}
}

// A deploy from source is a build with one step: it is shown with it, found, and can be retried.
func TestSourceBuild(t *testing.T) {
	w := newWorld(t)
	b := w.create(t, "giggle", "global")
	const image = "europe-north1-docker.pkg.dev/giggle/r/jokes"
	have := w.Call(t, "GET", "/v1/"+b.Name.String(), "", 200)
	steps, _ := have["steps"].([]any)
	if len(steps) != 1 || fmt.Sprint(have["images"]) != "["+image+"]" || have["queueTtl"] != "3600s" ||
		have["results"] != nil {
		t.Fatalf("%v", have)
	}
	if step := steps[0].(map[string]any); step["name"] != "gcr.io/k8s-skaffold/pack" || step["status"] != "QUEUED" {
		t.Errorf("the step is %v", step)
	}
	if got := guardtest.Names(w.Call(t, "GET", "/v1/projects/giggle/builds?filter="+url.QueryEscape("images="+image),
		"", 200), "builds", "id"); len(got) != 1 {
		t.Errorf("found %v", got)
	}
	w.Call(t, "POST", "/v1/"+b.Name.String()+":cancel", "{}", 200)
	again := w.Call(t, "POST", "/v1/"+b.Name.String()+":retry", "{}",
		200)["metadata"].(map[string]any)["build"].(map[string]any)
	if again["id"] == b.Name.ID || fmt.Sprint(again["source"]) != fmt.Sprint(have["source"]) ||
		fmt.Sprint(again["steps"]) != fmt.Sprint(steps) {
		t.Errorf("retried as %v", again)
	}
}

// openForeign opens an operation that no build has.
func openForeign(t *testing.T, w *world, name string) {
	t.Helper()
	err := w.Store.Update(t.Context(), func(tx *store.Tx) error {
		return operation.Open(tx, operation.Operation{Name: name, Kind: "run.service", Verb: "create"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSubmitAndRetry(t *testing.T) {
	w := newWorld(t)
	op := w.Call(t, "POST", "/v1/projects/giggle/locations/global/builds", `{
		"steps":[{"name":"ubuntu","id":"a","args":["$_X","$PROJECT_ID","$BUILD_ID","$SERVICE_ACCOUNT_EMAIL"],"timeout":"5s"},{"name":"x","waitFor":["-"],"script":"true"}],
		"substitutions":{"_X":"hello","_SA":"builder"},"tags":["t"],"timeout":"60s","serviceAccount":"projects/$PROJECT_ID/serviceAccounts/${_SA}@giggle.iam.gserviceaccount.com",
		"options":{"logging":"CLOUD_LOGGING_ONLY","machineType":"E2_HIGHCPU_8"}}`, 200)
	b := op["metadata"].(map[string]any)["build"].(map[string]any)
	id := b["id"].(string)
	steps := b["steps"].([]any)
	if args := fmt.Sprint(steps[0].(map[string]any)["args"]); args != "[hello giggle "+id+
		" builder@giggle.iam.gserviceaccount.com]" {
		t.Errorf("args = %s", args)
	}
	if b["status"] != "QUEUED" || b["logsBucket"] != "gs://logs" || b["timeout"] != "60s" || b["queueTtl"] != "3600s" ||
		b["serviceAccount"] != "projects/giggle/serviceAccounts/builder@giggle.iam.gserviceaccount.com" {
		t.Errorf("%v", b)
	}
	w.Call(t, "POST", "/v1/projects/giggle/builds/"+id+":cancel", "{}", 200)
	again := w.Call(t, "POST", "/v1/projects/giggle/builds/"+id+":retry", "{}",
		200)["metadata"].(map[string]any)["build"].(map[string]any)
	if again["id"] == id || fmt.Sprint(again["steps"].([]any)[0].(map[string]any)["args"].([]any)[2]) != again["id"] {
		t.Errorf("retried as %v", again)
	}
	for filter, want := range map[string]int{"status=QUEUED": 1, `status="CANCELLED" OR status="QUEUED"`: 2,
		"tags=t AND status!=QUEUED": 1, "build_id=" + id: 1, "create_time>2000-01-01T00:00:00Z": 2, "NOT tags:t": 0} {
		got := w.Call(t, "GET", "/v1/projects/giggle/builds?filter="+url.QueryEscape(filter), "", 200)["builds"]
		if list, _ := got.([]any); len(list) != want {
			t.Errorf("%s: %d builds, want %d", filter, len(list), want)
		}
	}
}
