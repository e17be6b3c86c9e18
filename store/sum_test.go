package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"giggle/fault"
	"giggle/store"
)

type weight struct {
	Owner string
	N     int64
}

var weights = store.NewTable[weight]("test.weight",
	"Weight").Sum(func(_ *store.Tx, _ string, v weight) (string, int64, error) {
	return v.Owner, v.N, nil
})

// Whatever is written and however, also in a transaction that fails, sums are those of the rows.
func TestSumsAreThoseOfTheRows(t *testing.T) {
	const most = 60
	tooMuch := errors.New("too much")
	s, err := store.New(t.Context(), store.Config{
		File: filepath.Join(t.TempDir(), "db"), Now: time.Now,
		Grown: func(sum string, had, more int64) error {
			if more <= 0 {
				t.Errorf("%s, which grows by %d, was asked about", sum, more)
			}
			if sum == "a" && had+more > most {
				return tooMuch
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for i := range 400 {
		deletes := false
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			for range r.IntN(4) {
				name := fmt.Sprint("w", r.IntN(8))
				v := weight{Owner: string("ab"[r.IntN(2)]), N: r.Int64N(30)}
				row, err := weights.Get(tx, name)
				switch op := r.IntN(5); {
				case op == 0:
					_, _ = weights.Create(tx, name, v)
				case op == 1:
					_, err = weights.Put(tx, name, v)
				case err != nil: // the others need a row
				case op == 2:
					row.Value = v
					_, err = weights.Update(tx, row)
				case op == 3:
					row.Value = v
					_, err = weights.SetStatus(tx, row)
				default:
					deletes = true
					err = weights.Delete(tx, name)
				}
				if err != nil && !fault.Is(err, fault.NotFound) {
					return err
				}
			}
			if r.IntN(5) == 0 {
				return errors.New("undone")
			}
			return nil
		})
		if errors.Is(err, tooMuch) {
			refused++
			if deletes {
				t.Error("what deletes was refused")
			}
		}
		err = s.View(t.Context(), func(tx *store.Tx) error {
			rows, err := weights.List(tx, "", "", 0)
			want := make(map[string]int64)
			for _, row := range rows {
				want[row.Value.Owner] += row.Value.N
			}
			for _, owner := range []string{"a", "b"} {
				got, err := store.Sum(tx, owner)
				if err != nil || got != want[owner] {
					t.Fatalf("after %d: the sum of %s is %d, %v; its rows have %d", i, owner, got, err, want[owner])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}
