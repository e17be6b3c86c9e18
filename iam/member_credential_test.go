package iam_test

import (
	"testing"

	"giggle/fault"
	"giggle/iam"
)

// A credential that outlives its account is worth nothing once the account is disabled or gone, though its bindings
// stay.
func TestAuthorizeMember(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "teller", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	member := "serviceAccount:" + a.Email
	w.bind(t, project, "roles/cloudsql.client", member, "user:eve@giggle.test")
	const permission, instance = "cloudsql.instances.connect", project + "/instances/jokes"
	for _, who := range []string{member, "user:eve@giggle.test"} {
		if err := w.AuthorizeMember(t.Context(), who, permission, instance); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	for _, who := range []string{"user:mallory@giggle.test", "serviceAccount:none@giggle.iam.gserviceaccount.com", ""} {
		if err := w.AuthorizeMember(t.Context(), who, permission, instance); err == nil {
			t.Errorf("%q is let in", who)
		}
	}
	if _, err := w.UpdateAccount(t.Context(), "giggle", a.Email, func(a *iam.Account) error {
		a.Disabled = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.AuthorizeMember(t.Context(), member, permission, instance); !fault.Is(err, fault.PermissionDenied) {
		t.Errorf("a disabled account: %v", err)
	}
	if err := w.DeleteAccount(t.Context(), "giggle", a.Email); err != nil {
		t.Fatal(err)
	}
	if err := w.AuthorizeMember(t.Context(), member, permission, instance); err == nil {
		t.Error("a deleted account is let in")
	}
}
