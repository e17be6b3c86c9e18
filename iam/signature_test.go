package iam_test

import (
	"testing"

	"giggle/fault"
	"giggle/iam"
)

// What opens is the account's own signature, while the account and its key are there.
func TestCheckSignature(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "signer", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.CreateAccount(t.Context(), "another", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("what is signed")
	_, sig, err := w.SignBlob(t.Context(), a, message)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.CheckSignature(t.Context(), a.Email, message, sig)
	if err != nil || c.Member != "serviceAccount:"+a.Email {
		t.Errorf("%+v, %v", c, err)
	}
	for what, check := range map[string]func() error{
		"another message": func() error {
			_, err := w.CheckSignature(t.Context(), a.Email, []byte("other"), sig)
			return err
		},
		"another account": func() error {
			_, err := w.CheckSignature(t.Context(), other.Email, message, sig)
			return err
		},
		"no account": func() error {
			_, err := w.CheckSignature(t.Context(), "none@giggle.iam.gserviceaccount.com", message, sig)
			return err
		},
		"no signature": func() error {
			_, err := w.CheckSignature(t.Context(), a.Email, message, nil)
			return err
		},
	} {
		if err := check(); !fault.Is(err, fault.PermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.UpdateAccount(t.Context(), "giggle", a.Email, func(a *iam.Account) error {
		a.Disabled = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CheckSignature(t.Context(), a.Email, message, sig); !fault.Is(err, fault.PermissionDenied) {
		t.Errorf("of a disabled account: %v", err)
	}
}
