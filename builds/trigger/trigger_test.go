package trigger_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		p           trigger.Pattern
		branch, tag string
		want        bool
	}{
		{trigger.Pattern{Branch: "^main$"}, "main", "", true},
		{trigger.Pattern{Branch: "^main$"}, "mainline", "", false},
		{trigger.Pattern{Branch: "main"}, "mainline", "", true},
		{trigger.Pattern{Branch: ".*"}, "feature/x", "", true},
		{trigger.Pattern{Branch: ".*"}, "", "v1", false},
		{trigger.Pattern{Tag: `^v\d+$`}, "", "v12", true},
		{trigger.Pattern{Tag: `^v\d+$`}, "v12", "", false},
		{trigger.Pattern{Tag: `^v\d+$`}, "", "v1.2", false},
		{trigger.Pattern{Branch: "^main$", Invert: true}, "main", "", false},
		{trigger.Pattern{Branch: "^main$", Invert: true}, "dev", "", true},
		{trigger.Pattern{Branch: "^main$", Invert: true}, "", "v1", false},
		{trigger.Pattern{}, "main", "", false},
		{trigger.Pattern{Branch: "("}, "main", "", false},
	} {
		if got := c.p.Matches(c.branch, c.tag); got != c.want {
			t.Errorf("%+v of branch %q, tag %q = %v", c.p, c.branch, c.tag, got)
		}
	}
}

func TestTouches(t *testing.T) {
	for _, c := range []struct {
		included, ignored, files string
		want                     bool
	}{
		{"", "", "a", true},
		{"", "", "", true},
		{"src/**", "", "src/a/b.go", true},
		{"src/**", "", "srcs/a.go", false},
		{"src/*", "", "src/a/b.go", false},
		{"**/*.go", "", "a.go", true},
		{"**/*.go", "", "x/y/a.go", true},
		{"/a.txt", "", "a.txt", true},
		{"a?.txt", "", "ab.txt", true},
		{"a?.txt", "", "a/.txt", false},
		{"[a-c]x", "", "bx", true},
		{"[!a-c]x", "", "bx", false},
		{"a.b", "", "axb", false},
		{"", "**/*.md", "README.md", false},
		{"", "**/*.md", "README.md a.go", true},
		{"src/**", "**/*.md", "src/README.md", false},
		{"src/**", "**/*.md", "src/README.md docs/x", false},
		{"src/**", "**/*.md", "src/README.md src/x", true},
		{"a b", "", "", false},
	} {
		tr := trigger.Trigger{Included: strings.Fields(c.included), Ignored: strings.Fields(c.ignored)}
		if got := tr.Touches(strings.Fields(c.files)); got != c.want {
			t.Errorf("included %q, ignored %q, changed %q = %v", c.included, c.ignored, c.files, got)
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"**/*.go", "[a-", "[]]", `\`, "[!x]", "a**b", "(", "[[:alpha:]]", `[\d]`} {
		f.Add(s, "a/b.go")
	}
	f.Fuzz(func(t *testing.T, glob, name string) {
		tr := trigger.Trigger{Included: []string{glob}}
		if got := tr.Touches([]string{name}); got && trigger.CheckGlob(glob) != nil {
			t.Errorf("%q is no glob and matches %q", glob, name)
		}
	})
}

func TestSignature(t *testing.T) {
	sign := func(secret, body string) string {
		m := hmac.New(sha256.New, []byte(secret))
		m.Write([]byte(body))
		return hex.EncodeToString(m.Sum(nil))
	}
	const body = `{"ref":"refs/heads/main"}`
	good := sign("s", body)
	for name, c := range map[string]struct {
		secret, header string
		ok             bool
	}{
		"the right one":      {"s", "sha256=" + good, true},
		"upper case":         {"s", "sha256=" + strings.ToUpper(good), true},
		"none":               {"s", "", false},
		"no prefix":          {"s", good, false},
		"sha1":               {"s", "sha1=" + good, false},
		"another secret":     {"t", "sha256=" + good, false},
		"another body":       {"s", "sha256=" + sign("s", body+" "), false},
		"half of it":         {"s", "sha256=" + good[:32], false},
		"more than it":       {"s", "sha256=" + good + "00", false},
		"no hexadecimal":     {"s", "sha256=" + strings.Repeat("z", 64), false},
		"empty":              {"s", "sha256=", false},
		"an empty secret":    {"", "sha256=" + sign("", body), false},
		"two in one":         {"s", "sha256=" + good + ",sha256=" + good, false},
		"a space before it":  {"s", " sha256=" + good, false},
		"the prefix in caps": {"s", "SHA256=" + good, false},
	} {
		err := trigger.CheckSignature([]byte(c.secret), []byte(body), c.header)
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const (
	commit  = "1111111111111111111111111111111111111111"
	another = "2222222222222222222222222222222222222222"
)

func TestParseDelivery(t *testing.T) {
	const repository = `"repository":{"name":"app","owner":{"login":"me"}}`
	for name, c := range map[string]struct {
		event, body, want string // what is understood; "" for nothing, "!" for an error
	}{
		"a push": {"push", `{"ref":"refs/heads/main","after":"` + commit + `",` + repository +
			`,"commits":[{"added":["a"],"modified":["b"],"removed":["c"]}]}`, "me/app main  [a c b] false"},
		"a tag": {"push", `{"ref":"refs/tags/v1","after":"` + commit + `",` + repository +
			`}`, "me/app  v1 [] false"},
		"a deletion": {"push", `{"ref":"refs/heads/main","deleted":true,"after":"0000000000000000000000000000000000000000",` + repository + `}`, ""},
		"a pull request": {"pull_request", `{"action":"opened","number":7,` + repository +
			`,"pull_request":{"head":{"ref":"f","sha":"` + commit + `"},"base":{"ref":"main"}}}`,
			"me/app main  [] true"},
		"one without a number": {"pull_request", `{"action":"opened",` + repository +
			`,"pull_request":{"head":{"sha":"` + commit + `"},"base":{"ref":"main"}}}`, "!"},
		"a ping":        {"ping", `{}`, ""},
		"another event": {"issues", `nonsense`, ""},
		"no JSON":       {"push", `nonsense`, "!"},
		"no repository": {"push", `{"ref":"refs/heads/main","after":"` + commit + `"}`, "!"},
		"an owner with a path": {"push", `{"ref":"refs/heads/main","after":"` + commit +
			`","repository":{"name":"app","owner":{"login":"../me"}}}`, "!"},
		"no commit": {"push", `{"ref":"refs/heads/main","after":"--upload-pack=x",` + repository + `}`, "!"},
		"no branch": {"push", `{"ref":"refs/notes/x","after":"` + commit + `",` + repository + `}`, "!"},
	} {
		d, ok, err := trigger.ParseDelivery("giggle", c.event, "72d3162e-cc78-11e3-81ab-4c9367dc0958", []byte(c.body))
		got := ""
		if err != nil {
			got = "!"
		} else if ok {
			got = fmt.Sprintf("%s/%s %s %s %v %v", d.Owner, d.Name, d.Branch, d.Tag, d.Files, d.Pull)
		}
		if got != c.want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, c.want)
		}
	}
	for _, id := range []string{"", "x", "../../../etc", strings.Repeat("a", 65)} {
		if _, _, err := trigger.ParseDelivery("giggle", "push", id, nil); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
}

func FuzzParseDelivery(f *testing.F) {
	f.Add("push", []byte(`{"ref":"refs/heads/main"}`))
	f.Add("pull_request", pullRequest(7, "opened", "NONE", "", commit))
	f.Add("pull_request", pullRequest(7, "synchronize", "OWNER", "/gcbrun", another))
	f.Add("issue_comment", comment(7, "created", "OWNER", "please\r\n/gcbrun all\r\n"))
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		d, ok, err := trigger.ParseDelivery("giggle", event, "72d3162e-cc78", body)
		if ok && (err != nil || (len(d.Commit) == 40) == d.Comment || strings.ContainsAny(d.Owner+d.Name, "/ ") ||
			d.Pull != (d.Number > 0)) {
			t.Errorf("%+v, %v", d, err)
		}
		if d.Asked && ok && !bytes.Contains(body, []byte("gcbrun")) && !bytes.Contains(body, []byte(`\u`)) {
			t.Errorf("%q asks for a build", body)
		}
	})
}

func TestBind(t *testing.T) {
	got, err := trigger.Bind(map[string]string{
		"_A": "$(body.a.b)", "_B": "x$(body.n)y$(body.a)", "_C": "$(body.none.at.all)", "_D": "plain",
		"_E": "$(body.evil)", "_F": "$(body.a",
	}, []byte(`{"a":{"b":"text"},"n":7,"evil":"$(body.n)"}`))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"_A": "text", "_B": `x7y{"b":"text"}`, "_C": "", "_D": "plain",
		"_E": "$$(body.n)", "_F": "$(body.a"} { // a "$" of the body means itself
		if got[k] != want {
			t.Errorf("%s = %q, want %q", k, got[k], want)
		}
	}
	if _, err := trigger.Bind(nil, []byte("nonsense")); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("no JSON: %v", err)
	}
}

// world is triggers over a store, with repositories that are maps.
type world struct {
	*trigger.Triggers
	t *testing.T

	mu      sync.Mutex
	pending []trigger.Event
	files   map[string]string // of every commit
	changed []string
	mirrors []string
	broken  error // what Changed fails with
}

func (w *world) Commit(_ context.Context, _, repo, branch, tag, hash string) (string, error) {
	if repo == "none" {
		return "", fault.New(fault.NotFound, "no repository %s", repo)
	}
	if hash != "" {
		return hash, nil
	}
	return commit, nil
}

func (w *world) File(_ context.Context, _, _, _, path string) ([]byte, error) {
	text, ok := w.files[path]
	if !ok {
		return nil, fault.New(fault.NotFound, "no file %s", path)
	}
	return []byte(text), nil
}

func (w *world) Changed(context.Context, string, string, string, string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed, w.broken
}

func (w *world) Mirror(_ context.Context, _, repo, owner, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mirrors = append(w.mirrors, repo+"="+owner+"/"+name)
	return nil
}

func (w *world) Pending(context.Context) ([]trigger.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pending), nil
}

func (w *world) Done(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.DeleteFunc(w.pending, func(e trigger.Event) bool { return e.ID == id })
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w := &world{t: t, files: map[string]string{"cloudbuild.yaml": "echo $TRIGGER_NAME"}}
	w.Triggers = &trigger.Triggers{
		Store:  st,
		Builds: builds.New(st, uuid.NewString),
		Repos:  w,
		Events: w,
		Kind:   "git.push",
		NewID:  uuid.NewString,
		Log:    slog.New(slog.DiscardHandler),
		Read: func(data []byte) (builds.Request, error) {
			text, account, _ := strings.Cut(string(data), " as ")
			if text == "wrong" {
				return builds.Request{}, fault.Invalid("steps", "are wrong")
			}
			return builds.Request{
				Spec: builds.Spec{
					Account: account,
					Steps:   []builds.Step{{Name: "ubuntu", Args: []string{text}}},
					Options: builds.Options{Logging: builds.LoggingNone},
				},
			}, nil
		},
		Complete: func(_ context.Context, _ string, r *builds.Request) (string, error) {
			r.ProjectNumber, r.LogsIn = "123456789012", "logs"
			return "default@giggle.test", nil
		},
	}
	return w
}

var global = resource.Location{Project: "giggle", Location: "global"}

func (w *world) create(tr trigger.Trigger) trigger.Trigger {
	w.t.Helper()
	tr, err := w.Create(w.t.Context(), global, tr)
	if err != nil {
		w.t.Fatal(err)
	}
	return tr
}

func (w *world) builds() []builds.Build {
	w.t.Helper()
	all, err := w.Builds.List(w.t.Context(), global)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// settle lets the loop act upon what is there.
func (w *world) settle() {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for ctx.Err() == nil {
		if p, _ := w.Pending(ctx); len(p) == 0 {
			stop()
		}
		time.Sleep(time.Millisecond) // between two looks at the condition
	}
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	if p, _ := w.Pending(w.t.Context()); len(p) > 0 {
		w.t.Fatalf("%d events still wait", len(p))
	}
}

func push(ref string) trigger.Event {
	return trigger.Event{
		ID:      uuid.NewString(),
		Project: "giggle",
		Repo:    "app",
		Ref:     ref,
		Old:     another,
		New:     commit,
	}
}

// A triggered build is loose, and its substitutions may be made of others; what a branch is called is no template.
func TestSubstitutionsOfTriggers(t *testing.T) {
	for name, c := range map[string]struct {
		text, ref, want string
		status          builds.Status
	}{
		"values of values":      {"$_IMAGE", "refs/heads/main", "europe-north1-docker.pkg.dev/giggle/apps/app", builds.Queued},
		"a default":             {"$_TAG", "refs/heads/main", "1111111", builds.Queued},
		"in place of a default": {"$_TAG", "refs/tags/v1", "v1", builds.Queued},
		"an expansion":          {"${BRANCH_NAME//\\//-}", "refs/heads/a/b", "a-b", builds.Queued},
		"one with a default":    {"${_NO:-d}", "refs/heads/main", "d", builds.Queued},
		"not given":             {"x${_NO}", "refs/heads/main", "x", builds.Queued},
		"the shell's":           {"${HOME:-/root} $$HOME", "refs/heads/main", "${HOME:-/root} $HOME", builds.Queued},
		"not built in":          {"$HOME", "refs/heads/main", "", builds.Failure},
		"a branch like one":     {"$BRANCH_NAME", "refs/heads/${_REGION}", "${_REGION}", builds.Queued},
		"a value of it":         {"$_OF", "refs/heads/${_REGION}", "of ${_REGION}", builds.Queued},
	} {
		w := newWorld(t)
		w.files["cloudbuild.yaml"] = c.text
		w.create(trigger.Trigger{
			Title: "t",
			File:  "cloudbuild.yaml",
			Repo:  &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Branch: ".*"}},
			Substitutions: map[string]string{
				"_REGION": "europe-north1",
				"_IMAGE":  "${_REGION}-docker.pkg.dev/${PROJECT_ID}/apps/${REPO_NAME}",
				"_TAG":    "${TAG_NAME:-$SHORT_SHA}",
				"_OF":     "of ${BRANCH_NAME}",
			},
		})
		w.create(trigger.Trigger{
			Title:         "u",
			File:          "cloudbuild.yaml",
			Repo:          &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Tag: ".*"}},
			Substitutions: map[string]string{"_TAG": "${TAG_NAME:-$SHORT_SHA}"},
		})
		w.pending = []trigger.Event{push(c.ref)}
		w.settle()
		all := w.builds()
		if len(all) != 1 || all[0].Status != c.status ||
			c.want != "" && (len(all[0].Spec.Steps) != 1 || all[0].Spec.Steps[0].Args[0] != c.want) {
			t.Errorf("%s: %+v, want %q", name, all, c.want)
		}
	}
}

func TestPush(t *testing.T) {
	onMain := trigger.Trigger{
		Title: "t",
		File:  "cloudbuild.yaml",
		Repo:  &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Branch: "^main$"}},
	}
	change := func(f func(*trigger.Trigger)) trigger.Trigger { t := onMain; f(&t); return t }
	for name, c := range map[string]struct {
		trigger trigger.Trigger
		event   trigger.Event
		want    builds.Status // "" for no build
		why     string
	}{
		"the branch":        {onMain, push("refs/heads/main"), builds.Queued, ""},
		"another branch":    {onMain, push("refs/heads/dev"), "", ""},
		"a tag of the name": {onMain, push("refs/tags/main"), "", ""},
		"a deletion": {onMain, trigger.Event{
			ID:      uuid.NewString(),
			Project: "giggle",
			Repo:    "app",
			Ref:     "refs/heads/main",
			Old:     commit,
		}, "", ""},
		"another repository": {onMain, trigger.Event{
			ID:      uuid.NewString(),
			Project: "giggle",
			Repo:    "other",
			Ref:     "refs/heads/main",
			New:     commit,
		}, "", ""},
		"another project": {onMain, trigger.Event{
			ID:      uuid.NewString(),
			Project: "another",
			Repo:    "app",
			Ref:     "refs/heads/main",
			New:     commit,
		}, "", ""},
		"disabled":                     {change(func(t *trigger.Trigger) { t.Disabled = true }), push("refs/heads/main"), "", ""},
		"included":                     {change(func(t *trigger.Trigger) { t.Included = []string{"src/**"} }), push("refs/heads/main"), builds.Queued, ""},
		"ignored":                      {change(func(t *trigger.Trigger) { t.Ignored = []string{"src/**"} }), push("refs/heads/main"), "", ""},
		"approval":                     {change(func(t *trigger.Trigger) { t.Approval = true }), push("refs/heads/main"), builds.Pending, ""},
		"no configuration":             {change(func(t *trigger.Trigger) { t.File = "none.yaml" }), push("refs/heads/main"), builds.Failure, "no file none.yaml"},
		"a wrong one":                  {change(func(t *trigger.Trigger) { t.File = "wrong.yaml" }), push("refs/heads/main"), builds.Failure, "are wrong"},
		"found by itself":              {change(func(t *trigger.Trigger) { t.File, t.Autodetect = "", true }), push("refs/heads/main"), builds.Queued, ""},
		"a file that names an account": {change(func(t *trigger.Trigger) { t.File = "evil.yaml" }), push("refs/heads/main"), builds.Failure, "the trigger decides as whom it runs"},
	} {
		w := newWorld(t)
		w.files["wrong.yaml"] = "wrong"
		w.files["evil.yaml"] = "x as admin@giggle.test"
		w.changed = []string{"src/a.go"}
		made := w.create(c.trigger)
		w.pending = []trigger.Event{c.event}
		w.settle()
		all := w.builds()
		if c.want == "" {
			if len(all) != 0 {
				t.Errorf("%s: built %+v", name, all)
			}
			continue
		}
		if len(all) != 1 {
			t.Errorf("%s: %d builds", name, len(all))
			continue
		}
		b := all[0]
		if b.Status != c.want || !strings.Contains(b.Detail, c.why) || b.Trigger != made.Name.ID ||
			!slices.Contains(b.Tags, "trigger-"+made.Name.ID) {
			t.Errorf("%s: %s, %q, trigger %s", name, b.Status, b.Detail, b.Trigger)
		}
		if c.want == builds.Failure {
			continue
		}
		if r := b.Source.Repo; r == nil || r.Name != "app" || r.Commit != commit || r.Branch != "main" {
			t.Errorf("%s: of %+v", name, r)
		}
		for k, want := range map[string]string{"COMMIT_SHA": commit, "SHORT_SHA": commit[:7], "REVISION_ID": commit,
			"BRANCH_NAME": "main", "REF_NAME": "main", "REPO_NAME": "app", "TRIGGER_NAME": "t"} {
			if got := b.Spec.Substitutions[k]; got != want {
				t.Errorf("%s: %s = %q", name, k, got)
			}
		}
		if b.Account != "default@giggle.test" {
			t.Errorf("%s: as %s", name, b.Account)
		}
	}
}

// An event that is seen twice, because a crash came before it was removed, is one build of each trigger; and one that
// can't be acted upon waits.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	for _, title := range []string{"one", "two"} {
		w.create(trigger.Trigger{
			Title: title,
			File:  "cloudbuild.yaml",
			Repo:  &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Branch: ".*"}},
		})
	}
	w.create(trigger.Trigger{
		Title: "wrong",
		File:  "none",
		Repo:  &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Branch: ".*"}},
	})
	e := push("refs/heads/main")
	for range 3 {
		w.pending = []trigger.Event{e}
		w.settle()
	}
	if got := len(w.builds()); got != 3 {
		t.Errorf("%d builds, want 3", got)
	}
	w.pending = []trigger.Event{push("refs/heads/main")}
	w.settle()
	if got := len(w.builds()); got != 6 {
		t.Errorf("%d builds after another push, want 6", got)
	}
}

func TestDeliveries(t *testing.T) {
	w := newWorld(t)
	w.create(trigger.Trigger{
		Title:  "push",
		File:   "cloudbuild.yaml",
		GitHub: &trigger.GitHubEvent{Owner: "me", Name: "app", Push: &trigger.Pattern{Branch: "^main$"}},
	})
	w.create(trigger.Trigger{
		Title:  "pull",
		File:   "cloudbuild.yaml",
		GitHub: &trigger.GitHubEvent{Owner: "Me", Name: "App", Pull: &trigger.Pattern{Branch: "^main$"}},
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	deliver := func(d trigger.Delivery, want int, title string) {
		t.Helper()
		if err := w.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); len(w.builds()) < want; {
			if time.Now().After(deadline) {
				t.Fatalf("%d builds, want %d", len(w.builds()), want)
			}
			time.Sleep(time.Millisecond) // between two looks at the condition
		}
		if b := w.builds()[0]; b.Spec.Substitutions["TRIGGER_NAME"] != title ||
			b.Spec.Substitutions["REPO_FULL_NAME"] == "" || b.Source.Repo.Commit != d.Commit {
			t.Errorf("built %+v of %+v", b.Spec.Substitutions, b.Source.Repo)
		}
	}
	first := trigger.Delivery{
		ID:      "delivery-1",
		Project: "giggle",
		Owner:   "me",
		Name:    "app",
		Branch:  "main",
		Commit:  commit,
	}
	deliver(first, 1, "push")
	deliver(first, 1, "push") // sent again
	deliver(trigger.Delivery{
		ID:      "delivery-2",
		Project: "giggle",
		Owner:   "me",
		Name:    "app",
		Branch:  "dev",
		Commit:  commit,
	}, 1, "push")
	deliver(trigger.Delivery{
		ID:            "delivery-3",
		Project:       "giggle",
		Owner:         "me",
		Name:          "app",
		Branch:        "main",
		Commit:        another,
		Pull:          true,
		Substitutions: map[string]string{"_HEAD_BRANCH": "f", "_PR_NUMBER": "7"},
	}, 2, "pull")
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := len(w.builds()); got != 2 {
		t.Errorf("%d builds, want 2", got)
	}
	if !slices.Contains(w.mirrors, "github_me_app=me/app") {
		t.Errorf("mirrored %v", w.mirrors)
	}
}

func TestTriggers(t *testing.T) {
	w := newWorld(t)
	good := trigger.Trigger{Title: "good", File: "c.yaml"}
	for name, change := range map[string]func(*trigger.Trigger){
		"a name with a slash": func(t *trigger.Trigger) { t.Title = "a/b" },
		"no build":            func(t *trigger.Trigger) { t.File = "" },
		"two builds":          func(t *trigger.Trigger) { t.Autodetect = true },
		"two events":          func(t *trigger.Trigger) { t.Webhook, t.GitHub = &trigger.Webhook{}, &trigger.GitHubEvent{} },
		"no branch":           func(t *trigger.Trigger) { t.Repo = &trigger.RepoEvent{Name: "app"} },
		"a bad expression": func(t *trigger.Trigger) {
			t.Repo = &trigger.RepoEvent{Name: "app", Pattern: trigger.Pattern{Branch: "("}}
		},
		"no repository": func(t *trigger.Trigger) { t.Repo = &trigger.RepoEvent{Pattern: trigger.Pattern{Branch: "x"}} },
		"a bad glob":    func(t *trigger.Trigger) { t.Included = []string{"[a"} },
		"an owner's path": func(t *trigger.Trigger) {
			t.GitHub = &trigger.GitHubEvent{Owner: "..", Name: "a/b", Push: &trigger.Pattern{Branch: "x"}}
		},
	} {
		bad := good
		change(&bad)
		if _, err := w.Create(t.Context(), global, bad); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	made := w.create(good)
	if _, err := w.Create(t.Context(), global, good); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("a second of the name: %v", err)
	}
	for _, id := range []string{made.Name.ID, "good"} {
		name := resource.Child{Location: global, Collection: "triggers", ID: id}
		if got, err := w.Get(t.Context(), name); err != nil || got.Name != made.Name {
			t.Errorf("%s: %v, %v", id, got.Name, err)
		}
	}
	name := resource.Child{Location: global, Collection: "triggers", ID: "good"}
	if _, err := w.Update(t.Context(), name,
		func(t *trigger.Trigger) error { t.Description = "x"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(t.Context(), name); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted one: %v", err)
	}
}
