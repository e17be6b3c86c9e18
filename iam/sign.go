package iam

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"github.com/go-jose/go-jose/v4"

	"giggle/fault"
	"giggle/store"
)

// managedKey is the private half of the key that the platform signs with for a service account, by its unique id. The
// public half is among the account's keys.
type managedKey struct {
	KeyID   string
	DER     []byte // PKCS #1
	Created time.Time
}

var managedKeys = store.NewTable[managedKey]("iam.managedKey", "Managed key")

// maxPayload is the most bytes that are signed.
const maxPayload = 1 << 20

// maxJWTAge is how far ahead the expiry of a signed JWT may be, from the reference of signJwt.
const maxJWTAge = 12 * time.Hour

// SignBlob signs bytes with RSA (PKCS #1 v1.5, SHA-256) as a service account.
func (m *IAM) SignBlob(ctx context.Context, a Account, payload []byte) (keyID string, signature []byte, err error) {
	defer fault.Wrap(&err, "iam.SignBlob(%s)", a.Email)
	if len(payload) == 0 || len(payload) > maxPayload {
		return "", nil, fault.Invalid("payload", "must be of 1 to %d bytes", maxPayload)
	}
	id, key, err := m.managedKey(ctx, a)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(payload)
	signature, err = rsa.SignPKCS1v15(m.random, key, crypto.SHA256, sum[:])
	return id, signature, err
}

// SignJWT signs a set of claims, a JSON object, as a service account.
func (m *IAM) SignJWT(ctx context.Context, a Account, claims string) (keyID, token string, err error) {
	defer fault.Wrap(&err, "iam.SignJWT(%s)", a.Email)
	if len(claims) > maxPayload {
		return "", "", fault.Invalid("payload", "longer than %d bytes", maxPayload)
	}
	var c map[string]json.RawMessage
	if err := json.Unmarshal([]byte(claims), &c); err != nil || c == nil {
		return "", "", fault.Invalid("payload", "is not a JSON object of claims")
	}
	if exp, ok := c["exp"]; ok {
		var seconds int64
		if err := json.Unmarshal(exp, &seconds); err != nil {
			return "", "", fault.Invalid("payload", "exp is not a whole number of seconds")
		}
		if now := m.now(); seconds <= now.Unix() || seconds > now.Add(maxJWTAge).Unix() {
			return "", "", fault.Invalid("payload", "exp must be in the next 12 hours")
		}
	}
	id, key, err := m.managedKey(ctx, a)
	if err != nil {
		return "", "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", "", err
	}
	signed, err := signer.Sign([]byte(claims))
	if err != nil {
		return "", "", err
	}
	token, err = signed.CompactSerialize()
	return id, token, err
}

// managedKey returns the key that the platform signs with for a service account: made when it is first asked for, and
// again after 30 days.
func (m *IAM) managedKey(ctx context.Context, a Account) (id string, key *rsa.PrivateKey, err error) {
	if a.Disabled {
		return "", nil, accountGone(ServiceAccount(a.Email))
	}
	var have managedKey
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := managedKeys.Get(tx, a.UniqueID)
		have = row.Value
		return err
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", nil, err
	}
	if err == nil && m.now().Sub(have.Created) < keyAge {
		key, err = x509.ParsePKCS1PrivateKey(have.DER)
		return have.KeyID, key, err
	}
	if key, err = rsa.GenerateKey(m.random, rsaBits); err != nil {
		return "", nil, err
	}
	b := make([]byte, 20)
	if _, err := io.ReadFull(m.random, b); err != nil {
		return "", nil, err
	}
	now := m.now().UTC().Truncate(time.Second)
	next := managedKey{KeyID: hex.EncodeToString(b), DER: x509.MarshalPKCS1PrivateKey(key), Created: now}
	public := accountKey{
		Email:    a.Email,
		UniqueID: a.UniqueID,
		Managed:  true,
		From:     now.Add(-time.Minute),
		Until:    now.Add(keyAge + keyOverlap),
	}
	if public.Certificate, err = m.certify(key, a.UniqueID, public.From, public.Until); err != nil {
		return "", nil, err
	}
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		if row, err := findAccount(tx, a.Project, a.Email); err != nil || row.Value.UniqueID != a.UniqueID {
			return fault.New(fault.NotFound, "Unknown service account")
		}
		rows, err := keysOf(tx, a.UniqueID)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Value.Managed && !r.Value.valid(now) {
				if err := accountKeys.Delete(tx, r.Name); err != nil {
					return err
				}
			}
		}
		if _, err := accountKeys.Create(tx, next.KeyID, public); err != nil {
			return err
		}
		_, err = managedKeys.Put(tx, a.UniqueID, next)
		return err
	})
	return next.KeyID, key, err
}
