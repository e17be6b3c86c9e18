package git_test

import (
	"archive/tar"
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/fault"
	"giggle/git"
	"giggle/store"
)

func TestRepos(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	g, err := git.Open(t.Context(), git.Config{
		Store:    st,
		Dir:      filepath.Join(dir, "git"),
		NewID:    uuid.NewString,
		Log:      slog.New(slog.DiscardHandler),
		Protocol: "file",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a", "../x", "a/b", "-ab", "a..b", "a b", "app.git", strings.Repeat("a", 129),
		"a\x00b"} {
		if _, err := g.Create(t.Context(), "giggle", name); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%q: %v", name, err)
		}
	}
	r, err := g.Create(t.Context(), "giggle", "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Create(t.Context(), "giggle", "app"); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("a second of the name: %v", err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_DIR="+filepath.Join(dir, "git", r.ID+".git"),
			"GIT_WORK_TREE="+filepath.Join(dir, "w"),
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.c", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.c")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(files map[string]string) string {
		t.Helper()
		for name, text := range files {
			p := filepath.Join(dir, "w", name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run("add", "-A")
		run("commit", "-q", "-m", "x")
		return run("rev-parse", "HEAD")
	}
	first := commit(map[string]string{"cloudbuild.yaml": "steps: []", "d/a": "1", "d/ü": "2"})
	run("tag", "-a", "-m", "x", "v1")
	second := commit(map[string]string{"d/a": "3"})

	for _, c := range []struct {
		rev  git.Revision
		want string
	}{
		{git.Revision{Branch: "main"}, second}, {git.Revision{Tag: "v1"}, first}, {git.Revision{Commit: first}, first},
		{git.Revision{Commit: first[:8]}, first},
		{git.Revision{Branch: "v1"}, ""}, {git.Revision{Tag: "main"}, ""}, {git.Revision{Branch: "main~1"}, ""},
		{git.Revision{Branch: "main@{0}"}, ""},
		{git.Revision{Commit: "HEAD"}, ""}, {git.Revision{Commit: strings.Repeat("1", 40)}, ""},
		{git.Revision{Branch: "--help"}, ""}, {git.Revision{Branch: "../../HEAD"}, ""},
	} {
		got, err := g.Resolve(t.Context(), r, c.rev)
		if got != c.want || (c.want == "") != fault.Is(err, fault.NotFound) {
			t.Errorf("%+v is %q, %v", c.rev, got, err)
		}
	}
	for name, want := range map[string]string{"cloudbuild.yaml": "steps: []", "/d/a": "1", "d/../d/ü": "2", "none": "",
		"d": "", "": "", "../../HEAD": ""} {
		got, err := g.File(t.Context(), r, first, name, 1<<20)
		if string(got) != want || (want == "") != (err != nil) {
			t.Errorf("the file %q is %q, %v", name, got, err)
		}
	}
	if _, err := g.File(t.Context(), r, first, "cloudbuild.yaml", 3); err == nil {
		t.Error("a file over the limit was read")
	}
	for _, c := range []struct {
		from string
		want []string
	}{{first, []string{"d/a"}}, {"", []string{"cloudbuild.yaml", "d/a", "d/ü"}},
		{strings.Repeat("1", 40), []string{"cloudbuild.yaml", "d/a", "d/ü"}}} {
		if got, err := g.Changed(t.Context(), r, c.from, second); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("since %.7q: %q, %v", c.from, got, err)
		}
	}
	for in, want := range map[string]string{"": "cloudbuild.yaml d/ d/a d/ü", "d": "a ü", "/d/": "a ü"} {
		var out bytes.Buffer
		if err := g.Archive(t.Context(), r, first, in, &out); err != nil {
			t.Fatal(err)
		}
		var names []string
		for tr := tar.NewReader(&out); ; {
			hd, err := tr.Next()
			if err != nil {
				break
			}
			names = append(names, hd.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("the archive of %q has %q", in, got)
		}
	}
	if err := g.Mirror(t.Context(), "giggle", "github_me_app",
		"file://"+filepath.Join(dir, "git", r.ID+".git")); err != nil {
		t.Fatal(err)
	}
	m, err := g.Get(t.Context(), "giggle", "github_me_app")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.Resolve(t.Context(), m, git.Revision{Branch: "main"}); err != nil || got != second {
		t.Errorf("the mirror's main is %q, %v", got, err)
	}
	nowhere := "file://" + filepath.Join(dir, "none")
	// one of another URL, a new one, no mirror
	for _, name := range []string{"github_me_app", "github_me_none", "app"} {
		if err := g.Mirror(t.Context(), "giggle", name, nowhere); !fault.Is(err, fault.FailedPrecondition) {
			t.Errorf("%s as a mirror of nowhere: %v", name, err)
		}
	}
	if _, err := g.Get(t.Context(), "giggle", "github_me_none"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a mirror of nowhere stays: %v", err)
	}
	if err := g.Delete(t.Context(), "giggle", "github_me_app"); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(t.Context(), "giggle", "app"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "git")); err != nil || len(left) != 0 {
		t.Errorf("a deleted repository left %v, %v", left, err)
	}
	if _, err := g.Get(t.Context(), "giggle", "app"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted repository: %v", err)
	}
	if _, err := g.Create(t.Context(), "giggle", "app"); err != nil {
		t.Errorf("the name again: %v", err)
	}
}
