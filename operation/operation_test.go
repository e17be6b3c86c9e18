package operation_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/store"
)

func TestLifeOfAnOperation(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	ops := operation.New(st)
	name := resource.Operation("p", "l", "1").String()
	update := func(fn func(tx *store.Tx) error) {
		t.Helper()
		if err := st.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	update(func(tx *store.Tx) error { return operation.Open(tx, operation.Operation{Name: name, Kind: "test"}) })
	if op, err := ops.Wait(t.Context(), "test", name, 0); err != nil || op.Done {
		t.Fatalf("Wait without patience = %+v, %v", op, err)
	}
	waited := make(chan operation.Operation, 1)
	go func() {
		op, _ := ops.Wait(t.Context(), "test", name, time.Minute)
		waited <- op
	}()
	update(func(tx *store.Tx) error {
		return operation.Finish(tx, name, nil, fault.New(fault.NotFound, "gone"))
	})
	if op := <-waited; !op.Done || op.Error == nil || op.Error.Code != fault.NotFound {
		t.Errorf("the waiter got %+v", op)
	}
	update(func(tx *store.Tx) error { return operation.Finish(tx, name, "late", nil) })
	if op, _ := ops.Get(t.Context(), "test", name); op.Response != nil {
		t.Error("a finished operation was finished again")
	}
	now = now.Add(31 * 24 * time.Hour)
	if err := ops.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := ops.List(t.Context(), "test", resource.Location{Project: "p", Location: "l"}, "", 10); err != nil ||
		len(list) != 0 {
		t.Errorf("after 30 days: %v, %v", list, err)
	}
}

// Operations of all products share their names' form and place. Who asks for one kind sees no other.
func TestKindsAreApart(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	ops := operation.New(st)
	here := resource.Location{Project: "p", Location: "l"}
	names := make(map[string][]string) // by kind
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 50 {
			kind := map[bool]string{true: "mine", false: "another"}[i%10 == 7]
			name := resource.Operation("p", "l", fmt.Sprintf("%02d", i)).String()
			names[kind] = append(names[kind], name)
			if err := operation.Open(tx, operation.Operation{Name: name, Kind: kind, Done: true}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, own := range names {
		for of, all := range names {
			for _, name := range all {
				if _, err := ops.Get(t.Context(), kind, name); (err == nil) != (kind == of) ||
					err != nil && !fault.Is(err, fault.NotFound) {
					t.Errorf("Get %s of %s = %v", name, kind, err)
				}
				if op, err := ops.Wait(t.Context(), kind, name, time.Minute); (err == nil) != (kind == of) ||
					err != nil && (op.Name != "" || !fault.Is(err, fault.NotFound)) {
					t.Errorf("Wait %s of %s = %+v, %v", name, kind, op, err)
				}
			}
		}
		for _, limit := range []int{0, 1, 2, 3, 5, 100} { // a page is full as long as there is more
			var got []string
			for last := ""; ; {
				page, err := ops.List(t.Context(), kind, here, last, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, op := range page {
					last = op.Name
					got = append(got, op.Name)
				}
				if limit == 0 || len(page) < limit {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(own) {
				t.Errorf("%s by %d: %v, want %v", kind, limit, got, own)
			}
		}
	}
}
