package secrets_test

import (
	"os"
	"path/filepath"
	"testing"

	"giggle/fault"
	"giggle/secrets"
)

func TestGet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := os.MkdirAll(filepath.Join(dir, "projects/p-1/secrets/hook/versions"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"projects/p-1/secrets/hook/versions/1": "s3cret\r\n", "outside": "no"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := secrets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v (%v)", info.Mode(), err)
	}
	if b, err := s.Get(secrets.Name("p-1", "hook", "1")); err != nil || string(b) != "s3cret" {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{
		"", "outside", "../secrets/outside", secrets.Name("p-1", "hook", "2"), secrets.Name("p-1", "..", "1"),
		secrets.Name("p-1", "hook", "../../../../../outside"), secrets.Name("p-1/../p-1", "hook", "1"),
	} {
		if b, err := s.Get(name); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func FuzzIsName(f *testing.F) {
	for _, s := range []string{secrets.Name("p", "s", "latest"), secrets.Name("p", "..", "1"), "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if secrets.IsName(s) && (!filepath.IsLocal(s) || filepath.Clean(s) != s) {
			t.Errorf("%q is a name and leads elsewhere", s)
		}
	})
}
