package shell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSignedIn(t *testing.T) {
	for name, c := range map[string]struct{ have, want string }{
		"the owner":         {"[core]\naccount = you@giggle.test\nproject = giggle\n", "[core]\naccount = you@giggle.test\nproject = giggle\n"},
		"somebody else":     {"[core]\naccount = bot@giggle.iam.gserviceaccount.com\n", "[core]\naccount = bot@giggle.iam.gserviceaccount.com\n"},
		"revoked":           {"[core]\nproject = giggle\n\n[run]\nregion = x\n", "[core]\naccount = you@giggle.test\nproject = giggle\n\n[run]\nregion = x\n"},
		"another section's": {"[run]\naccount = x\n", "[core]\naccount = you@giggle.test\n\n[run]\naccount = x\n"},
		"empty":             {"", "[core]\naccount = you@giggle.test\n\n"},
	} {
		if got := signedIn(c.have, "you@giggle.test"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// gsutil finds the refresh token where `gcloud auth login` puts it, and nobody else does.
func TestWriteBoto(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "legacy_credentials", "you@giggle.test")
	s := &Session{RefreshToken: "1//token"}
	if err := s.writeBoto(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, ".boto")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "\n[Credentials]\ngs_oauth2_refresh_token = 1//token\n") {
		t.Errorf("%s: %q, %v", file, text, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
