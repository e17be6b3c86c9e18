package shell

import "testing"

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
