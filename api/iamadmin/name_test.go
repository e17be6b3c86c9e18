package iamadmin

import (
	"strings"
	"testing"

	"giggle/resource"
)

// A name that is taken has an account, and no part of it is a path of its own.
func FuzzAccountName(f *testing.F) {
	for _, s := range []string{"projects/p/serviceAccounts/a@b", "projects/-/serviceAccounts/1/keys/2",
		"projects//serviceAccounts/", "projects/a/b/serviceAccounts/c", ""} {
		f.Add(s)
	}
	s := New(Config{Project: func(ref string) (resource.Project, error) { return resource.Project{ID: ref}, nil }})
	f.Fuzz(func(t *testing.T, name string) {
		project, id, tail, err := s.account(name)
		if err != nil {
			return
		}
		if project == "" || strings.Contains(project, "/") || strings.Contains(id, "/") {
			t.Errorf("%q is %q, %q, %q", name, project, id, tail)
		}
		if _, _, key, err := s.key(name); err == nil && (key == "" || strings.Contains(key, "/")) {
			t.Errorf("%q is key %q", name, key)
		}
	})
}
