package git_test

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/builds/source"
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
	second := commit(map[string]string{"d/a": "3", "secret": "s", ".gitattributes": "secret export-ignore\n"})

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
	}{{first, []string{".gitattributes", "d/a", "secret"}}, {"", []string{".gitattributes", "cloudbuild.yaml", "d/a", "d/ü", "secret"}},
		{strings.Repeat("1", 40), []string{".gitattributes", "cloudbuild.yaml", "d/a", "d/ü", "secret"}}} {
		if got, err := g.Changed(t.Context(), r, c.from, second); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("since %.7q: %q, %v", c.from, got, err)
		}
	}
	for of, want := range map[string]struct{ files, history, unshallowed string }{
		first:  {"cloudbuild.yaml d/a d/ü", "1", "1"},
		second: {".gitattributes cloudbuild.yaml d/a d/ü secret", "1", "2"},
	} {
		t.Run("clone of "+of[:7], func(t *testing.T) {
			var out bytes.Buffer
			if err := g.Clone(t.Context(), r, of, "file://"+filepath.Join(dir, "git", r.ID+".git"), &out); err != nil {
				t.Fatal(err)
			}
			to := t.TempDir()
			limits := source.Limits{Bytes: 1 << 20, Entries: 100}
			archive := bytes.NewReader(out.Bytes())
			if err := source.Extract(t.Context(), archive, int64(out.Len()), to, limits); err != nil {
				t.Fatal(err)
			}
			in := func(args ...string) string {
				t.Helper()
				out, err := exec.Command("git", append([]string{"-C", to, "-c", "core.quotePath=false"}, args...)...).CombinedOutput()
				if err != nil {
					t.Errorf("git %v: %v\n%s", args, err, out)
				}
				return strings.Join(strings.Fields(string(out)), " ")
			}
			if got := in("rev-parse", "HEAD"); got != of {
				t.Errorf("HEAD is %s", got)
			}
			if got := in("ls-files"); got != want.files {
				t.Errorf("its files are %q, want %q", got, want.files)
			}
			if got := in("status", "--porcelain"); got != "" {
				t.Errorf("files have changed: %q", got)
			}
			if got := in("fsck", "--no-dangling"); got != "" {
				t.Errorf("fsck says %q", got)
			}
			if got := in("rev-list", "--count", "HEAD"); got != want.history {
				t.Errorf("%s commits, want %s", got, want.history)
			}
			if want.unshallowed != want.history {
				in("fetch", "-q", "--unshallow")
			}
			if got := in("rev-list", "--count", "HEAD"); got != want.unshallowed {
				t.Errorf("%s commits once all is fetched, want %s", got, want.unshallowed)
			}
			in("fetch", "-q", "--tags")
			if got := in("describe", "--tags", "--always"); !strings.HasPrefix(got, "v1") {
				t.Errorf("it is called %q", got)
			}
		})
	}
	if err := g.Clone(t.Context(), r, strings.Repeat("1", 40), "https://x", io.Discard); err == nil {
		t.Error("a commit that is not there was cloned")
	}
	left, err := filepath.Glob(filepath.Join(dir, "git", "clone-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("clones left %v, %v", left, err)
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
