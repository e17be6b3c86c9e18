package cloudbuild_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"giggle/api/cloudbuild"
	"giggle/api/guard/guardtest"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

// repos is one repository with one commit.
type repos struct{}

const head = "1111111111111111111111111111111111111111"

func (repos) Commit(_ context.Context, _, _, branch, _, commit string) (string, error) {
	if branch == "none" {
		return "", fault.New(fault.NotFound, "The repository has no branch none.")
	}
	return head, nil
}

func (repos) File(context.Context, string, string, string, string) ([]byte, error) {
	return []byte("steps: [{name: ubuntu, args: [echo, $BRANCH_NAME, $_X]}]"), nil
}

func (repos) Changed(context.Context, string, string, string, string) ([]string, error) {
	return nil, nil
}
func (repos) Mirror(context.Context, string, string, string, string) error { return nil }
func (repos) Pending(context.Context) ([]trigger.Event, error)             { return nil, nil }
func (repos) Done(context.Context, string) error                           { return nil }

const (
	secretName   = "projects/giggle/secrets/hook/versions/1"
	victimSecret = "projects/victim/secrets/hook/versions/1"
)

func newTriggers(t *testing.T) *world {
	t.Helper()
	w := &world{World: guardtest.New(t)}
	w.builds = builds.New(w.Store, uuid.NewString)
	triggers := &trigger.Triggers{
		Store:  w.Store,
		Builds: w.builds,
		Repos:  repos{},
		Events: repos{},
		Kind:   "git.push",
		NewID:  uuid.NewString,
		Read:   cloudbuild.ReadRequest,
		Log:    slog.New(slog.DiscardHandler),
		Complete: func(_ context.Context, _ string, r *builds.Request) (string, error) {
			r.ProjectNumber, r.LogsIn = w.Project.Number, "logs"
			return iam.BuildAccount(w.Project.Number), nil
		},
	}
	w.triggers = triggers
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- triggers.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.Serve(t, "cloudbuild.googleapis.com", "cloudbuild.googleapis.com", cloudbuild.Rules, func(m *rest.Mux) {
		cloudbuild.New(cloudbuild.Config{
			Builds:     w.builds,
			Operations: operation.New(w.Store),
			Project:    w.Projects.Find,
			Account:    account,
			Pages:      w.Pages,
			Triggers:   triggers,
			ActAs: func(_ context.Context, _ iam.Principal, _ resource.Project, email string) error {
				if email != "builder@giggle.iam.gserviceaccount.com" {
					return fault.New(fault.PermissionDenied,
						"Permission 'iam.serviceaccounts.actAs' denied on service account %s.", email)
				}
				return nil
			},
			LogsBucket: func(context.Context, resource.Project) (string, error) { return "logs", nil },
			Secret: func(name string) ([]byte, error) {
				if name != secretName && name != victimSecret && name != cloudbuild.GitHubSecret("giggle") {
					return nil, fault.New(fault.NotFound, "no secret")
				}
				return []byte("open-sesame"), nil
			},
		}).Register(m)
	})
	return w
}

const (
	triggersPath = "/v1/projects/giggle/locations/global/triggers"
	onMain       = `{"name":"on-main","filename":"c.yaml","triggerTemplate":{"repoName":"app","branchName":"^main$"},"substitutions":{"_X":"y"}}`
)

func TestTriggers(t *testing.T) {
	w := newTriggers(t)
	made := w.Call(t, "POST", triggersPath, onMain, 200)
	id, _ := made["id"].(string)
	if id == "" || made["resourceName"] != "projects/giggle/locations/global/triggers/"+id ||
		made["createTime"] == nil {
		t.Errorf("made %v", made)
	}
	w.Call(t, "POST", "/v1/projects/giggle/triggers", strings.Replace(onMain, "on-main", "old-form", 1), 200)
	w.Call(t, "POST", "/v1/projects/giggle/locations/europe-north1/triggers", onMain, 200)
	w.Call(t, "POST", "/v1/projects/giggle/locations/moon/triggers", onMain, 404)
	w.Call(t, "POST", triggersPath, onMain, 409)
	for name, body := range map[string]string{
		"pubsub":      `{"name":"p","filename":"c","pubsubConfig":{"topic":"t"}}`,
		"second gen":  `{"name":"p","filename":"c","repositoryEventConfig":{"repository":"r"}}`,
		"CEL filters": `{"name":"p","filename":"c","filter":"true"}`,
	} {
		if got := w.Call(t, "POST", triggersPath, body, 405); got["error"] == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	// An account needs actAs: the trigger's, and that of an inline build.
	for _, email := range []string{"builder@giggle.iam.gserviceaccount.com", "admin@giggle.iam.gserviceaccount.com"} {
		status := map[bool]int{true: 200, false: 403}[strings.HasPrefix(email, "builder")]
		name := "as-" + strings.SplitN(email, "@", 2)[0]
		w.Call(t, "POST", triggersPath,
			`{"name":"`+name+`","filename":"c","serviceAccount":"projects/giggle/serviceAccounts/`+email+`"}`, status)
		w.Call(t, "POST", triggersPath,
			`{"name":"`+name+`-inline","build":{"steps":[{"name":"ubuntu"}],"serviceAccount":"projects/giggle/serviceAccounts/`+email+`"}}`, status)
	}
	w.Call(t, "POST", triggersPath,
		`{"name":"sneaky","build":{"steps":[{"name":"ubuntu"}],"serviceAccount":"projects/giggle/serviceAccounts/$_A"},"substitutions":{"_A":"admin@giggle.iam.gserviceaccount.com"}}`, 400)

	list := w.Call(t, "GET", triggersPath+"?pageSize=3", "", 200)
	more := w.Call(t, "GET", triggersPath+"?pageSize=3&pageToken="+list["nextPageToken"].(string), "", 200)
	if a, b := len(guardtest.Names(list, "triggers", "name")), len(guardtest.Names(more, "triggers", "name")); a != 3 ||
		b != 1 {
		t.Errorf("pages of %d and %d", a, b)
	}
	// By id and by name; changed by a mask and as a whole.
	if got := w.Call(t, "GET", triggersPath+"/on-main", "", 200); got["id"] != id {
		t.Errorf("by name: %v", got)
	}
	got := w.Call(t, "PATCH", triggersPath+"/"+id+"?updateMask=disabled", `{"disabled":true}`, 200)
	if got["disabled"] != true || got["filename"] != "c.yaml" {
		t.Errorf("patched: %v", got)
	}
	got = w.Call(t, "PATCH", "/v1/projects/giggle/triggers/on-main", onMain, 200)
	if got["disabled"] == true || got["id"] != id {
		t.Errorf("replaced: %v", got)
	}
	w.Call(t, "PATCH", triggersPath+"/on-main?updateMask=serviceAccount",
		`{"serviceAccount":"admin@giggle.iam.gserviceaccount.com"}`, 403)
	for _, c := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", ":run"}} {
		w.CallAs(t, w.Stranger, c[0], triggersPath+"/on-main"+c[1], "{}", 403)
	}

	op := w.Call(t, "POST", triggersPath+"/on-main:run", `{"triggerId":"on-main","source":{"branchName":"dev"}}`, 200)
	b := op["metadata"].(map[string]any)["build"].(map[string]any)
	want := fmt.Sprint(map[string]any{"projectId": "giggle", "repoName": "app", "commitSha": head})
	if got := fmt.Sprint(b["sourceProvenance"].(map[string]any)["resolvedRepoSource"]); got != want {
		t.Errorf("provenance %s, want %s", got, want)
	}
	if args := fmt.Sprint(b["steps"].([]any)[0].(map[string]any)["args"]); b["buildTriggerId"] != id ||
		args != "[echo dev y]" {
		t.Errorf("built %v", b)
	}
	w.Call(t, "POST", triggersPath+"/on-main:run", `{"source":{"branchName":"none"}}`, 404)
	if found := w.Call(t, "GET", "/v1/projects/giggle/builds?filter=trigger_id%3D%22"+id+"%22", "",
		200); len(found["builds"].([]any)) != 1 {
		t.Errorf("builds of the trigger: %v", found)
	}
	w.Call(t, "DELETE", triggersPath+"/on-main", "", 200)
	w.Call(t, "GET", triggersPath+"/on-main", "", 404)
}

func TestWebhook(t *testing.T) {
	w := newTriggers(t)
	w.Call(t, "POST", triggersPath,
		`{"name":"hook","webhookConfig":{"secret":"`+secretName+
			`"},"build":{"steps":[{"name":"ubuntu","args":["$_W"]}]},"substitutions":{"_W":"$(body.who)"}}`, 200)
	w.Call(t, "POST", triggersPath,
		`{"name":"lost","webhookConfig":{"secret":"projects/giggle/secrets/none/versions/1"},"build":{"steps":[{"name":"ubuntu"}]}}`, 200)
	w.Call(t, "POST", triggersPath, onMain, 200)
	for path, status := range map[string]int{
		"hook:webhook?key=k&secret=wrong":                      403,
		"hook:webhook":                                         403,
		"hook:webhook?secret=":                                 403,
		"lost:webhook?secret=open-sesame":                      403,
		"on-main:webhook?secret=open-sesame":                   403,
		"none:webhook?secret=open-sesame":                      403,
		"hook:webhook?key=k&secret=open-sesame":                200,
		"hook:webhook?key=k&secret=open-sesame&secret=another": 400,
	} {
		w.CallAs(t, "", "POST", triggersPath+"/"+path, `{"who":"me"}`, status)
	}
	all := w.Call(t, "GET", "/v1/projects/giggle/builds", "", 200)["builds"].([]any)
	if len(all) != 1 || fmt.Sprint(all[0].(map[string]any)["steps"].([]any)[0].(map[string]any)["args"]) != "[me]" {
		t.Errorf("built %v", all)
	}
}

// A trigger's secret is of its own project, by id or by number: another project's, which the platform could read, must
// not be tried out by a trigger.
func TestWebhookSecretIsOfItsProject(t *testing.T) {
	w := newTriggers(t)
	body := func(title, secret string) string {
		return `{"name":"` + title + `","webhookConfig":{"secret":"` + secret +
			`"},"build":{"steps":[{"name":"ubuntu"}]}}`
	}
	w.Call(t, "POST", triggersPath, body("own", secretName), 200)
	w.Call(t, "POST", triggersPath, onMain, 200)
	for secret, status := range map[string]int{
		strings.Replace(secretName, "/giggle/", "/"+w.Project.Number+"/", 1): 200,
		"projects/victim/secrets/hook/versions/1":                            403,
		"projects/999999999999/secrets/hook/versions/latest":                 403,
		"projects/-/secrets/hook/versions/1":                                 403,
		"projects/giggle/../victim/secrets/hook/versions/1":                  400,
		"projects/giggle/secrets/../../victim/hook/versions/1":               400,
		"hook": 400,
		"":     400,
	} {
		title := map[bool]string{true: "by-number", false: "foreign"}[status == 200]
		w.Call(t, "POST", triggersPath, body(title, secret), status)
		w.Call(t, "PATCH", triggersPath+"/own", body("own", secret), status)
		w.Call(t, "PATCH", triggersPath+"/own?updateMask=webhookConfig", `{"webhookConfig":{"secret":"`+secret+`"}}`,
			status)
	}
	w.CallAs(t, "", "POST", triggersPath+"/by-number:webhook?key=k&secret=open-sesame", `{}`, 200)
	// One that was set before it was checked is not used.
	in := resource.Location{Project: "giggle", Location: "global"}
	for title, secret := range map[string]string{"old-foreign": victimSecret, "old-own": secretName} {
		if _, err := w.triggers.Create(t.Context(), in, trigger.Trigger{
			Title:   title,
			Inline:  []byte(`{"steps":[{"name":"ubuntu"}]}`),
			Webhook: &trigger.Webhook{Secret: secret},
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.CallAs(t, "", "POST", triggersPath+"/old-foreign:webhook?key=k&secret=open-sesame", `{}`, 403)
	w.CallAs(t, "", "POST", triggersPath+"/old-own:webhook?key=k&secret=open-sesame", `{}`, 200)
}

func TestGitHub(t *testing.T) {
	w := newTriggers(t)
	w.Call(t, "POST", triggersPath,
		`{"name":"gh","filename":"c.yaml","github":{"owner":"me","name":"app","push":{"branch":"^main$"}}}`, 200)
	const path = "/v1/projects/giggle/githubWebhook"
	const body = `{"ref":"refs/heads/main","after":"` + head + `","repository":{"name":"app","owner":{"login":"me"}}}`
	mac := hmac.New(sha256.New, []byte("open-sesame"))
	mac.Write([]byte(body))
	good := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	send := func(signature, body, id string, status int) {
		t.Helper()
		w.CallAs(t, "", "POST", path, body, status, "X-Hub-Signature-256", signature, "X-GitHub-Event", "push",
			"X-GitHub-Delivery", id)
	}
	send("", body, "delivery-1", 401)
	send("sha256="+strings.Repeat("0", 64), body, "delivery-1", 401)
	send(good, body+" ", "delivery-1", 401)
	w.CallAs(t, "", "POST", "/v1/projects/none-such/githubWebhook", body, 401, "X-Hub-Signature-256", good,
		"X-GitHub-Event", "push", "X-GitHub-Delivery", "delivery-1")
	send(good, body, "../x", 400)
	for range 3 {
		send(good, body, "delivery-1", 200)
	}
	send(good, body, "delivery-2", 200)
	list := func() int {
		all, _ := w.Call(t, "GET", "/v1/projects/giggle/builds", "", 200)["builds"].([]any)
		return len(all)
	}
	for i := 0; list() < 2; i++ {
		if i > 20_000 {
			t.Fatalf("%d builds, want 2", list())
		}
	}
	if n := list(); n != 2 {
		t.Errorf("%d builds, want 2: one of each delivery", n)
	}
}
