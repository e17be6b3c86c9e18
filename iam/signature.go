package iam

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"

	"giggle/fault"
	"giggle/store"
)

// CheckSignature verifies that a service account has signed a message (RSA, PKCS #1 v1.5, SHA-256), with a key of its
// own or through SignBlob, and returns what its signature opens: all that the account may. Whatever is wrong, it is
// PermissionDenied in the same words.
func (m *IAM) CheckSignature(ctx context.Context, email string, message, signature []byte) (_ Credential, err error) {
	defer fault.Wrap(&err, "iam.CheckSignature(%.60s)", email)
	none := Credential{Principal: Anonymous}
	refused := fault.New(fault.PermissionDenied, "The signature is not one of the service account's.")
	var keys []store.Row[accountKey]
	var a Account
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := accounts.Get(tx, email)
		if err != nil {
			return err
		}
		a = row.Value
		keys, err = keysOf(tx, a.UniqueID)
		return err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return none, refused
	case err != nil:
		return none, err
	case a.Disabled:
		return none, refused
	}
	sum := sha256.Sum256(message)
	for _, k := range keys {
		if k.Value.Disabled || !k.Value.valid(m.now()) {
			continue
		}
		public, err := k.Value.public()
		if err != nil {
			return none, err
		}
		if key, ok := public.(*rsa.PublicKey); ok && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil {
			return Credential{Principal: ServiceAccount(a.Email)}, nil
		}
	}
	return none, refused
}
