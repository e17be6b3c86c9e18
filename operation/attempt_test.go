package operation_test

import (
	"path/filepath"
	"testing"
	"time"

	"giggle/fault"
	"giggle/operation"
	"giggle/store"
)

func TestAttempts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	// begin is a start of the platform that begins the work; what it returns ends the work, if there is an orderly end.
	begin := func() (end func(), err error) {
		st, err := store.Open(t.Context(), file, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		end, err = operation.NewAttempts(st).Begin(t.Context(), "builds/x")
		if err != nil {
			return nil, st.Close()
		}
		t.Cleanup(func() { _ = st.Close() }) // of a killed platform nothing else is done
		return end, nil
	}
	for range 3 { // orderly ends don't count
		end, err := begin()
		if end == nil || err != nil {
			t.Fatal("the work was not begun", err)
		}
		end()
	}
	for i := range 2 {
		if end, err := begin(); end == nil || err != nil {
			t.Fatalf("after %d unclean ends it was not begun: %v", i, err)
		}
	}
	if end, _ := begin(); end != nil {
		t.Fatal("the work was begun a third time")
	}
	st, err := store.Open(t.Context(), file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	a := operation.NewAttempts(st)
	if _, err := a.Begin(t.Context(), "builds/x"); !fault.Is(err, fault.Aborted) {
		t.Errorf("the third beginning: %v", err)
	}
	if end, err := a.Begin(t.Context(), "builds/y"); err != nil {
		t.Errorf("other work: %v", err)
	} else {
		end()
	}
	if err := a.Forget(t.Context(), "builds/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Begin(t.Context(), "builds/x"); err != nil {
		t.Errorf("asked for anew: %v", err)
	}
}
