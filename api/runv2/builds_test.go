package runv2_test

import (
	"context"
	"strings"
	"testing"

	"giggle/api/cloudbuild"
	"giggle/api/guard"
	"giggle/api/guard/guardtest"
	"giggle/api/runv2"
	"giggle/builds"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

type world struct {
	*guardtest.World
	builds *builds.Builds
}

func account(p resource.Project) string { return iam.BuildAccount(p.Number) }

// actAs lets everybody act as one account only.
func actAs(_ context.Context, _ iam.Principal, _ resource.Project, email string) error {
	if email != "builder@giggle.iam.gserviceaccount.com" {
		return fault.New(fault.PermissionDenied, "Permission 'iam.serviceaccounts.actAs' denied on service account %s.",
			email)
	}
	return nil
}

// newWorld serves builds:submit, and Cloud Build's API beside it: there gcloud polls what it submitted.
func newWorld(t *testing.T) *world {
	w := &world{World: guardtest.New(t)}
	w.builds = builds.New(w.Store, func() string { return "00000000-0000-0000-0000-000000000001" })
	rules := guard.Rules{}
	for _, some := range []guard.Rules{runv2.Rules, cloudbuild.Rules} {
		for rpc, rule := range some {
			rules[rpc] = rule
		}
	}
	w.Serve(t, "run.googleapis.com", "run.googleapis.com", rules, func(m *rest.Mux) {
		runv2.NewBuilds(runv2.BuildsConfig{
			Builds:  w.builds,
			Project: w.Projects.Find,
			Account: account,
			ActAs:   actAs,
			LogsBucket: func(_ context.Context, p resource.Project) (string, error) {
				return p.Number + ".cloudbuild-logs", nil
			},
		}).Register(m)
		cloudbuild.New(cloudbuild.Config{
			Builds:     w.builds,
			Operations: operation.New(w.Store),
			Project:    w.Projects.Find,
			Account:    account,
			Pages:      w.Pages,
		}).Register(m)
	})
	return w
}

const (
	parent = "/v2/projects/giggle/locations/europe-north1"
	source = `"storageSource":{"bucket":"run-sources","object":"services/jokes/1.zip","generation":"7"}`
	image  = `"imageUri":"europe-north1-docker.pkg.dev/giggle/cloud-run-source-deploy/jokes"`
	packs  = `"buildpackBuild":{}`
)

func body(parts ...string) string { return "{" + strings.Join(parts, ",") + "}" }

// As `gcloud run deploy --source` goes (reference: gcloud 528): submit, then poll Cloud Build by the build's id.
func TestSubmitBuild(t *testing.T) {
	w := newWorld(t)
	out := w.Call(t, "POST", parent+"/builds:submit?alt=json", body(source, image, `"tags":["service_jokes"]`,
		`"buildpackBuild":{"baseImage":"gcr.io/buildpacks/google-22/run","environmentVariables":{"GOOGLE_BUILDABLE":"./cmd"},"enableAutomaticUpdates":false}`,
		`"serviceAccount":"projects/giggle/serviceAccounts/`+iam.BuildAccount(w.Project.Number)+`"`,
		`"client":"gcloud"`), 200)
	op, _ := out["buildOperation"].(map[string]any)
	meta, _ := op["metadata"].(map[string]any)
	made, _ := meta["build"].(map[string]any)
	if meta["@type"] != "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata" ||
		made["projectId"] != "giggle" || made["logUrl"] == "" {
		t.Errorf("answered: %v", out)
	}
	name, _ := made["name"].(string)
	id, _ := made["id"].(string)
	location := strings.Split(name, "/")[3]
	polled := w.Call(t, "GET", "/v1/projects/giggle/locations/"+location+"/operations/"+id, "", 200)
	if polled["name"] != op["name"] || polled["done"] == true {
		t.Errorf("polled: %v", polled)
	}
	b, err := w.builds.Get(t.Context(), resource.Build("giggle", "europe-north1", id))
	if err != nil {
		t.Fatal(err)
	}
	if b.Source != (builds.Source{Bucket: "run-sources", Object: "services/jokes/1.zip", Generation: 7}) ||
		b.Spec.Steps[0].Builtin != builds.Buildpack || b.Spec.Steps[0].Variables()["GOOGLE_BUILDABLE"] != "./cmd" ||
		b.Account != iam.BuildAccount(w.Project.Number) || b.Creator != "you@giggle.test" ||
		b.LogsIn != w.Project.Number+".cloudbuild-logs" || len(b.Tags) != 1 {
		t.Errorf("queued: %+v", b)
	}
}

func TestDockerBuild(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", "/v2/projects/"+w.Project.Number+"/locations/europe-north1/builds:submit",
		body(source, image, `"dockerBuild":{}`), 200)
	all, err := w.builds.List(t.Context(), resource.Location{Project: "giggle", Location: "europe-north1"})
	if err != nil || len(all) != 1 || all[0].Spec.Steps[0].Builtin != builds.Dockerfile {
		t.Errorf("queued: %+v, %v", all, err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	const with = `"buildpackBuild":`
	for _, tt := range []struct {
		name, path, body string
		status           int
		field            string
	}{
		{"worker pool", parent, body(source, image, packs,
			`"workerPool":"projects/giggle/locations/europe-north1/workerPools/x"`), 405, "workerPool"},
		{"machine type", parent, body(source, image, packs, `"machineType":"E2_HIGHCPU_8"`), 405, "machineType"},
		{"another account", parent, body(source, image, packs,
			`"serviceAccount":"projects/giggle/serviceAccounts/x@giggle.iam.gserviceaccount.com"`), 403, ""},
		{"function", parent, body(source, image,
			with+`{"functionTarget":"Hello"}`), 405, "buildpackBuild.functionTarget"},
		{"automatic updates", parent, body(source, image,
			with+`{"enableAutomaticUpdates":true}`), 405, "buildpackBuild.enableAutomaticUpdates"},
		{"project descriptor", parent, body(source, image,
			with+`{"projectDescriptor":"project.toml"}`), 405, "buildpackBuild.projectDescriptor"},
		{"another base image", parent, body(source, image,
			with+`{"baseImage":"ubuntu"}`), 405, "buildpackBuild.baseImage"},
		{"cache image", parent, body(source, image,
			with+`{"cacheImageUri":"a/b"}`), 405, "buildpackBuild.cacheImageUri"},
		{"no build type", parent, body(source, image), 400, "buildType"},
		{"no source", parent, body(image, packs), 400, "storageSource"},
		{"no object", parent, body(`"storageSource":{"bucket":"b"}`, image, packs), 400, "storageSource"},
		{"no image", parent, body(source, packs), 400, "imageUri"},
		{"image by digest", parent, body(source, `"imageUri":"a/b@sha256:00"`, packs), 400, "imageUri"},
		{"not JSON", parent, "{", 400, ""},
		{"no such region", "/v2/projects/giggle/locations/atlantis1", body(source, image, packs), 404, ""},
		{"bad location", "/v2/projects/giggle/locations/a%20b", body(source, image, packs), 400, ""},
		{"unknown project", "/v2/projects/nowhere/locations/europe-north1", body(source, image, packs), 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := w.Call(t, "POST", tt.path+"/builds:submit", tt.body, tt.status)
			if got := guardtest.Field(out); tt.field != "" && got != tt.field {
				t.Errorf("field = %q, want %q: %v", got, tt.field, out)
			}
		})
	}
	w.CallAs(t, w.Stranger, "POST", parent+"/builds:submit", body(source, image, packs), 403)
	w.CallAs(t, "", "POST", parent+"/builds:submit", body(source, image, packs), 401)
	if all, err := w.builds.List(t.Context(), resource.Location{Project: "giggle", Location: "-"}); err != nil ||
		len(all) != 0 {
		t.Errorf("a refused build was queued: %v, %v", all, err)
	}
}

// A build runs as the account that the caller may act as.
func TestAccount(t *testing.T) {
	w := newWorld(t)
	const email = "builder@giggle.iam.gserviceaccount.com"
	w.Call(t, "POST", parent+"/builds:submit",
		body(source, image, packs, `"serviceAccount":"projects/giggle/serviceAccounts/`+email+`"`), 200)
	all, err := w.builds.List(t.Context(), resource.Location{Project: "giggle", Location: "-"})
	if err != nil || len(all) != 1 || all[0].Account != email {
		t.Errorf("%v, %v", all, err)
	}
}
