package runv1_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"giggle/api/runv1"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
	"giggle/store"
)

// world is the API over a real store and reconciler; images and containers are fakes that always work.
type world struct {
	server   *httptest.Server
	services *run.Services
	store    *store.Store
	denied   string // service account that nobody may act as
}

func (w *world) Resolve(_ context.Context, _, ref string) (string, error) {
	name, _, _ := strings.Cut(ref, ":")
	return name + "@sha256:" + strings.Repeat("0", 64), nil
}
func (w *world) EnsureInstance(context.Context, run.Revision) error { return nil }
func (w *world) Drop(resource.Revision)                             {}
func (w *world) Publish(run.Route)                                  {}
func (w *world) Remove(resource.Child)                              {}

func (w *world) CheckActAs(_ context.Context, _ iam.Principal, _ resource.Project, email string) error {
	if email != "" && email == w.denied {
		return fault.New(fault.PermissionDenied,
			"Permission 'iam.serviceaccounts.actAs' denied on service account %s (or it may not exist).", email)
	}
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := iam.New(t.Context(), iam.Config{
		Store: st, Owner: "you@giggle.test", Now: time.Now,
		Governed: []iam.Governed{{Collection: "services", Kind: run.ServiceKind}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	w := &world{
		store: st,
		services: run.NewServices(run.Config{
			Store:          st,
			NewID:          func() string { n++; return fmt.Sprintf("uid-%d", n) },
			Letters:        func(k int) string { return strings.Repeat("x", k) },
			DefaultAccount: computeAccount,
		}),
	}
	project := func(ref string) (resource.Project, error) {
		if ref != "giggle" && ref != "123456789012" {
			return resource.Project{}, fault.New(fault.NotFound, "Project %q was not found.", ref)
		}
		return resource.Project{ID: "giggle", Number: "123456789012"}, nil
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run.NewReconciler(run.ReconcilerConfig{
			Services:  w.services,
			Images:    w,
			Instances: w,
			Routes:    w,
			Project:   project,
			Log:       log,
		}).Run(ctx)
	}()
	m := rest.NewMux("run.googleapis.com", rest.Options{Log: log, NewID: func() string { return "request-1" }})
	runv1.New(runv1.Config{
		Services:   w.services,
		Operations: operation.New(st),
		Project:    project,
		ActAs:      w.CheckActAs,
		Policies:   ids,
		Pages:      resource.NewPages(ids.PageKey(), time.Now),
	}).Register(m)
	if err := m.Build(); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewServer(m)
	t.Cleanup(func() {
		w.server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = st.Close()
	})
	return w
}

// do sends a request to a host and returns the status and the decoded body.
func (w *world) do(t *testing.T, method, host, path, body string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s %s = %d %s", method, path, res.StatusCode, b)
	}
	return res.StatusCode, out
}

const (
	regional = "europe-north1-run.googleapis.com"
	global   = "run.googleapis.com"
	services = "/apis/serving.knative.dev/v1/namespaces/giggle/services"
)

// asGcloud is what gcloud 528 sends for a new service.
func asGcloud(name, more string) string {
	return `{"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"` + name +
		`","namespace":"giggle","labels":{},"annotations":{"run.googleapis.com/client-name":"gcloud","run.googleapis.com/client-version":"528.0.0"}},
"spec":{"template":{"metadata":{"annotations":{"run.googleapis.com/client-name":"gcloud","run.googleapis.com/client-version":"528.0.0","run.googleapis.com/startup-cpu-boost":"True"},"labels":{"client.knative.dev/nonce":"abcdefghij"}},
"spec":{"containers":[{"image":"europe-north1-docker.pkg.dev/giggle/r/app:1","name":""` + more +
		`}],"nodeSelector":{}}}},"status":{"address":{}}}`
}

func at(v any, path string) any {
	for _, p := range strings.Split(path, "/") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// settled returns the service once its last change has ended, or as it is after a minute.
func settled(t *testing.T, s *run.Services, name resource.Child) run.Service {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, cursor, err := s.List(ctx, name.Location, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	next, stop := s.Events(ctx, name.Location, cursor)
	defer stop()
	for {
		svc, err := s.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if svc.Settled() {
			return svc
		}
		if _, err := next(); err != nil {
			return svc
		}
	}
}

func (w *world) ready(t *testing.T, name string) map[string]any {
	t.Helper()
	settled(t, w.services, resource.Service("giggle", "europe-north1", name))
	code, svc := w.do(t, "GET", regional, services+"/"+name, "")
	if code != 200 {
		t.Fatalf("get = %d %v", code, svc)
	}
	return svc
}

// What other products do is no operation of Cloud Run: it is neither shown nor waited for.
func TestOperationsOfOthers(t *testing.T) {
	w := newWorld(t)
	const at = "/v1/projects/giggle/locations/europe-north1/operations"
	err := w.store.Update(t.Context(), func(tx *store.Tx) error {
		for id, kind := range map[string]string{"a-build": "build", "b-repository": "artifacts.repository",
			"c-service": run.OperationKind} {
			op := operation.Operation{
				Name:   "projects/giggle/locations/europe-north1/operations/" + id,
				Kind:   kind,
				Done:   true,
				Target: "projects/giggle/locations/europe-north1/services/x",
			}
			if err := operation.Open(tx, op); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]int{"a-build": 404, "b-repository": 404, "none": 404, "c-service": 200} {
		if code, out := w.do(t, "GET", regional, at+"/"+id, ""); code != want {
			t.Errorf("get %s = %d, %v", id, code, out)
		}
		if code, out := w.do(t, "POST", regional, at+"/"+id+":wait", `{"timeout":"30s"}`); code != want {
			t.Errorf("wait for %s = %d, %v", id, code, out)
		}
	}
	code, out := w.do(t, "GET", regional, at+"?pageSize=1", "")
	if all, _ := out["operations"].([]any); code != 200 || len(all) != 1 || out["nextPageToken"] != "" {
		t.Errorf("the list = %d, %v", code, out)
	}
}

func TestGcloudsRoundTrip(t *testing.T) {
	w := newWorld(t)
	code, made := w.do(t, "POST", regional, services, asGcloud("jokes", ""))
	if code != 200 || at(made, "metadata/annotations/run.googleapis.com~1operation-id") != nil {
		t.Fatalf("create = %d %v", code, made)
	}
	op, _ := made["metadata"].(map[string]any)["annotations"].(map[string]any)["run.googleapis.com/operation-id"].(string)
	code, waited := w.do(t, "POST", regional, "/v1/projects/giggle/locations/europe-north1/operations/"+op+":wait",
		`{"timeout":"30s"}`)
	if code != 200 || waited["done"] != true || at(waited, "response/status/conditions/0/status") != "True" {
		t.Fatalf("wait = %d %v", code, waited)
	}
	svc := w.ready(t, "jokes")
	for path, want := range map[string]any{
		"metadata/namespace": "123456789012", "metadata/labels/cloud.googleapis.com/location": nil,
		"status/observedGeneration": 1.0, "metadata/generation": 1.0,
		"status/latestReadyRevisionName": "jokes-00001-xxx", "status/traffic/0/revisionName": "jokes-00001-xxx",
		"status/traffic/0/percent":        100.0,
		"status/traffic/0/latestRevision": true, "spec/traffic/0/latestRevision": true,
		"status/conditions/0/type": "Ready", "status/conditions/0/status": "True",
	} {
		if got := at(svc, path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	annotations := svc["metadata"].(map[string]any)["annotations"].(map[string]any)
	if annotations["run.googleapis.com/ingress"] != "all" ||
		!strings.HasPrefix(annotations["run.googleapis.com/urls"].(string),
			`["https://jokes-123456789012.europe-north1.run.app"`) {
		t.Errorf("annotations = %v", annotations)
	}

	// gcloud writes the whole object back, as it was read: no new revision, no new generation.
	body, _ := json.Marshal(svc)
	code, again := w.do(t, "PUT", regional, services+"/jokes", string(body))
	if code != 200 || at(again, "status/latestCreatedRevisionName") != "jokes-00001-xxx" ||
		at(again, "metadata/generation") != 1.0 {
		t.Fatalf("put unchanged = %d %v", code, again)
	}
	// The version that it was read at is used up now.
	if code, status := w.do(t, "PUT", regional, services+"/jokes", string(body)); code != 409 ||
		status["reason"] != "Conflict" {
		t.Errorf("put with an old resourceVersion = %d %v", code, status)
	}
	// A tag on a revision of the client's name: the tagged entry is first in status, the spec's order stays.
	svc = w.ready(t, "jokes")
	spec := svc["spec"].(map[string]any)
	spec["traffic"] = []any{map[string]any{"latestRevision": true, "percent": 100},
		map[string]any{"revisionName": "jokes-00002-abc", "tag": "good"}}
	template := spec["template"].(map[string]any)
	template["metadata"].(map[string]any)["name"] = "jokes-00002-abc"
	template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["env"] = []any{map[string]any{"name": "A", "value": "b"}}
	svc["metadata"].(map[string]any)["annotations"].(map[string]any)["example.com/mine"] = "kept"
	body, _ = json.Marshal(svc)
	if code, out := w.do(t, "PUT", regional, services+"/jokes", string(body)); code != 200 {
		t.Fatalf("put with a tag = %d %v", code, out)
	}
	svc = w.ready(t, "jokes")
	if at(svc, "status/traffic/0/tag") != "good" ||
		!strings.HasPrefix(at(svc, "status/traffic/0/url").(string), "https://good---jokes-") ||
		at(svc, "spec/traffic/1/tag") != "good" {
		t.Errorf("traffic = %v", at(svc, "status/traffic"))
	}
	if svc["metadata"].(map[string]any)["annotations"].(map[string]any)["example.com/mine"] != "kept" {
		t.Error("a foreign annotation was lost")
	}
	_, rev := w.do(t, "GET", regional, "/apis/serving.knative.dev/v1/namespaces/giggle/revisions/jokes-00002-abc", "")
	if at(rev, "status/imageDigest") != "europe-north1-docker.pkg.dev/giggle/r/app@sha256:"+strings.Repeat("0", 64) ||
		at(rev, "spec/containers/0/resources/limits/memory") != "512Mi" {
		t.Errorf("revision = %v", rev)
	}
}

// Annotations that spell a default out stay as they were written, for clients that look for them, until something else
// counts.
func TestSpelledDefaults(t *testing.T) {
	w := newWorld(t)
	of := map[string]map[string]any{
		"metadata": {"run.googleapis.com/minScale": "0", "run.googleapis.com/invoker-iam-disabled": "false"},
		"spec/template/metadata": {
			"autoscaling.knative.dev/minScale": "0", "run.googleapis.com/cpu-throttling": "true",
			"run.googleapis.com/startup-cpu-boost": "false",
		},
	}
	change := func(svc map[string]any) (int, map[string]any) {
		for path, values := range of {
			maps.Copy(at(svc, path+"/annotations").(map[string]any), values)
		}
		body, err := json.Marshal(svc)
		if err != nil {
			t.Fatal(err)
		}
		if svc["status"].(map[string]any)["conditions"] == nil {
			return w.do(t, "POST", regional, services, string(body))
		}
		return w.do(t, "PUT", regional, services+"/jokes", string(body))
	}
	check := func(svc map[string]any) {
		t.Helper()
		for path, values := range of {
			got := at(svc, path+"/annotations").(map[string]any)
			for key, want := range values {
				if got[key] != want {
					t.Errorf("%s: %s = %v, want %v", path, key, got[key], want)
				}
			}
		}
	}
	var svc map[string]any
	if err := json.Unmarshal([]byte(asGcloud("jokes", "")), &svc); err != nil {
		t.Fatal(err)
	}
	if code, out := change(svc); code != 200 {
		t.Fatalf("create = %d %v", code, out)
	}
	svc = w.ready(t, "jokes")
	check(svc)
	of["spec/template/metadata"] = map[string]any{
		"autoscaling.knative.dev/minScale": "2", "run.googleapis.com/cpu-throttling": "false",
		"run.googleapis.com/startup-cpu-boost": "true",
	}
	if code, out := change(svc); code != 200 {
		t.Fatalf("change = %d %v", code, out)
	}
	check(w.ready(t, "jokes"))
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		if code, out := w.do(t, "POST", regional, services, asGcloud(fmt.Sprint("s", i), "")); code != 200 {
			t.Fatalf("create = %d %v", code, out)
		}
		w.ready(t, fmt.Sprint("s", i))
	}
	_, page := w.do(t, "GET", regional, services+"?limit=2", "")
	var names []string
	for {
		for _, x := range page["items"].([]any) {
			names = append(names, at(x, "metadata/name").(string))
		}
		next, _ := at(page, "metadata/continue").(string)
		if next == "" {
			break
		}
		_, page = w.do(t, "GET", regional, services+"?limit=2&continue="+next, "")
	}
	if fmt.Sprint(names) != "[s0 s1 s2 s3 s4]" {
		t.Errorf("pages = %v", names)
	}
	_, all := w.do(t, "GET", global, "/v1/projects/giggle/locations/-/services", "")
	if n := len(all["items"].([]any)); n != 5 || all["kind"] != "ServiceList" {
		t.Errorf("%d services in all locations of %v", n, all["kind"])
	}
	_, revs := w.do(t, "GET", regional,
		"/apis/serving.knative.dev/v1/namespaces/giggle/revisions?labelSelector=serving.knative.dev%2Fservice+%3D+s3",
		"")
	if items := revs["items"].([]any); len(items) != 1 || at(items[0], "metadata/name") != "s3-00001-xxx" {
		t.Errorf("revisions of s3 = %v", revs)
	}
	_, byNonce := w.do(t, "GET", regional,
		"/apis/serving.knative.dev/v1/namespaces/giggle/revisions?labelSelector=client.knative.dev%2Fnonce+%3D+abcdefghij", "")
	if n := len(byNonce["items"].([]any)); n != 5 {
		t.Errorf("%d revisions with the nonce, want 5", n)
	}
	for _, kind := range []string{"configurations", "routes"} {
		code, one := w.do(t, "GET", regional, "/apis/serving.knative.dev/v1/namespaces/giggle/"+kind+"/s1", "")
		if code != 200 || at(one, "status/conditions/0/type") != "Ready" ||
			at(one, "status/conditions/0/status") != "True" {
			t.Errorf("%s/s1 = %d %v", kind, code, one)
		}
	}
	if code, out := w.do(t, "DELETE", regional, services+"/s0", ""); code != 200 || out["status"] != "Success" {
		t.Errorf("delete = %d %v", code, out)
	}
	if code, status := w.do(t, "GET", regional, services+"/s0", ""); code != 404 || status["kind"] != "Status" ||
		status["reason"] != "NotFound" {
		t.Errorf("get of what was deleted = %d %v", code, status)
	}
}

// What is wrong or not implemented is refused with its path, and changes nothing.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.denied = "nobody@giggle.iam.gserviceaccount.com"
	put := func(old, with string) string { return strings.Replace(asGcloud("jokes", ""), old, with, 1) }
	for name, tt := range map[string]struct {
		body  string
		code  int
		field string
	}{
		"unknown field": {asGcloud("jokes", `,"imagee":"x"`), 400, "spec.template.spec.containers[0].imagee"},
		"not implemented field": {asGcloud("jokes",
			`,"volumeMounts":[{"name":"x"}]`), 405, "spec.template.spec.containers[0].volumeMounts"},
		"secret": {asGcloud("jokes",
			`,"env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"x"}}}]`), 405,
			"spec.template.spec.containers[0].env[0].valueFrom"},
		"gpu": {asGcloud("jokes",
			`,"resources":{"limits":{"nvidia.com/gpu":"many"}}`), 400,
			"spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]"},
		"refused annotation": {put(`"run.googleapis.com/client-name":"gcloud"`,
			`"run.googleapis.com/binary-authorization":"default"`), 405,
			"metadata.annotations[run.googleapis.com/binary-authorization]"},
		"unknown annotation": {put(`"run.googleapis.com/client-name":"gcloud"`,
			`"run.googleapis.com/made-up":"x"`), 400, "metadata.annotations[run.googleapis.com/made-up]"},
		"connector": {put(`"run.googleapis.com/startup-cpu-boost":"True"`,
			`"run.googleapis.com/vpc-access-connector":"c"`), 405,
			"spec.template.metadata.annotations[run.googleapis.com/vpc-access-connector]"},
		"vpc egress": {put(`"run.googleapis.com/startup-cpu-boost":"True"`,
			`"run.googleapis.com/vpc-access-egress":"some"`), 400,
			"spec.template.metadata.annotations[run.googleapis.com/vpc-access-egress]"},
		"interfaces": {put(`"run.googleapis.com/startup-cpu-boost":"True"`,
			`"run.googleapis.com/network-interfaces":"none"`), 400,
			"spec.template.metadata.annotations[run.googleapis.com/network-interfaces]"},
		"ingress": {put(`"run.googleapis.com/client-name":"gcloud"`,
			`"run.googleapis.com/ingress":"sideways"`), 400, "metadata.annotations[run.googleapis.com/ingress]"},
		"memory": {asGcloud("jokes",
			`,"resources":{"limits":{"memory":"1Mi"}}`), 400,
			"spec.template.spec.containers[0].resources.limits.memory"},
		"reserved variable": {asGcloud("jokes",
			`,"env":[{"name":"K_SERVICE","value":"x"}]`), 400, "spec.template.spec.containers[0].env[0].name"},
		"another namespace":       {put(`"namespace":"giggle"`, `"namespace":"other"`), 400, "metadata.namespace"},
		"another kind":            {put(`"kind":"Service"`, `"kind":"Job"`), 400, "apiVersion"},
		"name":                    {put(`"name":"jokes"`, `"name":"Jokes"`), 400, "metadata.name"},
		"somebody else's account": {put(`"nodeSelector":{}`, `"serviceAccountName":"`+w.denied+`"`), 403, ""},
		"no json":                 {`{"apiVersion"`, 400, ""},
		"null":                    {`null`, 400, "apiVersion"},
	} {
		code, status := w.do(t, "POST", regional, services, tt.body)
		if code != tt.code || status["kind"] != "Status" || status["status"] != "Failure" || status["message"] == "" {
			t.Errorf("%s = %d %v, want %d", name, code, status, tt.code)
		}
		if got, _ := at(status, "details/causes/0/field").(string); got != tt.field {
			t.Errorf("%s: field %q, want %q", name, got, tt.field)
		}
		if at(status, "error/message") != status["message"] {
			t.Errorf("%s: gcloud would print %v", name, at(status, "error/message"))
		}
	}
	if _, list := w.do(t, "GET", regional, services, ""); len(list["items"].([]any)) != 0 {
		t.Errorf("a refused create left %v", list)
	}
	if code, _ := w.do(t, "GET", global, services, ""); code != 400 {
		t.Errorf("the Knative API without a region = %d", code)
	}
	if code, _ := w.do(t, "GET", "moon-base1-run.googleapis.com", services, ""); code != 400 {
		t.Errorf("an unknown region = %d", code)
	}
	if code, _ := w.do(t, "POST", regional, services+"?dryRun=all", asGcloud("dry", "")); code != 200 {
		t.Errorf("dry run = %d", code)
	}
	if code, _ := w.do(t, "GET", regional, services+"/dry", ""); code != 404 {
		t.Errorf("a dry run made the service: %d", code)
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", w.server.URL+services+"?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = regional
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	w.do(t, "POST", regional, services, asGcloud("jokes", ""))
	in := bufio.NewScanner(res.Body)
	var kinds []string
	for in.Scan() {
		var e struct {
			Type   string
			Object map[string]any
		}
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", in.Bytes(), err)
		}
		kinds = append(kinds, e.Type)
		if e.Type == "DELETED" {
			break
		}
		if at(e.Object, "status/conditions/0/status") == "True" {
			w.do(t, "DELETE", regional, services+"/jokes", "")
		}
	}
	if len(kinds) < 2 || kinds[len(kinds)-1] != "DELETED" {
		t.Errorf("events = %v", kinds)
	}
}

func TestPolicies(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/projects/giggle/locations/europe-north1/services/jokes"
	if code, _ := w.do(t, "GET", global, path+":getIamPolicy", ""); code != 404 {
		t.Errorf("the policy of what is not there = %d", code)
	}
	w.do(t, "POST", regional, services, asGcloud("jokes", ""))
	_, empty := w.do(t, "GET", global, path+":getIamPolicy?options.requestedPolicyVersion=3", "")
	if empty["etag"] == nil || empty["bindings"] != nil {
		t.Errorf("an empty policy = %v", empty)
	}
	code, set := w.do(t, "POST", global, path+":setIamPolicy",
		`{"policy":{"version":1,"etag":"`+empty["etag"].(string)+
			`","bindings":[{"role":"roles/run.invoker","members":["allUsers"]}]}}`)
	if want := []any{map[string]any{"role": "roles/run.invoker", "members": []any{"allUsers"}}}; code != 200 ||
		!cmp.Equal(set["bindings"], any(want)) {
		t.Errorf("set = %d %v", code, set)
	}
	code, stale := w.do(t, "POST", global, path+":setIamPolicy", `{"policy":{"etag":"`+empty["etag"].(string)+`"}}`)
	if code != 409 || at(stale, "error/status") != "ABORTED" {
		t.Errorf("set with an old etag = %d %v", code, stale)
	}
	// By number it is the same policy, and it goes with the service.
	if _, got := w.do(t, "GET", global, strings.Replace(path, "giggle", "123456789012", 1)+":getIamPolicy",
		""); got["bindings"] == nil {
		t.Errorf("by the project's number: %v", got)
	}
	w.do(t, "DELETE", regional, services+"/jokes", "")
	w.do(t, "POST", regional, services, asGcloud("jokes", ""))
	if _, got := w.do(t, "GET", global, path+":getIamPolicy", ""); got["bindings"] != nil {
		t.Errorf("the policy outlived its service: %v", got)
	}
}

func FuzzService(f *testing.F) {
	f.Add(asGcloud("jokes", ""))
	f.Add(asGcloud("jokes", `,"ports":[{"containerPort":"80"}],"startupProbe":{"httpGet":{"path":"/"}}`))
	st, err := store.Open(f.Context(), filepath.Join(f.TempDir(), "db"), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = st.Close() })
	w := &world{}
	m := rest.NewMux("run.googleapis.com", rest.Options{
		Log:   slog.New(slog.DiscardHandler),
		NewID: func() string { return "r" },
	})
	runv1.New(runv1.Config{
		Services: run.NewServices(run.Config{
			Store:   st,
			NewID:   func() string { return "id" },
			Letters: func(int) string { return "abc" },

			DefaultAccount: computeAccount,
		}),
		Operations: operation.New(st),
		ActAs:      w.CheckActAs,
		Project: func(string) (resource.Project, error) {
			return resource.Project{ID: "giggle", Number: "123456789012"}, nil
		},
	}).Register(m)
	if err := m.Build(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "https://"+regional+services+"?dryRun=all", strings.NewReader(body))
		rec := httptest.NewRecorder()
		m.ServeHTTP(rec, r)
		if rec.Code >= 500 {
			t.Errorf("%q = %d %s", body, rec.Code, rec.Body)
		}
	})
}

// computeAccount is the default service account of every project.
func computeAccount(string) (string, error) {
	return "123456789012-compute@developer.gserviceaccount.com", nil
}
