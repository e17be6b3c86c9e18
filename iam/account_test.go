package iam_test

import (
	"slices"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
)

func TestDeletedAccountLeavesItsBindings(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	who := iam.ServiceAccount(a.Email)
	w.bind(t, project, "roles/viewer", who.Member)
	id, err := w.IDToken(who, "https://a.test")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.CheckIDToken(id, "https://a.test"); err != nil || c.Subject != a.UniqueID {
		t.Fatalf("ID token: %v, %v, want the subject %s", c, err, a.UniqueID)
	}
	if err := w.DeleteAccount(t.Context(), "giggle", a.Email); err != nil {
		t.Fatal(err)
	}
	want := "deleted:serviceAccount:" + a.Email + "?uid=" + a.UniqueID
	if got := w.Policy(project).Bindings[0].Members; !slices.Equal(got, []string{want}) {
		t.Errorf("members %v", got)
	}
	if w.Allowed(who, "run.services.get", service) {
		t.Error("a deleted account is allowed what it was")
	}
	if _, err := w.CheckIDToken(id, "https://a.test"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("its ID token: %v", err)
	}
	if _, err := w.IDToken(who, "https://a.test"); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a new ID token: %v", err)
	}

	// A restart forgets nothing of it.
	w.open(t)
	if _, err := w.CheckIDToken(id, "https://a.test"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("its ID token after a restart: %v", err)
	}
	if _, err := w.UndeleteAccount(t.Context(), "another-project", a.UniqueID); !fault.Is(err, fault.NotFound) {
		t.Errorf("undeleted in another project: %v", err)
	}
	if _, err := w.UndeleteAccount(t.Context(), "-", a.UniqueID); err != nil {
		t.Fatal(err)
	}
	if !w.Allowed(who, "run.services.get", service) {
		t.Error("an undeleted account has lost its role")
	}
	w.open(t)
	if !w.Allowed(who, "run.services.get", service) {
		t.Error("an undeleted account has lost its role at a restart")
	}

	// After 30 days it is gone for good.
	if err := w.DeleteAccount(t.Context(), "giggle", a.Email); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(30 * 24 * time.Hour)
	if _, err := w.UndeleteAccount(t.Context(), "-", a.UniqueID); !fault.Is(err, fault.NotFound) {
		t.Errorf("undeleted after 30 days: %v", err)
	}
	if err := w.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.AccountNames(t.Context(), a.UniqueID); !fault.Is(err, fault.NotFound) {
		t.Errorf("kept after 30 days: %v", err)
	}
}
