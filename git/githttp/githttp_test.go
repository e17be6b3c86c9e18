package githttp_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"giggle/api/guard/guardtest"
	"giggle/git"
	"giggle/git/githttp"
	"giggle/iam"
	"giggle/logging/audit/audittest"
)

// host is a host with the repository "app" of the project giggle.
type host struct {
	*guardtest.World
	t     *testing.T
	repos *git.Repos
	cfg   git.Config
	url   string // of the project's repositories, without credentials
	dir   string
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{World: guardtest.New(t), t: t, dir: t.TempDir()}
	h.cfg = git.Config{
		Store:    h.Store,
		Dir:      filepath.Join(t.TempDir(), "git"),
		NewID:    uuid.NewString,
		Log:      slog.New(slog.DiscardHandler),
		MaxInput: 256 << 20,
	}
	var err error
	if h.repos, err = git.Open(t.Context(), h.cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := h.repos.Create(t.Context(), "giggle", "app"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(githttp.New(githttp.Config{
		Repos:    h.repos,
		Identity: h.IAM,
		Project:  h.Projects.Find,
		Enabled:  h.Projects.CheckEnabled,
		Audit:    h.Audit,
		NewID:    uuid.NewString,
		Log:      slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	h.url = srv.URL + "/p/giggle/r/"
	return h
}

// as is a repository's URL with a token as the password.
func (h *host) as(token, repo string) string {
	return strings.Replace(h.url, "http://", "http://someone:"+token+"@", 1) + repo
}

// try runs the user's git and returns what it says.
func (h *host) try(dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(h.t.Context(), "git", args...)
	cmd.Dir = filepath.Join(h.dir, dir)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.c", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.c")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) git(dir string, args ...string) string {
	h.t.Helper()
	out, err := h.try(dir, args...)
	if err != nil {
		h.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func (h *host) write(name, text string) {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// clone makes a working copy with one commit on main, pushed.
func (h *host) clone(dir string) {
	h.t.Helper()
	h.git("", "clone", "-q", h.as(h.Owner, "app"), dir)
	h.git(dir, "checkout", "-q", "-B", "main")
	h.write(dir+"/a.txt", "one\n")
	h.git(dir, "add", ".")
	h.git(dir, "commit", "-q", "-m", "one")
	h.git(dir, "push", "-q", "origin", "main")
}

// events are the pushes that wait, as "REF OLD→NEW" with what is there as 1 and what is not as 0.
func (h *host) events() string {
	h.t.Helper()
	all, err := h.repos.Pushes(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, p := range all {
		out = append(out, fmt.Sprintf("%s %d→%d", p.Ref, min(len(p.Old), 1), min(len(p.New), 1)))
		if err := h.repos.Done(h.t.Context(), p.ID); err != nil {
			h.t.Fatal(err)
		}
	}
	return strings.Join(out, ", ")
}

func TestCloneAndPush(t *testing.T) {
	for _, version := range []string{"0", "1", "2"} {
		t.Run("version "+version, func(t *testing.T) {
			h := newHost(t)
			h.write(".gitconfig", "[protocol]\nversion = "+version+"\n")
			h.clone("w")
			if got := h.events(); got != "refs/heads/main 0→1" {
				t.Errorf("the first push made %q", got)
			}
			h.git("", "clone", "-q", h.as(h.Owner, "app"), "second")
			if got, _ := os.ReadFile(filepath.Join(h.dir, "second/a.txt")); string(got) != "one\n" {
				t.Errorf("the clone has %q", got)
			}
			h.write("w/a.txt", "two\n")
			h.git("w", "commit", "-qam", "two")
			h.git("w", "tag", "light")
			h.git("w", "tag", "-a", "-m", "x", "annotated")
			h.git("w", "push", "-q", "origin", "main", "light", "annotated", "main:other")
			if got := h.events(); got != "refs/heads/main 1→1, refs/heads/other 0→1, refs/tags/annotated 0→1, refs/tags/light 0→1" {
				t.Errorf("the second push made %q", got)
			}
			h.git("second", "pull", "-q")
			h.git("", "clone", "-q", "--depth", "1", "--branch", "annotated", h.as(h.Owner, "app"), "shallow")
			if got := h.git("shallow", "rev-list", "--count", "HEAD"); got != "1" {
				t.Errorf("the shallow clone has %s commits", got)
			}
			h.git("shallow", "fetch", "-q", "--unshallow")
			// A push that is behind is refused by the user's git; one by force is taken.
			h.git("w", "reset", "-q", "--hard", "HEAD~1")
			h.write("w/a.txt", "another two\n")
			h.git("w", "commit", "-qam", "another")
			if out, err := h.try("w", "push", "origin", "main"); err == nil || !strings.Contains(out, "rejected") {
				t.Errorf("a push that is behind: %v %s", err, out)
			}
			h.git("w", "push", "-q", "--force", "origin", "main")
			h.git("w", "push", "-q", "origin", ":other")
			if got := h.events(); got != "refs/heads/main 1→1, refs/heads/other 1→0" {
				t.Errorf("force and deletion made %q", got)
			}
			// Nothing new: no event.
			h.git("w", "push", "-q", "origin", "main")
			if got := h.events(); got != "" {
				t.Errorf("an empty push made %q", got)
			}
		})
	}
}

func TestWhoMay(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	reader, writer := iam.User("reader@giggle.test"), iam.User("writer@giggle.test")
	if _, err := h.IAM.SetPolicy(t.Context(), "projects/giggle/repos/app", iam.Policy{Bindings: []iam.Binding{
		{
			Role:    "roles/source.reader",
			Members: []string{reader.Member},
		}, {Role: "roles/source.writer", Members: []string{writer.Member}},
	}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, token  string
		read, write bool
	}{
		{"the owner", h.Owner, true, true},
		{"a reader", h.Token(t, reader), true, false},
		{"a writer", h.Token(t, writer), true, true},
		{"a stranger", h.Stranger, false, false},
		{"a wrong token", "ya29.wrong", false, false},
	} {
		_, err := h.try("", "ls-remote", h.as(c.token, "app"))
		if (err == nil) != c.read {
			t.Errorf("%s reads: %v", c.who, err)
		}
		h.write("w/a.txt", c.who)
		h.git("w", "commit", "-qam", c.who)
		_, err = h.try("w", "push", h.as(c.token, "app"), "main")
		if (err == nil) != c.write {
			t.Errorf("%s writes: %v", c.who, err)
		}
		// The second step is checked like the first.
		for s, may := range map[string]bool{"git-upload-pack": c.read, "git-receive-pack": c.write} {
			res := h.post(h.as(c.token, "app")+"/"+s, "application/x-"+s+"-request", strings.NewReader("0000"))
			if (res.StatusCode == http.StatusOK) != may {
				t.Errorf("%s posts to %s: %s", c.who, s, res.Status)
			}
		}
	}
	if _, err := h.try("", "-c", "http.extraHeader=Authorization: Bearer "+h.Owner, "ls-remote",
		h.url+"app"); err != nil {
		t.Errorf("as a Bearer: %v", err)
	}
	res, err := http.Get(h.url + "app/info/refs?service=git-upload-pack")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("nobody gets %s, %q", res.Status, res.Header)
	}
	// Pushes and refusals are in the audit log, once each, and no token is.
	var pushes, refusals int
	for _, e := range audittest.Calls(t, h.Audit) {
		if e.MethodName == "git-receive-pack" && e.Status.Code == 0 {
			pushes++
		} else if e.Status.Code == 7 {
			refusals++
		}
		if strings.Contains(fmt.Sprint(e), h.Owner) {
			t.Errorf("a token is in the audit log: %+v", e)
		}
	}
	if pushes < 3 || refusals < 4 {
		t.Errorf("%d pushes and %d refusals are in the audit log", pushes, refusals)
	}
}

func (h *host) post(url, kind string, body io.Reader) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, url, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestHostilePaths(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	for _, path := range []string{
		"..%2f..%2fapp/info/refs?service=git-upload-pack", "app/../app/info/refs?service=git-upload-pack",
		"app%00/info/refs?service=git-upload-pack",
		"app/objects/info/packs", "app/HEAD", "app/info/refs", "app/info/refs?service=git-upload-archive",
		"app/info/refs?service=--help",
		"-c/info/refs?service=git-upload-pack", "none/info/refs?service=git-upload-pack", "app/config", "",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.as(h.Owner, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, res.Status)
		}
	}
	for kind, path := range map[string]string{"text/plain": "app/git-receive-pack",
		"application/x-git-receive-pack-request": "app/git-upload-pack"} {
		if res := h.post(h.as(h.Owner, path), kind,
			strings.NewReader("0000")); res.StatusCode != http.StatusBadRequest {
			t.Errorf("POST %s as %s: %s", path, kind, res.Status)
		}
	}
	if _, err := h.repos.Get(t.Context(), "giggle", "app"); err != nil {
		t.Error(err)
	}
}

// A push of many bytes goes through, and concurrent ones each arrive. Clients that hold as many git processes as their
// project may have keep out themselves, and nobody else; what is refused is a whole answer, and each process has its
// limits.
func TestProcessesAreBounded(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	cfg := h.cfg
	cfg.Parallel, cfg.Share, cfg.Patience = 3, 2, 50*time.Millisecond
	repos, err := git.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repos.Create(t.Context(), "another-project", "app"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(githttp.New(githttp.Config{
		Repos:    repos,
		Identity: h.IAM,
		Project:  h.Projects.Find,
		Enabled:  h.Projects.CheckEnabled,
		Audit:    h.Audit,
		NewID:    uuid.NewString,
		Log:      slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	clone := func(project, dir string) (string, error) {
		return h.try("", "clone", "-q",
			strings.Replace(srv.URL, "http://", "http://x:"+h.Owner+"@", 1)+"/p/"+project+"/r/app", dir)
	}
	var bodies []*io.PipeWriter
	ended := make(chan struct{})
	for range 2 { // pushes that begin and don't go on
		r, w := io.Pipe()
		bodies = append(bodies, w)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/p/giggle/r/app/git-receive-pack",
			r)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("x", h.Owner)
		req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
		go func() {
			if res, err := http.DefaultClient.Do(req); err == nil {
				_ = res.Body.Close()
			}
			ended <- struct{}{}
		}()
		if _, err := w.Write([]byte("00")); err != nil {
			t.Fatal(err)
		}
	}
	limits := h.limits(t)
	for deadline := time.Now().Add(20 * time.Second); len(limits) < 2; limits = h.limits(t) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes of git", len(limits))
		}
	}
	for _, l := range limits {
		if !strings.Contains(l, fmt.Sprint(2<<30)) || !strings.Contains(l, "600") || !strings.Contains(l, "oom 1000") {
			t.Errorf("a process has the limits %s", l)
		}
	}
	if out, err := clone("giggle", "no"); err == nil || !strings.Contains(out, "429") {
		t.Errorf("a third of the project: %v, %s", err, out)
	}
	if out, err := clone("another-project", "other"); err != nil {
		t.Errorf("one of another project: %v, %s", err, out)
	}
	for _, w := range bodies {
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
		<-ended
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		out, err := clone("giggle", "yes")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after they ended: %v, %s", err, out)
		}
	}
}

// limits are those of the processes of git that write to the repositories.
func (h *host) limits(t *testing.T) (out []string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		args, _ := os.ReadFile(dir + "/cmdline") // it may have ended
		if text := string(args); !strings.HasPrefix(text, "git\x00") || !strings.Contains(text, "receive-pack\x00") ||
			!strings.Contains(text, h.cfg.Dir) {
			continue
		}
		limits, _ := os.ReadFile(dir + "/limits")
		oom, _ := os.ReadFile(dir + "/oom_score_adj")
		var l []string
		for line := range strings.Lines(string(limits)) {
			if strings.HasPrefix(line, "Max address space") || strings.HasPrefix(line, "Max cpu time") {
				l = append(l, strings.Fields(line)...)
			}
		}
		out = append(out, strings.Join(l, " ")+" oom "+strings.TrimSpace(string(oom)))
	}
	return out
}

func TestBigAndConcurrentPushes(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	f, err := os.Create(filepath.Join(h.dir, "w/big"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, bigPush); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h.git("w", "add", ".")
	h.git("w", "commit", "-qm", "big")
	h.git("w", "push", "-q", "origin", "main")
	const n = 8
	var wg sync.WaitGroup
	for i := range n {
		d := fmt.Sprintf("c%d", i)
		h.git("", "clone", "-q", "--depth", "1", "--filter=blob:limit=1m", "--no-checkout", h.as(h.Owner, "app"), d)
		wg.Go(func() {
			if out, err := h.try(d, "push", "-q", "origin", fmt.Sprintf("HEAD:refs/heads/b%d", i)); err != nil {
				t.Errorf("push %d: %v %s", i, err, out)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(h.events(), "refs/heads/b"); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
	// Over the limit: refused, and nothing of it stays.
	small := h.cfg
	small.MaxInput = 1 << 20
	repos, err := git.Open(t.Context(), small)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repos.Create(t.Context(), "giggle", "small")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(githttp.New(githttp.Config{
		Repos:    repos,
		Identity: h.IAM,
		Project:  h.Projects.Find,
		Enabled:  h.Projects.CheckEnabled,
		Audit:    h.Audit,
		NewID:    uuid.NewString,
		Log:      slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	out, err := h.try("w", "push", strings.Replace(srv.URL, "http://", "http://x:"+h.Owner+"@", 1)+"/p/giggle/r/small",
		"main")
	if err == nil {
		t.Errorf("%d bytes went into a repository that takes 1 MB: %s", bigPush, out)
	}
	if size, err := repos.Size(r); err != nil || size > 1<<20 {
		t.Errorf("the refused push left %d bytes, %v", size, err)
	}
}

// pack makes a pack of one object whose content is what body writes.
func pack(kind byte, size uint64, body func(io.Writer)) []byte {
	var out bytes.Buffer
	out.WriteString("PACK")
	_ = binary.Write(&out, binary.BigEndian, [2]uint32{2, 1})
	b := kind<<4 | byte(size&15)
	size >>= 4
	for size > 0 {
		out.WriteByte(b | 0x80)
		b, size = byte(size&0x7f), size>>7
	}
	out.WriteByte(b)
	z := zlib.NewWriter(&out)
	body(z)
	_ = z.Close()
	sum := sha1.Sum(out.Bytes())
	return append(out.Bytes(), sum[:]...)
}

// Packs that are bombs, that lie or that are no packs change nothing, and the host lives on.
func TestHostilePacks(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	h.events()
	zeros := func(n int64) func(io.Writer) {
		return func(w io.Writer) { _, _ = io.CopyN(w, zeroReader{}, n) }
	}
	const hash = "1111111111111111111111111111111111111111"
	command := func(ref string, pack []byte) io.Reader {
		line := "0000000000000000000000000000000000000000 " + hash + " " + ref + "\x00report-status\n"
		return io.MultiReader(strings.NewReader(fmt.Sprintf("%04x%s0000", len(line)+4, line)), bytes.NewReader(pack))
	}
	for name, body := range map[string]io.Reader{
		"a commit that is all zeros":    command("refs/heads/x", pack(1, bomb, zeros(bomb))),
		"a tree that says it is larger": command("refs/heads/x", pack(2, 1<<40, zeros(10))),
		"an object that is not there": command("refs/heads/x",
			pack(3, 3, func(w io.Writer) { _, _ = w.Write([]byte("abc")) })),
		"no pack":     command("refs/heads/x", []byte("nonsense")),
		"half a pack": command("refs/heads/x", pack(3, 1<<20, zeros(1<<20))[:40]),
		"a ref that leads out": command("refs/heads/../../../x",
			pack(3, 3, func(w io.Writer) { _, _ = w.Write([]byte("abc")) })),
		"a line that never ends": strings.NewReader("ffff" + strings.Repeat("x", 1000)),
	} {
		res := h.post(h.as(h.Owner, "app")+"/git-receive-pack", "application/x-git-receive-pack-request", body)
		if answer, err := io.ReadAll(res.Body); err == nil && bytes.Contains(answer, []byte("ok refs/")) {
			t.Errorf("%s was taken: %.200q", name, answer)
		}
	}
	if got := h.events(); got != "" {
		t.Errorf("refused packs made %q", got)
	}
	r, err := h.repos.Get(t.Context(), "giggle", "app")
	if err != nil {
		t.Fatal(err)
	}
	if size, err := h.repos.Size(r); err != nil || size > 1<<20 {
		t.Errorf("refused packs left %d bytes, %v", size, err)
	}
	h.write("w/a.txt", "still works")
	h.git("w", "commit", "-qam", "after")
	h.git("w", "push", "-q", "origin", "main")
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A push whose event was not written, because the platform was killed in between, is found at the next start, once.
func TestPushBeforeCrash(t *testing.T) {
	h := newHost(t)
	h.clone("w")
	h.events()
	r, err := h.repos.Get(t.Context(), "giggle", "app")
	if err != nil {
		t.Fatal(err)
	}
	head := h.git("w", "rev-parse", "HEAD")
	// As git leaves it when it is done and nobody is there any more.
	h.git("", "--git-dir", filepath.Join(h.cfg.Dir, r.ID+".git"), "update-ref", "refs/heads/late", head)
	left := filepath.Join(h.cfg.Dir, r.ID+".git", "objects", "tmp_objdir-incoming-x")
	lock := filepath.Join(h.cfg.Dir, r.ID+".git", "refs", "heads", "main.lock")
	orphan := filepath.Join(h.cfg.Dir, "orphan.git")
	for _, d := range []string{left, orphan} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"refs/heads/late 0→1", ""} {
		if h.repos, err = git.Open(context.Background(), h.cfg); err != nil {
			t.Fatal(err)
		}
		if got := h.events(); got != want {
			t.Errorf("start %d found %q, want %q", i, got, want)
		}
	}
	for _, p := range []string{left, lock, orphan} {
		if _, err := os.Stat(p); !os.IsNotExist(err) {
			t.Errorf("%s is still there", p)
		}
	}
}
