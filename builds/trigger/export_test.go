package trigger

import (
	"context"
	"testing"

	"giggle/store"
)

// MaxPulls is how many pull requests of a project are kept.
const MaxPulls = maxPulls

// Act acts once upon everything that is there.
func (s *Triggers) Act(ctx context.Context) error { return s.act(ctx) }

// Pulls is how many pull requests are kept.
func Pulls(t *testing.T, st *store.Store) (n int) {
	t.Helper()
	err := st.View(t.Context(), func(tx *store.Tx) (err error) {
		n, err = pullTable.Count(tx, "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
