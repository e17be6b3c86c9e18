package iam_test

import (
	"bytes"
	"encoding/pem"
	"testing"

	"giggle/fault"
	"giggle/iam"
)

// What is uploaded as a key is refused or taken as it is, and what is refused is the caller's fault.
func FuzzUploadKey(f *testing.F) {
	w := newWorld(f)
	a, err := w.CreateAccount(f.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		f.Fatal(err)
	}
	k, _, err := w.CreateKey(f.Context(), "giggle", a.Email)
	if err != nil {
		f.Fatal(err)
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate})
	f.Add(good)
	f.Add(append(bytes.Clone(good), good...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		up, err := w.UploadKey(t.Context(), "giggle", a.Email, b)
		switch {
		case err == nil:
			if err := w.DeleteKey(t.Context(), "giggle", a.Email, up.ID); err != nil {
				t.Fatal(err)
			}
		case !fault.Is(err, fault.InvalidArgument) && !fault.Is(err, fault.AlreadyExists):
			t.Errorf("%q: %v", b, err)
		}
	})
}
