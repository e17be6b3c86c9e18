package modproxy

import (
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the path is, what it leads to lies inside the directory and is no file of the proxy's own.
func FuzzParse(f *testing.F) {
	for _, p := range []string{
		"/m.test/a/@v/list", "/m.test/!a/@v/v1.0.0.zip", "/m.test/a/@latest", "/sumdb/sum.golang.org/lookup/a@v1",
		"/../x/@v/list", "/sumdb/../../x/latest",
		"/m.test/a/@v/../../../b.mod", "/m.test/a/@v/main.info", "/sumdb/a/tile/../../..",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		q, err := parse(p)
		if err != nil {
			return
		}
		if !filepath.IsLocal(q.path) || q.path != path.Clean(q.path) || strings.HasPrefix(q.path, ".") ||
			strings.ContainsRune(q.path, 0) {
			t.Errorf("%q leads to %q", p, q.path)
		}
		if q.path != strings.TrimPrefix(p, "/") {
			t.Errorf("%q became %q", p, q.path)
		}
	})
}
