package cloud

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"giggle/iam"
	"giggle/store"
)

// A permission that a rule asks for and no role lists could be granted by nobody but the owner, and explained to
// nobody.
func TestRolesKnowEveryPermission(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	ids, err := iam.New(t.Context(), iam.Config{Store: st, Owner: "you@giggle.test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range (&Cloud{}).apis() {
		for rpc, rule := range a.rules {
			if rule.Permission == "" {
				continue
			}
			if n++; !slices.Contains(ids.Permissions(), rule.Permission) {
				t.Errorf("%s: %s needs %s, which no role in iam/roles.txt has", a.host, rpc, rule.Permission)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d rules were looked at", n)
	}
}
