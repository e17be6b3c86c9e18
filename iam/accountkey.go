package iam

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"slices"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Key is a key of a service account: its public half.
type Key struct {
	ID          string // 40 hexadecimal digits
	Account     Account
	Certificate []byte // X.509, DER
	Uploaded    bool   // the owner made it, not the platform
	Managed     bool   // the platform has its private half and signs with it; it can't be deleted
	Disabled    bool
	From, Until time.Time
}

// Name is the key's full resource name.
func (k Key) Name() string { return k.Account.Name() + "/keys/" + k.ID }

// forever is the end of a key that does not expire, as IAM writes it.
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// accountKey is a key as it is kept, by its id.
type accountKey struct {
	Email       string
	UniqueID    string // of the account
	Certificate []byte // X.509, DER
	Uploaded    bool
	Managed     bool
	Disabled    bool
	From, Until time.Time
}

var accountKeys = store.NewTable[accountKey]("iam.serviceAccountKey",
	"Service account key").By(func(_ string, k accountKey) string { return k.UniqueID })

func (k accountKey) valid(now time.Time) bool { return !now.Before(k.From) && now.Before(k.Until) }

func (k accountKey) public() (crypto.PublicKey, error) {
	c, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return nil, err
	}
	return c.PublicKey, nil
}

func (k accountKey) key(id string, a Account) Key {
	return Key{
		ID:          id,
		Account:     a,
		Certificate: k.Certificate,
		Uploaded:    k.Uploaded,
		Managed:     k.Managed,
		Disabled:    k.Disabled,
		From:        k.From,
		Until:       k.Until,
	}
}

// CreateKey makes a key for a service account and returns it with the JSON key file that Google's tools read. The
// private half is not kept.
func (m *IAM) CreateKey(ctx context.Context, project, account string) (_ Key, file []byte, err error) {
	defer fault.Wrap(&err, "iam.CreateKey(%s)", account)
	a, err := m.Account(ctx, project, account)
	if err != nil {
		return Key{}, nil, err
	}
	private, err := rsa.GenerateKey(m.random, rsaBits)
	if err != nil {
		return Key{}, nil, err
	}
	// A minute ago, for clocks that are late.
	k := accountKey{From: m.now().Add(-time.Minute).UTC().Truncate(time.Second), Until: forever}
	if k.Certificate, err = m.certify(private, a.UniqueID, k.From, k.Until); err != nil {
		return Key{}, nil, err
	}
	key, err := m.addKey(ctx, a, k)
	if err != nil {
		return Key{}, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, nil, err
	}
	file, err = json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": a.Project, "private_key_id": key.ID,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": a.Email, "client_id": a.UniqueID,
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
		"universe_domain": "googleapis.com",
	}, "", "  ")
	return key, file, err
}

// certify makes the certificate that a key's public half is given out in, signed by itself.
func (m *IAM) certify(private *rsa.PrivateKey, name string, from, until time.Time) ([]byte, error) {
	serial := make([]byte, 8)
	if _, err := io.ReadFull(m.random, serial); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f
	t := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(m.random, t, t, &private.PublicKey, private)
}

// maxCertificate is the most bytes of an uploaded certificate, in PEM.
const maxCertificate = 32 << 10

// UploadKey adds the public half of a key that the caller made: an RSA key in an X.509 certificate in PEM.
func (m *IAM) UploadKey(ctx context.Context, project, account string, certificate []byte) (_ Key, err error) {
	defer fault.Wrap(&err, "iam.UploadKey(%s)", account)
	bad := func(why string) (Key, error) {
		return Key{}, fault.Invalid("public_key_data", "%s", why)
	}
	if len(certificate) > maxCertificate {
		return bad("the certificate is too long")
	}
	block, rest := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" ||
		len(slices.DeleteFunc(rest, func(c byte) bool { return c <= ' ' })) > 0 {
		return bad("it is not one X.509 certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return bad("the certificate does not parse")
	}
	public, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok || public.N.BitLen() < 2048 || public.N.BitLen() > 4096 {
		return bad("the key must be RSA of 2048 to 4096 bits")
	}
	if !m.now().Before(c.NotAfter) {
		return bad("the certificate has expired")
	}
	a, err := m.Account(ctx, project, account)
	if err != nil {
		return Key{}, err
	}
	return m.addKey(ctx, a, accountKey{Certificate: block.Bytes, Uploaded: true, From: c.NotBefore, Until: c.NotAfter})
}

func (m *IAM) addKey(ctx context.Context, a Account, k accountKey) (Key, error) {
	b := make([]byte, 20)
	if _, err := io.ReadFull(m.random, b); err != nil {
		return Key{}, err
	}
	id := hex.EncodeToString(b)
	k.Email, k.UniqueID = a.Email, a.UniqueID
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		// The account may have been deleted since it was read.
		if have, err := findAccount(tx, a.Project, a.Email); err != nil || have.Value.UniqueID != a.UniqueID {
			return fault.New(fault.NotFound, "Unknown service account")
		}
		mine, err := keysOf(tx, a.UniqueID)
		if err != nil {
			return err
		}
		mine = slices.DeleteFunc(mine, func(r store.Row[accountKey]) bool { return r.Value.Managed })
		if full := fault.From(m.quotas.Admit(quota.Keys, "service account "+a.Email, len(mine))); full != nil {
			full.Code = fault.FailedPrecondition // as IAM has it, for keys only
			return full
		}
		for _, r := range mine {
			if slices.Equal(r.Value.Certificate, k.Certificate) {
				return fault.New(fault.AlreadyExists, "This key is there already, as %s.", r.Name)
			}
		}
		_, err = accountKeys.Create(tx, id, k)
		return err
	})
	return k.key(id, a), err
}

func keysOf(tx *store.Tx, uniqueID string) ([]store.Row[accountKey], error) {
	return accountKeys.ListBy(tx, uniqueID)
}

func deleteKeys(tx *store.Tx, uniqueID string) error {
	rows, err := keysOf(tx, uniqueID)
	for _, r := range rows {
		if err == nil {
			err = accountKeys.Delete(tx, r.Name)
		}
	}
	if err == nil {
		err = managedKeys.Delete(tx, uniqueID)
	}
	if fault.Is(err, fault.NotFound) {
		return nil // it never signed
	}
	return err
}

// Keys returns the keys of a service account, oldest first.
func (m *IAM) Keys(ctx context.Context, project, account string) (all []Key, err error) {
	defer fault.Wrap(&err, "iam.Keys(%s)", account)
	err = m.store.View(ctx, func(tx *store.Tx) error {
		a, err := findAccount(tx, project, account)
		if err != nil {
			return err
		}
		rows, err := keysOf(tx, a.Value.UniqueID)
		for _, r := range rows {
			all = append(all, r.Value.key(r.Name, a.Value))
		}
		return err
	})
	slices.SortFunc(all, func(a, b Key) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID)) })
	return all, err
}

// Key returns a key of a service account, or NotFound.
func (m *IAM) Key(ctx context.Context, project, account, id string) (k Key, err error) {
	defer fault.Wrap(&err, "iam.Key(%s, %s)", account, id)
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, a, err := findKey(tx, project, account, id)
		k = row.Value.key(row.Name, a)
		return err
	})
	return k, err
}

func findKey(tx *store.Tx, project, account, id string) (store.Row[accountKey], Account, error) {
	a, err := findAccount(tx, project, account)
	if err != nil {
		return store.Row[accountKey]{}, Account{}, err
	}
	row, err := accountKeys.Get(tx, id)
	if fault.Is(err, fault.NotFound) || err == nil && row.Value.UniqueID != a.Value.UniqueID {
		return store.Row[accountKey]{}, Account{},
			fault.New(fault.NotFound, "Service account key %.60s does not exist.", id)
	}
	return row, a.Value, err
}

// DeleteKey deletes a key of a service account: what it signs is refused from now on.
func (m *IAM) DeleteKey(ctx context.Context, project, account, id string) (err error) {
	defer fault.Wrap(&err, "iam.DeleteKey(%s, %s)", account, id)
	defer m.keyed.Add(1)
	return m.store.Update(ctx, func(tx *store.Tx) error {
		row, _, err := findKey(tx, project, account, id)
		if err != nil {
			return err
		}
		if row.Value.Managed {
			return fault.New(fault.FailedPrecondition,
				"The key %.60s is managed by the platform; it can't be deleted or disabled.", id)
		}
		return accountKeys.Delete(tx, row.Name)
	})
}

// DisableKey disables a key of a service account, or enables it again.
func (m *IAM) DisableKey(ctx context.Context, project, account, id string, disabled bool) (err error) {
	defer fault.Wrap(&err, "iam.DisableKey(%s, %s)", account, id)
	defer m.keyed.Add(1)
	return m.store.Update(ctx, func(tx *store.Tx) error {
		row, _, err := findKey(tx, project, account, id)
		if err != nil {
			return err
		}
		if row.Value.Managed {
			return fault.New(fault.FailedPrecondition,
				"The key %.60s is managed by the platform; it can't be deleted or disabled.", id)
		}
		row.Value.Disabled = disabled
		_, err = accountKeys.Update(tx, row)
		return err
	})
}
