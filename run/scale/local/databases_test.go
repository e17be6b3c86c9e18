package local_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/run/scale/local"
)

// A revision with databases has their directory at /cloudsql, which its root can't change, until its end; one that
// could not be made has let go of it, too.
func TestDatabases(t *testing.T) {
	w := newWorld(t)
	ended := make(chan bool, 2)
	w.Databases = func(_ context.Context, c local.Caller, names []string) (string, func(), error) {
		if c.Account != "123456789012-compute@developer.gserviceaccount.com" || c.Warn == nil ||
			!slices.Equal(names, []string{"giggle:europe-north1:jokes"}) {
			t.Errorf("asked for %v as %+v", names, c)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "socket"), []byte("a database"), 0o644); err != nil {
			return "", nil, err
		}
		return dir, func() { ended <- true }, nil
	}
	gone := func(what string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			t.Errorf("%s: its databases are still open", what)
		}
	}
	rev := w.revision(t, v1.Config{Entrypoint: []string{"/app", "serve"}}, nil)
	rev.Template.CloudSQL.Instances = []string{"giggle:europe-north1:jokes"}
	i := w.start(t, rev)
	if got := get(t, i, 8080, "/read", "path", "/cloudsql/socket"); got != "a database" {
		t.Errorf("/cloudsql/socket is %q", got)
	}
	select {
	case <-ended:
		t.Error("the databases have ended before their instance")
	default:
	}
	if err := i.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	gone("an instance that has ended")

	// Its root overwrites what is there, and writes beside it.
	for _, path := range []string{"/cloudsql/socket", "/cloudsql/other"} {
		rev = w.revision(t, v1.Config{Entrypoint: []string{"/app", "write", path, "4"}}, nil)
		rev.Template.CloudSQL.Instances = []string{"giggle:europe-north1:jokes"}
		i = w.start(t, rev)
		gone("an instance that writes")
		if n := i.Diagnosis(8080); !strings.Contains(n, "read-only file system") {
			t.Errorf("writing %s: %s", path, n)
		}
	}

	rev = w.revision(t, v1.Config{Entrypoint: []string{"/none"}}, nil)
	rev.Template.CloudSQL.Instances = []string{"giggle:europe-north1:jokes"}
	if _, err := w.Prepare(t.Context(), rev, nil); err == nil {
		t.Error("a command that is not there was prepared")
	}
	gone("an instance that could not be made")
}
