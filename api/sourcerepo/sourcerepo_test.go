package sourcerepo_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"giggle/api/guard/guardtest"
	"giggle/api/sourcerepo"
	"giggle/git"
	"giggle/iam"
	"giggle/rest"
)

func TestRepos(t *testing.T) {
	w := guardtest.New(t, iam.Governed{Collection: "repos", Kind: git.RepoKind})
	repos, err := git.Open(t.Context(), git.Config{
		Store: w.Store,
		Dir:   filepath.Join(t.TempDir(), "git"),
		NewID: uuid.NewString,
		Log:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Serve(t, "sourcerepo.googleapis.com", "sourcerepo.googleapis.com", sourcerepo.Rules, func(m *rest.Mux) {
		sourcerepo.New(sourcerepo.Config{
			Repos:    repos,
			Policies: w.IAM,
			Project:  w.Projects.Find,
			Pages:    w.Pages,
			Host:     "source.developers.google.com",
		}).Register(m)
	})
	const all = "/v1/projects/giggle/repos"
	for _, name := range []string{"app", "bapp", "capp"} {
		got := w.Call(t, "POST", all, `{"name":"projects/giggle/repos/`+name+`"}`, 200)
		if got["name"] != "projects/giggle/repos/"+name ||
			got["url"] != "https://source.developers.google.com/p/giggle/r/"+name {
			t.Errorf("made %v", got)
		}
	}
	w.Call(t, "POST", all, `{"name":"projects/giggle/repos/app"}`, 409)
	for _, name := range []string{"", "app2", "projects/another-project/repos/x-y-z", "projects/giggle/repos/a/b",
		"projects/giggle/repos/..", "projects/giggle/repos/a b"} {
		w.Call(t, "POST", all, `{"name":"`+name+`"}`, 400)
	}
	got := w.Call(t, "GET", "/v1/projects/"+w.Project.Number+"/repos/app", "", 200)
	if got["name"] != "projects/giggle/repos/app" || got["size"] == "" {
		t.Errorf("got %v", got)
	}
	var names []string
	for token, pages := "", 0; ; pages++ {
		page := w.Call(t, "GET", all+"?pageSize=2&pageToken="+token, "", 200)
		names = append(names, guardtest.Names(page, "repos", "name")...)
		token, _ = page["nextPageToken"].(string)
		if token == "" || pages > 3 {
			break
		}
	}
	if len(names) != 3 || names[0] != "projects/giggle/repos/app" || names[2] != "projects/giggle/repos/capp" {
		t.Errorf("listed %v", names)
	}
	w.Call(t, "GET", all+"?pageSize=-1", "", 400)
	w.Call(t, "POST", all+"/app:setIamPolicy",
		`{"policy":{"bindings":[{"role":"roles/source.reader","members":["user:stranger@giggle.test"]}]}}`, 200)
	w.CallAs(t, w.Stranger, "GET", all+"/app", "", 200)
	w.CallAs(t, w.Stranger, "GET", all+"/bapp", "", 403)
	w.CallAs(t, w.Stranger, "DELETE", all+"/app", "", 403)
	policy := w.Call(t, "GET", all+"/app:getIamPolicy", "", 200)
	if len(policy["bindings"].([]any)) != 1 {
		t.Errorf("the policy is %v", policy)
	}
	held := w.CallAs(t, w.Stranger, "POST", all+"/app:testIamPermissions",
		`{"permissions":["source.repos.get","source.repos.update"]}`, 200)
	if got := held["permissions"].([]any); len(got) != 1 || !strings.HasSuffix(got[0].(string), ".get") {
		t.Errorf("held %v", held)
	}
	w.Call(t, "DELETE", all+"/app", "", 200)
	w.Call(t, "GET", all+"/app", "", 404)
	w.Call(t, "DELETE", all+"/app", "", 404)
	w.Call(t, "POST", all, `{"name":"projects/giggle/repos/app"}`, 200)
	w.CallAs(t, w.Stranger, "GET", all+"/app", "", 403) // the policy went with the old one
}
