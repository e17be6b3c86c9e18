//go:build long

package cloud

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"giggle/logging/audit/audittest"
	"giggle/storage"
)

// The environment of the process that is killed.
const (
	killAt  = "GIGGLE_TEST_KILL_AT"
	killDir = "GIGGLE_TEST_KILL_DIR"
)

// killCalls are what the process does, one call after the other, each acknowledged on its output.
var killCalls = []struct{ name, host, method, path, body string }{
	{"bucket", "storage.googleapis.com", "POST", "/storage/v1/b?project=giggle", `{"name":"a-bucket-to-kill"}`},
	{"object", "storage.googleapis.com", "POST", "/upload/storage/v1/b/a-bucket-to-kill/o?uploadType=media&name=one", "the first"},
	{"replace", "storage.googleapis.com", "POST", "/upload/storage/v1/b/a-bucket-to-kill/o?uploadType=media&name=one", "the second"},
	{"policy", "storage.googleapis.com", "PUT", "/storage/v1/b/a-bucket-to-kill/iam", `{"bindings":[{"role":"roles/storage.objectViewer","members":["allUsers"]}]}`},
	{"copy", "storage.googleapis.com", "POST", "/storage/v1/b/a-bucket-to-kill/o/one/copyTo/b/a-bucket-to-kill/o/two", ""},
	{"delete", "storage.googleapis.com", "DELETE", "/storage/v1/b/a-bucket-to-kill/o/one", ""},
	{"empty", "storage.googleapis.com", "DELETE", "/storage/v1/b/a-bucket-to-kill/o/two", ""},
	{"drop", "storage.googleapis.com", "DELETE", "/storage/v1/b/a-bucket-to-kill", ""},
	{"again", "storage.googleapis.com", "POST", "/storage/v1/b?project=giggle", `{"name":"a-bucket-to-kill"}`},
	{"account", "iam.googleapis.com", "POST", "/v1/projects/giggle/serviceAccounts", `{"accountId":"short-lived"}`},
	{"act", "iam.googleapis.com", "POST", "/v1/projects/giggle/serviceAccounts/short-lived@giggle.iam.gserviceaccount.com:setIamPolicy", `{"policy":{"bindings":[{"role":"roles/iam.serviceAccountUser","members":["user:x@giggle.test"]}]}}`},
	{"gone", "iam.googleapis.com", "DELETE", "/v1/projects/giggle/serviceAccounts/short-lived@giggle.iam.gserviceaccount.com", ""},
	{"project", "cloudresourcemanager.googleapis.com", "POST", "/v1/projects", `{"projectId":"made-at-a-kill"}`},
	{"repository", "artifactregistry.googleapis.com", "POST", "/v1/projects/giggle/locations/europe-north1/repositories?repositoryId=r", `{"format":"DOCKER"}`},
	{"open", "artifactregistry.googleapis.com", "POST", "/v1/projects/giggle/locations/europe-north1/repositories/r:setIamPolicy", `{"policy":{"bindings":[{"role":"roles/artifactregistry.reader","members":["allUsers"]}]}}`},
	{"close", "artifactregistry.googleapis.com", "DELETE", "/v1/projects/giggle/locations/europe-north1/repositories/r", ""},
	{"source", "sourcerepo.googleapis.com", "POST", "/v1/projects/giggle/repos", `{"name":"projects/giggle/repos/app"}`},
}

func killConfig(dir string) Config {
	return Config{
		Data:    filepath.Join(dir, "data"),
		Mirror:  filepath.Join(dir, "mirror"),
		Project: "giggle",
		Owner:   "you@giggle.test",
		Address: "127.71.90.3",
		Console: "127.0.0.1:0",
		Edge:    "127.0.0.1:0",
		Idle:    time.Minute,
		Version: "test",
		Now:     time.Now,
		Log:     slog.New(slog.DiscardHandler),
	}
}

// ask sends a call as the owner.
func ask(t *testing.T, c *Cloud, host, method, path, body, request string) *httptest.ResponseRecorder {
	t.Helper()
	token, _, err := c.identity.AccessTokenFor(c.identity.Owner(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, "https://"+host+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", request)
	w := httptest.NewRecorder()
	muxes(t, c)[host].ServeHTTP(w, r)
	return w
}

// TestLongKilled is the process that is killed, when TestLongKillBetweenWrites starts it.
func TestLongKilled(t *testing.T) {
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err != nil {
		return // it is the other process of TestLongKillBetweenWrites, and nothing by itself
	}
	steps := 0
	cfg := killConfig(os.Getenv(killDir))
	cfg.Step = func(string) {
		if steps++; steps == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range killCalls {
		if w := ask(t, c, x.host, x.method, x.path, x.body, x.name); w.Code >= 300 {
			t.Fatalf("%s: %d %s", x.name, w.Code, w.Body)
		}
		fmt.Println("done", x.name)
	}
	fmt.Println("done all")
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// A kill at every step of every write, one after the other: what was acknowledged is there and in the audit log,
// nothing is there by half, and no policy is without its resource.
func TestLongKillBetweenWrites(t *testing.T) {
	for at := 1; ; at++ {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestLongKilled$")
		cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(at), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var done []string
		said := new(strings.Builder)
		for lines := bufio.NewScanner(io.TeeReader(out, said)); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "done "); ok {
				done = append(done, name)
			}
		}
		err = cmd.Wait()
		cancel()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: the process ended with %v: %s", at, err, said)
		}
		whole := len(done) > 0 && done[len(done)-1] == "all"
		if whole {
			done = done[:len(done)-1]
		}
		check(t, at, dir, done)
		if t.Failed() {
			t.FailNow()
		}
		if whole {
			if at < 40 {
				t.Errorf("there were only %d steps", at)
			}
			return
		}
	}
}

// check opens what a killed process left.
func check(t *testing.T, at int, dir string, done []string) {
	c, err := New(t.Context(), killConfig(dir))
	if err != nil {
		t.Fatalf("step %d, after %v: it doesn't open: %v", at, done, err)
	}
	defer func() {
		if err := errors.Join(c.scaler.Close(context.Background()), c.Close()); err != nil {
			t.Error(err)
		}
	}()
	had := make(map[string]bool)
	for _, name := range done {
		had[name] = true
	}
	logged := make(map[string]int)
	for _, e := range audittest.Calls(t, c.audit) {
		logged[e.Request.UserAgent]++
	}
	for name := range had {
		if logged[name] != 1 {
			t.Errorf("step %d: the log has %d entries of %s", at, logged[name], name)
		}
	}
	next := ""
	if len(done) < len(killCalls) {
		next = killCalls[len(done)].name // it may have been done, and not acknowledged
	}
	// there says whether something must be there (made, and nothing that removes it begun), or must not be.
	there := func(made, removed string) (must, mustNot bool) {
		return had[made] && !had[removed] && next != removed, !had[made] && next != made || had[removed]
	}
	expect := func(what string, code int, must, mustNot bool) {
		switch {
		case must && code != http.StatusOK:
			t.Errorf("step %d, after %v: %s is gone (%d)", at, done, what, code)
		case mustNot && code == http.StatusOK:
			t.Errorf("step %d, after %v: %s is there", at, done, what)
		}
	}
	get := func(host, path string) *httptest.ResponseRecorder { return ask(t, c, host, "GET", path, "", "check") }
	must, mustNot := there("object", "delete")
	one := get("storage.googleapis.com", "/a-bucket-to-kill/one")
	expect("the object", one.Code, must, mustNot)
	if one.Code == http.StatusOK && had["replace"] && one.Body.String() != "the second" {
		t.Errorf("step %d: the object that was replaced is %q", at, one.Body)
	}
	must, mustNot = there("copy", "empty")
	if two := get("storage.googleapis.com", "/a-bucket-to-kill/two"); true {
		expect("the copy", two.Code, must, mustNot)
	}
	must, mustNot = there("account", "gone")
	expect("the account", get("iam.googleapis.com",
		"/v1/projects/giggle/serviceAccounts/short-lived@giggle.iam.gserviceaccount.com").Code, must, mustNot)
	must, mustNot = there("repository", "close")
	expect("the repository", get("artifactregistry.googleapis.com",
		"/v1/projects/giggle/locations/europe-north1/repositories/r").Code, must, mustNot)
	must, mustNot = there("source", "")
	expect("the source repository", get("sourcerepo.googleapis.com", "/v1/projects/giggle/repos/app").Code, must,
		mustNot)
	must, mustNot = there("project", "")
	expect("the project", get("cloudresourcemanager.googleapis.com", "/v1/projects/made-at-a-kill").Code, must, mustNot)
	// A bucket of the name that was dropped has no policy of the one before.
	if had["again"] || next == "again" {
		if p := c.identity.Policy("projects/giggle/buckets/a-bucket-to-kill"); len(p.Bindings) > 0 {
			t.Errorf("step %d: the new bucket has the policy of the one before: %+v", at, p)
		}
	}
	if _, err := c.storage.Bucket(t.Context(), "a-bucket-to-kill"); err != nil {
		if p := c.identity.Policy("projects/giggle/buckets/a-bucket-to-kill"); len(p.Bindings) > 0 {
			t.Errorf("step %d: a policy is there without its bucket", at)
		}
	} else if page, err := c.storage.List(t.Context(),
		storage.Query{Bucket: "a-bucket-to-kill", Limit: 10}); err == nil {
		for _, o := range page.Objects {
			if _, r, err := c.storage.Open(t.Context(), o.Bucket, o.Name, 0, storage.Conditions{}); err != nil {
				t.Errorf("step %d: the object %s has no bytes: %v", at, o.Name, err)
			} else {
				_ = r.Close()
			}
		}
	}
}
