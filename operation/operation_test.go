package operation_test

import (
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
	if op, err := ops.Wait(t.Context(), name, 0); err != nil || op.Done {
		t.Fatalf("Wait without patience = %+v, %v", op, err)
	}
	waited := make(chan operation.Operation, 1)
	go func() {
		op, _ := ops.Wait(t.Context(), name, time.Minute)
		waited <- op
	}()
	update(func(tx *store.Tx) error {
		if p, err := operation.Pending(tx, "test"); err != nil || len(p) != 1 {
			t.Errorf("Pending = %v, %v", p, err)
		}
		return operation.Finish(tx, name, nil, fault.New(fault.NotFound, "gone"))
	})
	if op := <-waited; !op.Done || op.Error == nil || op.Error.Code != fault.NotFound {
		t.Errorf("the waiter got %+v", op)
	}
	update(func(tx *store.Tx) error { return operation.Finish(tx, name, "late", nil) })
	if op, _ := ops.Get(t.Context(), name); op.Response != nil {
		t.Error("a finished operation was finished again")
	}
	now = now.Add(31 * 24 * time.Hour)
	if err := ops.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := ops.List(t.Context(), resource.Location{Project: "p", Location: "l"}, "", 10); err != nil || len(list) != 0 {
		t.Errorf("after 30 days: %v, %v", list, err)
	}
}
