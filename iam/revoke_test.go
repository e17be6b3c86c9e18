package iam_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/store"
)

func TestRevoke(t *testing.T) {
	w := newWorld(t)
	who := iam.User(owner)
	refresh := func() (string, iam.Token) {
		raw, err := w.RefreshToken(who, nil)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := w.CheckRefreshToken(raw)
		if err != nil {
			t.Fatal(err)
		}
		return raw, tok
	}
	access := func(grant iam.Token) string {
		raw, _, err := w.Refresh(grant, []string{iam.ScopeCloudPlatform})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	check := func(name, raw string, want bool) {
		t.Helper()
		if _, err := w.Bearer(t.Context(), "Bearer "+raw); (err == nil) != want {
			t.Errorf("%s: %v, want it good: %v", name, err, want)
		}
	}
	first, grant := refresh()
	second, other := refresh()
	a, b, c := access(grant), access(grant), access(other)
	for range 2 { // the second time from the cache
		check("a", a, true)
		check("b", b, true)
		check("c", c, true)
	}
	own, _, err := w.AccessToken(who, nil)
	if err != nil {
		t.Fatal(err)
	}
	check("own", own, true)

	// A refresh token takes the access tokens made from it along, and no others.
	if err := w.Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	late := access(grant) // made while it was being revoked
	for range 2 {
		check("a", a, false)
		check("b", b, false)
		check("late", late, false)
		check("c", c, true)
		check("own", own, true)
		if _, err := w.CheckRefreshToken(first); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("the revoked refresh token: %v", err)
		}
		w.open(t) // a restart forgets nothing
	}

	// An access token takes its refresh token along; one made from none goes alone.
	if err := w.Revoke(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CheckRefreshToken(second); err == nil {
		t.Error("the refresh token outlived its access token")
	}
	if err := w.Revoke(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	check("own", own, false)

	id, err := w.IDToken(who, "a")
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{"again": own, "an ID token": id, "rubbish": "x", "nothing": "",
		"forged": first + "A", "long": "ya29.giggle." + string(make([]byte, 1<<20))} {
		if err := w.Revoke(t.Context(), raw); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("revoke %s: %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

// The table of revoked tokens holds none that has expired.
func TestRevokedTokensExpire(t *testing.T) {
	w := newWorld(t)
	count := func() (n int) {
		t.Helper()
		table := store.NewTable[struct{}]("iam.revokedToken", "Revoked token")
		err := w.store.View(t.Context(), func(tx *store.Tx) error {
			rows, err := table.List(tx, "", "", 0)
			n = len(rows)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	revoke := func() {
		raw, _, err := w.AccessToken(iam.User(owner), nil)
		if err == nil {
			err = w.Revoke(t.Context(), raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		revoke()
	}
	if n := count(); n != 5 {
		t.Fatalf("%d rows, want 5", n)
	}
	w.now = w.now.Add(time.Hour)
	revoke()
	if n := count(); n != 1 {
		t.Errorf("%d rows after an hour and another, want 1", n)
	}
	w.now = w.now.Add(time.Hour)
	if err := w.Expire(t.Context()); err != nil || count() != 0 {
		t.Errorf("Expire: %v, %d rows left", err, count())
	}
}

// A revocation that was acknowledged is on disk: one who opens the file beside it reads it.
func TestRevocationIsDurable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	open := func() *iam.IAM {
		st, err := store.Open(t.Context(), file, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		m, err := iam.New(t.Context(), iam.Config{Store: st, Owner: owner, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open()
	raw, _, err := m.AccessToken(iam.User(owner), nil)
	if err == nil {
		err = m.Revoke(t.Context(), raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open().CheckAccessToken(raw); !fault.Is(err, fault.Unauthenticated) { // the first one was never closed
		t.Errorf("after a crash: %v", err)
	}
}

// Whoever asks after Revoke has answered is refused, however many ask and revoke at once.
func TestConcurrentRevocation(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				raw, _, err := w.AccessToken(iam.User(fmt.Sprintf("u%d@giggle.test", i)), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := w.Bearer(t.Context(), "Bearer "+raw); err != nil {
					t.Errorf("a new token: %v", err)
				}
				if err := w.Revoke(t.Context(), raw); err != nil {
					t.Error(err)
				}
				if _, err := w.Bearer(t.Context(), "Bearer "+raw); !fault.Is(err, fault.Unauthenticated) {
					t.Errorf("a revoked token: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
