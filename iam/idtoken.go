package iam

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/store"
)

// A signing key signs for keyAge and stays in the key set for keyOverlap more, so that every token that it signed can
// be verified until it expires.
const (
	keyAge     = 30 * 24 * time.Hour
	keyOverlap = 48 * time.Hour
	rsaBits    = 2048
)

// signingKey is one RSA key for ID tokens.
type signingKey struct {
	KeyID   string
	DER     []byte // PKCS #1
	Created time.Time
}

var signingKeys = store.NewTable[signingKey]("iam.signingKey", "Signing key")

// keyring is the signing keys in use; the first one signs.
type keyring struct {
	signer jose.Signer
	public jose.JSONWebKeySet
}

// RotateKeys makes a new signing key when the newest is older than 30 days, and forgets those that no living token
// was signed with. It is called at start and once a day.
func (m *IAM) RotateKeys(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "iam.RotateKeys")
	var keys []signingKey
	err = m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := signingKeys.List(tx, "", "", 0)
		for _, r := range rows {
			keys = append(keys, r.Value)
		}
		return err
	})
	if err != nil {
		return err
	}
	now := m.now()
	newest := func() *signingKey {
		var n *signingKey
		for i := range keys {
			if n == nil || keys[i].Created.After(n.Created) {
				n = &keys[i]
			}
		}
		return n
	}
	if n := newest(); n == nil || now.Sub(n.Created) >= keyAge {
		k, err := m.newSigningKey(now)
		if err != nil {
			return err
		}
		err = m.store.Update(ctx, func(tx *store.Tx) error {
			_, err := signingKeys.Create(tx, k.KeyID, k)
			return err
		})
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	signs := newest().KeyID
	ring := &keyring{}
	for _, k := range keys {
		if k.KeyID != signs && now.Sub(k.Created) >= keyAge+keyOverlap {
			err := m.store.Update(ctx, func(tx *store.Tx) error { return signingKeys.Delete(tx, k.KeyID) })
			if err != nil {
				return err
			}
			continue
		}
		private, err := x509.ParsePKCS1PrivateKey(k.DER)
		if err != nil {
			return err
		}
		ring.public.Keys = append(ring.public.Keys, jose.JSONWebKey{Key: &private.PublicKey, KeyID: k.KeyID, Algorithm: "RS256", Use: "sig"})
		if k.KeyID == signs {
			ring.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: private, KeyID: k.KeyID}},
				(&jose.SignerOptions{}).WithType("JWT"))
			if err != nil {
				return err
			}
		}
	}
	m.signing.Store(ring)
	m.verified.init() // a key that is gone verifies nothing any more
	return nil
}

func (m *IAM) newSigningKey(now time.Time) (signingKey, error) {
	key, err := rsa.GenerateKey(m.random, rsaBits)
	if err != nil {
		return signingKey{}, err
	}
	id := make([]byte, 20)
	if _, err := io.ReadFull(m.random, id); err != nil {
		return signingKey{}, err
	}
	return signingKey{KeyID: hex.EncodeToString(id), DER: x509.MarshalPKCS1PrivateKey(key), Created: now}, nil
}

// KeySet returns the public keys that verify this platform's ID tokens (RFC 7517).
func (m *IAM) KeySet() jose.JSONWebKeySet { return m.signing.Load().public }

// Claims are the claims of an ID token, those of Google's.
type Claims struct {
	jwt.Claims
	AuthorizedParty string `json:"azp,omitempty"`
	Email           string `json:"email,omitempty"`
	EmailVerified   bool   `json:"email_verified,omitempty"`
	HostedDomain    string `json:"hd,omitempty"`
}

// Principal is whom the token is about.
func (c Claims) Principal() Principal {
	if strings.HasSuffix(c.Email, ".gserviceaccount.com") {
		return ServiceAccount(c.Email)
	}
	return User(c.Email)
}

// IDToken returns a new ID token about the principal for one audience, good for AccessTokenAge.
func (m *IAM) IDToken(p Principal, audience string) (string, error) {
	return m.IDTokenFor(p, audience, true)
}

// IDTokenFor is IDToken, without the e-mail address unless it is wanted. Without one, only a service account can be
// known again.
func (m *IAM) IDTokenFor(p Principal, audience string, email bool) (string, error) {
	if p == Anonymous {
		return "", fault.New(fault.Unauthenticated, "Nobody is signed in.")
	}
	if !m.usable(p, "") {
		return "", accountGone(p)
	}
	now := m.now()
	c := Claims{
		Claims: jwt.Claims{
			Issuer: Issuer, Subject: m.subject(p), Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(AccessTokenAge)),
		},
		AuthorizedParty: audience, Email: p.Email(), EmailVerified: true,
	}
	if !p.IsUser() {
		c.AuthorizedParty = c.Subject
		if !email {
			c.Email, c.EmailVerified = "", false
		}
	}
	return jwt.Signed(m.signing.Load().signer).Claims(c).Serialize()
}

// CheckIDToken verifies signature, issuer and time of an ID token for one of the audiences. It fails with
// Unauthenticated. A token that was verified before costs a map look-up.
func (m *IAM) CheckIDToken(raw string, audiences ...string) (Claims, error) {
	if len(raw) > maxToken {
		return Claims{}, Unauthenticated("")
	}
	c, ok := m.verified.get(raw)
	if !ok {
		tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			return Claims{}, Unauthenticated("")
		}
		if err := tok.Claims(m.KeySet(), &c); err != nil {
			return Claims{}, Unauthenticated("")
		}
		if c.Email == "" {
			c.Email = m.emailOf(c.Subject)
		}
		m.verified.put(raw, c)
	}
	if err := c.Claims.ValidateWithLeeway(jwt.Expected{Issuer: Issuer, Time: m.now()}, 0); err != nil || c.Email == "" {
		return Claims{}, Unauthenticated("")
	}
	if !slices.ContainsFunc(audiences, func(a string) bool { return c.Audience.Contains(a) }) {
		return Claims{}, Unauthenticated("")
	}
	if !m.usable(c.Principal(), c.Subject) {
		return Claims{}, Unauthenticated("")
	}
	return c, nil
}

// verifiedTokens remembers ID tokens whose signature was verified: RSA costs 100 µs, this 60 ns.
type verifiedTokens struct {
	mu sync.RWMutex
	m  map[string]Claims
}

// maxVerified bounds the memory that a flood of tokens can take.
const maxVerified = 4096

func (v *verifiedTokens) init() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.m = make(map[string]Claims)
}

func (v *verifiedTokens) get(raw string) (Claims, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	c, ok := v.m[raw]
	return c, ok
}

func (v *verifiedTokens) put(raw string, c Claims) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.m) >= maxVerified {
		clear(v.m)
	}
	v.m[raw] = c
}
