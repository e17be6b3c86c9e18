package operations_test

import (
	"context"
	"fmt"
	"testing"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"giggle/api/guard/guardtest"
	"giggle/api/operations"
	"giggle/fault"
	"giggle/operation"
	"giggle/store"
)

const in = "projects/giggle/locations/europe-north1"

// newMethods has five operations of things, of which the third failed and the others are done, and one of something
// else.
func newMethods(t *testing.T) operations.Operations {
	w := guardtest.New(t)
	err := w.Store.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 6 {
			op := operation.Operation{
				Name:   fmt.Sprintf("%s/operations/op-%d", in, i),
				Kind:   "thing",
				Target: in + "/things/x",
				Verb:   "create",
			}
			if i == 1 {
				op.Kind = "another"
			}
			if err := operation.Open(tx, op); err != nil {
				return err
			}
			var failure error
			if i == 3 {
				failure = fault.New(fault.FailedPrecondition, "no")
			}
			if err := operation.Finish(tx, op.Name, "done", failure); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return operations.New(operations.Reader{
		Store:   operation.New(w.Store),
		Kind:    "thing",
		Project: w.Projects.Find,
		Pages:   w.Pages,
	}, func(_ context.Context, op operation.Operation) (*longrunningpb.Operation, error) {
		if op.Error != nil {
			return operations.Failed(op.Name, &emptypb.Empty{}, op.Error.Code, op.Error.Message)
		}
		return operations.Done(op.Name, nil, wrapperspb.String(op.Verb))
	})
}

func TestGetAndWait(t *testing.T) {
	m, ctx := newMethods(t), t.Context()
	for _, tt := range []struct {
		name string
		code fault.Code
	}{
		{in + "/operations/op-0", 0},
		{in + "/operations/op-1", fault.NotFound}, // another product's
		{in + "/operations/op-9", fault.NotFound},
		{"projects/none-such/locations/europe-north1/operations/op-0", fault.NotFound},
		{"operations/op-0", fault.InvalidArgument},
	} {
		got, err := m.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: tt.name})
		waited, err2 := m.WaitOperation(ctx,
			&longrunningpb.WaitOperationRequest{Name: tt.name, Timeout: durationpb.New(1)})
		if tt.code == 0 {
			if err != nil || err2 != nil || got.GetName() != tt.name || !waited.GetDone() {
				t.Errorf("%s: %v, %v; %v, %v", tt.name, got, err, waited, err2)
			}
			continue
		}
		if !fault.Is(err, tt.code) || !fault.Is(err2, tt.code) {
			t.Errorf("%s: %v, %v, want %v", tt.name, err, err2, tt.code)
		}
	}
	if _, err := m.WaitOperation(ctx,
		&longrunningpb.WaitOperationRequest{Name: in + "/operations/op-0", Timeout: durationpb.New(-1)}); !fault.Is(err,
		fault.InvalidArgument) {
		t.Errorf("a negative timeout: %v", err)
	}
	failed, err := m.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: in + "/operations/op-3"})
	if err != nil || failed.GetError().GetMessage() != "no" || failed.GetMetadata() == nil || !failed.GetDone() {
		t.Errorf("the failed one: %v, %v", failed, err)
	}
}

// Every page but the last is full, whatever other products have in between.
func TestList(t *testing.T) {
	m, ctx := newMethods(t), t.Context()
	var seen []string
	token := ""
	for {
		page, err := m.ListOperations(ctx,
			&longrunningpb.ListOperationsRequest{Name: in, PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range page.GetOperations() {
			seen = append(seen, op.GetName()[len(in)+len("/operations/"):])
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		if len(page.GetOperations()) != 2 || len(seen) > 5 {
			t.Fatalf("a page of %v, %v so far", page, seen)
		}
	}
	if got := fmt.Sprint(seen); got != "[op-0 op-2 op-3 op-4 op-5]" {
		t.Errorf("listed %s", got)
	}
	if _, err := m.ListOperations(ctx,
		&longrunningpb.ListOperationsRequest{Name: in, Filter: "done=true"}); !fault.Is(err, fault.Unimplemented) {
		t.Errorf("a filter: %v", err)
	}
}
