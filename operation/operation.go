// Package operation keeps long-running operations as rows: they survive a restart, are listed, waited for, and expire
// after 30 days.
//
// A product opens one in the transaction that writes the intent, and its reconciler closes it in the transaction that
// writes the outcome, so a crash can't lose one. The metadata and the response are the product's own JSON; the wire
// packages know what messages they stand for.
package operation

import (
	"context"
	"encoding/json"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// retention is how long a finished operation can still be asked for.
const retention = 30 * 24 * time.Hour

// Operation is one long-running operation.
type Operation struct {
	Name     string          // "projects/P/locations/L/operations/ID"
	Kind     string          // what makes it: "run.service", "build", "artifacts.repository"
	Target   string          // full name of the resource that it works on
	Verb     string          // "create", "update", "delete"
	Metadata json.RawMessage `json:",omitempty"` // the product's, or nil
	Done     bool
	Response json.RawMessage `json:",omitempty"` // the product's, when done without error
	Error    *Failure        // when done with one
	Finished time.Time
}

// Failure is how an operation failed.
type Failure struct {
	Code    fault.Code
	Message string
}

var table = store.NewTable[Operation]("operation", "Operation")

// Open writes a new operation. It fails with AlreadyExists.
func Open(tx *store.Tx, op Operation) error {
	_, err := table.Create(tx, op.Name, op)
	return err
}

// Finish closes an operation with a response or a failure. Finishing one that is done, or gone, changes nothing.
func Finish(tx *store.Tx, name string, response any, failure error) error {
	row, err := table.Get(tx, name)
	if fault.Is(err, fault.NotFound) || err == nil && row.Value.Done {
		return nil
	}
	if err != nil {
		return err
	}
	row.Value.Done, row.Value.Finished = true, tx.Now()
	if failure != nil {
		f := fault.From(failure)
		row.Value.Error = &Failure{f.Code, f.Message}
	} else if row.Value.Response, err = json.Marshal(response); err != nil {
		return err
	}
	_, err = table.SetStatus(tx, row)
	return err
}

// Get returns the operation of that name, or NotFound.
func Get(tx *store.Tx, name string) (Operation, error) {
	row, err := table.Get(tx, name)
	return row.Value, err
}

// Operations is the operations of a platform, for those who ask about them.
type Operations struct{ store *store.Store }

// New returns the operations in the store.
func New(st *store.Store) *Operations { return &Operations{st} }

// Get returns the operation of a kind and of that name, or NotFound: operations of all products are in one place, and
// each API shows its own only.
func (o *Operations) Get(ctx context.Context, kind, name string) (op Operation, err error) {
	defer fault.Wrap(&err, "operation.Get(%s)", name)
	err = o.store.View(ctx, func(tx *store.Tx) (err error) {
		op, err = Get(tx, name)
		if err == nil && op.Kind != kind {
			op, err = Operation{}, fault.New(fault.NotFound, "Operation %q was not found.", name)
		}
		return err
	})
	return op, err
}

// List returns the operations of a kind in a location by name, after the one called last, at most limit of them.
func (o *Operations) List(
	ctx context.Context, kind string, in resource.Location, last string, limit int,
) (out []Operation, err error) {
	defer fault.Wrap(&err, "operation.List(%s)", in)
	err = o.store.View(ctx, func(tx *store.Tx) error {
		for {
			rows, err := table.List(tx, in.String()+"/operations/", last, limit)
			for _, r := range rows {
				last = r.Name
				if r.Value.Kind != kind {
					continue
				}
				if out = append(out, r.Value); len(out) == limit {
					return err
				}
			}
			if err != nil || limit <= 0 || len(rows) < limit {
				return err
			}
		}
	})
	return out, err
}

// Wait returns the operation of a kind once it is done, or as it is when the timeout or the caller's patience ends.
func (o *Operations) Wait(ctx context.Context, kind, name string, timeout time.Duration) (_ Operation, err error) {
	defer fault.Wrap(&err, "operation.Wait(%s)", name)
	w := o.store.Watch(table.Kind())
	defer w.Close()
	end := time.NewTimer(timeout)
	defer end.Stop()
	for {
		op, err := o.Get(ctx, kind, name)
		if err != nil || op.Done {
			return op, err
		}
		select {
		case <-w.C:
		case <-w.HangUp:
			return op, store.ErrStopping
		case <-end.C:
			return op, nil
		case <-ctx.Done():
			return op, ctx.Err()
		}
	}
}

// Expire removes operations that were finished 30 days ago.
func (o *Operations) Expire(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "operation.Expire")
	return o.store.Update(ctx, func(tx *store.Tx) error {
		rows, err := table.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Value.Done && tx.Now().Sub(r.Value.Finished) > retention {
				if err := table.Delete(tx, r.Name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
