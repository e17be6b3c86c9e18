package trigger_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/store"
)

// The bodies below have what GitHub's have, as far as it is read or could be mistaken for what is.

func pullRequest(number int, action, association, description, sha string) []byte {
	return must(json.Marshal(map[string]any{
		"action": action, "number": number,
		"pull_request": map[string]any{
			"number": number, "state": "open", "title": "A change", "body": description,
			"author_association": association,
			"user":               map[string]any{"login": "somebody", "type": "User"},
			"head": map[string]any{"ref": "feature", "sha": sha,
				"repo": map[string]any{"html_url": "https://github.com/somebody/app"}},
			"base": map[string]any{"ref": "main", "sha": commit},
		},
		"repository": map[string]any{"name": "app", "owner": map[string]any{"login": "acme"}},
		"sender":     map[string]any{"login": "somebody"},
	}))
}

func comment(number int, action, association, text string) []byte {
	return must(json.Marshal(map[string]any{
		"action": action,
		"issue": map[string]any{
			"number": number, "author_association": "OWNER", "body": "/gcbrun",
			"pull_request": map[string]any{"url": fmt.Sprintf("https://api.github.com/repos/acme/app/pulls/%d",
				number)},
		},
		"comment": map[string]any{"body": text, "author_association": association,
			"user": map[string]any{"login": "somebody"}},
		"repository": map[string]any{"name": "app", "owner": map[string]any{"login": "Acme"}},
		"sender":     map[string]any{"login": "somebody"},
	}))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestComments(t *testing.T) {
	onIssue := []byte(strings.Replace(string(comment(7, "created", "OWNER", "/gcbrun")), `"pull_request"`, `"other"`,
		1))
	for name, c := range map[string]struct {
		body []byte
		want bool
	}{
		"an owner":                   {comment(7, "created", "OWNER", "/gcbrun"), true},
		"a member":                   {comment(7, "created", "MEMBER", "/gcbrun"), true},
		"a collaborator":             {comment(7, "created", "COLLABORATOR", "/gcbrun"), true},
		"with arguments":             {comment(7, "created", "OWNER", "/gcbrun now please"), true},
		"among other lines":          {comment(7, "created", "OWNER", "Looks good.\r\n  /gcbrun\r\nThanks"), true},
		"a contributor":              {comment(7, "created", "CONTRIBUTOR", "/gcbrun"), false},
		"a first timer":              {comment(7, "created", "FIRST_TIMER", "/gcbrun"), false},
		"a first time contributor":   {comment(7, "created", "FIRST_TIME_CONTRIBUTOR", "/gcbrun"), false},
		"a mannequin":                {comment(7, "created", "MANNEQUIN", "/gcbrun"), false},
		"a stranger":                 {comment(7, "created", "NONE", "/gcbrun"), false},
		"nobody knows who":           {comment(7, "created", "", "/gcbrun"), false},
		"in small letters":           {comment(7, "created", "owner", "/gcbrun"), false},
		"one that was edited":        {comment(7, "edited", "OWNER", "/gcbrun"), false},
		"one that was deleted":       {comment(7, "deleted", "OWNER", "/gcbrun"), false},
		"within a line":              {comment(7, "created", "OWNER", "say /gcbrun to build"), false},
		"a quotation":                {comment(7, "created", "OWNER", "> /gcbrun\n\nNo."), false},
		"another word":               {comment(7, "created", "OWNER", "/gcbrunner"), false},
		"nothing of it":              {comment(7, "created", "OWNER", "no"), false},
		"an issue, no pull request":  {onIssue, false},
		"a pull request of number 0": {comment(0, "created", "OWNER", "/gcbrun"), false},
	} {
		d, ok, err := trigger.ParseDelivery("giggle", "issue_comment", "delivery-1", c.body)
		if err != nil || ok != c.want || ok && (!d.Comment || !d.Asked || !d.Pull || d.Number != 7) {
			t.Errorf("%s: %+v, %v, %v", name, d, ok, err)
		}
	}
	if _, _, err := trigger.ParseDelivery("giggle", "issue_comment", "delivery-1", []byte("nonsense")); !fault.Is(err,
		fault.InvalidArgument) {
		t.Errorf("no JSON: %v", err)
	}
}

// deliver takes a delivery in and acts upon it; each tells how many builds there should be.
func (w *world) deliver(event, id string, body []byte, want int) {
	w.t.Helper()
	d, ok, err := trigger.ParseDelivery("giggle", event, id, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if ok {
		if err := w.Deliver(w.t.Context(), d); err != nil {
			w.t.Fatal(err)
		}
	}
	w.act()
	if got := len(w.builds()); got != want {
		w.t.Fatalf("%s: %d builds, want %d", id, got, want)
	}
}

func (w *world) act() {
	w.t.Helper()
	if err := w.Act(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestCommentControl(t *testing.T) {
	type delivery struct {
		event, association, text string
		sha                      string
		builds                   int // that there are afterwards
	}
	pull := func(association, description string, builds int) delivery {
		return delivery{"opened", association, description, another, builds}
	}
	say := func(association, text string, builds int) delivery {
		return delivery{"comment", association, text, "", builds}
	}
	for name, c := range map[string]struct {
		control string
		steps   []delivery
	}{
		"not set: all at once":  {"", []delivery{pull("NONE", "", 1)}},
		"disabled: all at once": {trigger.CommentsDisabled, []delivery{pull("NONE", "", 1)}},
		"disabled: a comment builds again": {trigger.CommentsDisabled, []delivery{pull("NONE", "", 1),
			say("OWNER", "/gcbrun", 2)}},
		"enabled: a stranger waits": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0)}},
		"enabled: he can't ask himself": {trigger.CommentsEnabled, []delivery{pull("NONE", "/gcbrun", 0),
			say("NONE", "/gcbrun", 0), say("CONTRIBUTOR", "/gcbrun", 0)}},
		"enabled: an owner asks": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0),
			say("OWNER", "/gcbrun", 1)}},
		"enabled: an owner talks": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0),
			say("OWNER", "nice", 0)}},
		"enabled: an owner's own waits too": {trigger.CommentsEnabled, []delivery{pull("OWNER", "", 0),
			say("OWNER", "/gcbrun", 1)}},
		"enabled: an owner's own that asks": {trigger.CommentsEnabled, []delivery{pull("OWNER", "x\n/gcbrun",
			1)}},
		"enabled: a later push waits again": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0),
			say("OWNER", "/gcbrun", 1), {"synchronize", "NONE", "", commit, 1}}},
		"enabled: closed, then a comment": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0),
			{"closed", "NONE", "", another, 0}, say("OWNER", "/gcbrun", 0)}},
		"enabled: closed and opened again": {trigger.CommentsEnabled, []delivery{pull("NONE", "", 0),
			{"closed", "NONE", "", another, 0}, {"reopened", "NONE", "", another, 0}, say("OWNER", "/gcbrun", 1)}},
		"enabled: a comment without a pull request": {trigger.CommentsEnabled, []delivery{say("OWNER", "/gcbrun", 0)}},
		"external: a stranger waits": {trigger.CommentsExternal, []delivery{pull("NONE", "", 0),
			say("MEMBER", "/gcbrun", 1)}},
		"external: a contributor waits": {trigger.CommentsExternal, []delivery{pull("CONTRIBUTOR",
			"/gcbrun", 0)}},
		"external: nobody knows who waits": {trigger.CommentsExternal, []delivery{pull("", "", 0)}},
		"external: an owner at once":       {trigger.CommentsExternal, []delivery{pull("OWNER", "", 1)}},
		"external: a member at once":       {trigger.CommentsExternal, []delivery{pull("MEMBER", "", 1)}},
		"external: a collaborator at once": {trigger.CommentsExternal, []delivery{pull("COLLABORATOR", "",
			1)}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(trigger.Trigger{Title: "pull", File: "cloudbuild.yaml", GitHub: &trigger.GitHubEvent{
				Owner: "acme", Name: "app", Pull: &trigger.Pattern{Branch: "^main$"}, Comments: c.control,
			}})
			// A push trigger is not asked, whatever comes of pull requests.
			w.create(trigger.Trigger{
				Title:  "push",
				File:   "cloudbuild.yaml",
				GitHub: &trigger.GitHubEvent{Owner: "acme", Name: "app", Push: &trigger.Pattern{Branch: ".*"}},
			})
			for i, s := range c.steps {
				id := fmt.Sprintf("delivery-%d", i)
				for range 2 { // GitHub sends again what it thinks has not arrived
					if s.event == "comment" {
						w.deliver("issue_comment", id, comment(7, "created", s.association, s.text), s.builds)
					} else {
						w.deliver("pull_request", id, pullRequest(7, s.event, s.association, s.text, s.sha), s.builds)
					}
				}
			}
			for _, b := range w.builds() {
				if b.Source.Repo.Commit != another || b.Spec.Substitutions["_PR_NUMBER"] != "7" ||
					b.Spec.Substitutions["BRANCH_NAME"] != "feature" {
					t.Errorf("built %s, %v", b.Source.Repo.Commit, b.Spec.Substitutions)
				}
			}
		})
	}
}

// What a comment asks for is what was there when it came: neither a push before it that was outdated, nor one after it
// while the build could not begin.
func TestCommentCommit(t *testing.T) {
	w := newWorld(t)
	w.create(trigger.Trigger{Title: "pull", File: "cloudbuild.yaml", GitHub: &trigger.GitHubEvent{
		Owner: "acme", Name: "app", Pull: &trigger.Pattern{Branch: "^main$"}, Comments: trigger.CommentsEnabled,
	}})
	const first, second, third = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccccccccccccccccccccccc"
	take := func(event, id string, body []byte) {
		d, ok, err := trigger.ParseDelivery("giggle", event, id, body)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if err := w.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	// None of them is acted upon before all are there; the ids are in another order than they came.
	take("pull_request", "delivery-9", pullRequest(7, "opened", "NONE", "", first))
	take("pull_request", "delivery-5", pullRequest(7, "synchronize", "NONE", "", second))
	take("issue_comment", "delivery-2", comment(7, "created", "OWNER", "/gcbrun"))
	take("pull_request", "delivery-1", pullRequest(7, "synchronize", "NONE", "", third))
	take("pull_request", "delivery-3", pullRequest(8, "opened", "NONE", "", third))
	w.act()
	if all := w.builds(); len(all) != 1 || all[0].Source.Repo.Commit != second {
		t.Errorf("built %+v", all)
	}
}

// Everybody can open pull requests: what is kept of them has a bound in number and in age.
func TestPullsAreBounded(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w := newWorld(t)
	w.Store, w.Builds = st, builds.New(st, uuid.NewString)
	w.create(trigger.Trigger{Title: "pull", File: "cloudbuild.yaml", GitHub: &trigger.GitHubEvent{
		Owner: "acme", Name: "app", Pull: &trigger.Pattern{Branch: "^main$"}, Comments: trigger.CommentsEnabled,
	}})
	for i := 1; i <= trigger.MaxPulls+5; i++ {
		now = now.Add(time.Second)
		d, _, err := trigger.ParseDelivery("giggle", "pull_request", fmt.Sprintf("delivery-%d", i),
			pullRequest(i, "opened", "NONE", "", another))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	w.deliver("issue_comment", "old-comment", comment(1, "created", "OWNER", "/gcbrun"), 0)
	w.deliver("issue_comment", "new-comment", comment(trigger.MaxPulls+5, "created", "OWNER", "/gcbrun"), 1)
	if n := trigger.Pulls(t, st); n != trigger.MaxPulls {
		t.Errorf("%d are kept, want %d", n, trigger.MaxPulls)
	}
	now = now.Add(40 * 24 * time.Hour)
	w.deliver("issue_comment", "too-late", comment(trigger.MaxPulls+4, "created", "OWNER", "/gcbrun"), 1)
	if n := trigger.Pulls(t, st); n != 0 {
		t.Errorf("%d are kept after more than a month", n)
	}
}
