package operation

import (
	"context"

	"giggle/fault"
	"giggle/store"
)

// MaxAttempts is how often a piece of work is begun that never came to an orderly end.
const MaxAttempts = 2

// attempt is one piece of work that runs, or that ran when the platform was killed.
type attempt struct {
	Begun int
}

var attempts = store.NewTable[attempt]("operation.attempt", "Attempt")

// Attempts counts the beginnings of work that is begun again after a crash. It may have been the work that crashed the
// platform: what ran at two unclean stops is not begun a third time, or the platform would never stay up again.
type Attempts struct{ store *store.Store }

// NewAttempts returns the counts that are kept in a store.
func NewAttempts(st *store.Store) *Attempts { return &Attempts{st} }

// Begin counts a beginning of the named work, on the disk before it returns. End is called when the work is over,
// however it ended. Begin fails with Aborted where two beginnings had no end.
func (a *Attempts) Begin(ctx context.Context, name string) (end func(), err error) {
	defer fault.Wrap(&err, "operation.Begin(%.200s)", name)
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		row, err := attempts.Get(tx, name)
		if fault.Is(err, fault.NotFound) {
			_, err := attempts.Create(tx, name, attempt{Begun: 1})
			return err
		}
		if err != nil {
			return err
		}
		if row.Value.Begun >= MaxAttempts {
			return fault.New(fault.Aborted,
				"The platform stopped uncleanly %d times while this ran; it is not tried again.", row.Value.Begun)
		}
		row.Value.Begun++
		_, err = attempts.Update(tx, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = a.Forget(ctx, name) }, nil // one count too many is the worst that a failure does
}

// Forget takes back what was counted of the named work: it is over, or was asked for again.
func (a *Attempts) Forget(ctx context.Context, name string) (err error) {
	defer fault.Wrap(&err, "operation.Forget(%.200s)", name)
	return a.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if err := attempts.Delete(tx, name); !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	})
}
