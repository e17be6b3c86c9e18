package iam

import (
	"context"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/store"
)

// Assertion is a verified JWT of a service account (RFC 7523).
type Assertion struct {
	Principal      Principal
	Scopes         []string
	TargetAudience string // set: an ID token is wanted, not an access token
}

// skew is how far the clock of one who signs may be off.
const skew = time.Minute

// invalidJWT is the refusal of a JWT.
func invalidJWT(why string) error { return fault.New(fault.InvalidArgument, "Invalid JWT: %s", why) }

// CheckAssertion verifies a JWT that a service account's key signed for the token endpoint. It fails with
// InvalidArgument.
func (m *IAM) CheckAssertion(ctx context.Context, raw string, audiences ...string) (_ Assertion, err error) {
	defer fault.Wrap(&err, "iam.CheckAssertion")
	var c struct {
		jwt.Claims
		Scope          string `json:"scope"`
		TargetAudience string `json:"target_audience"`
	}
	k, err := m.signedBy(ctx, raw, &c)
	if err != nil {
		return Assertion{}, err
	}
	if c.Issuer != k.Email {
		return Assertion{}, invalidJWT("its issuer is not the account that the key belongs to.")
	}
	if c.Subject != "" && c.Subject != k.Email {
		return Assertion{}, invalidJWT("a service account gets no tokens of others (there is no domain-wide delegation); leave sub out.")
	}
	if err := (c.Claims).ValidateWithLeeway(jwt.Expected{AnyAudience: audiences, Time: m.now()}, skew); err != nil ||
		len(c.Audience) != 1 {
		return Assertion{}, invalidJWT("its audience or its time is wrong; is the clock right?")
	}
	if err := checkTimes(c.Claims, m.now()); err != nil {
		return Assertion{}, err
	}
	return Assertion{ServiceAccount(k.Email), strings.Fields(c.Scope), c.TargetAudience}, nil
}

// checkTimes fails with InvalidArgument unless a JWT that a service account signed counts now, and for an hour at most.
func checkTimes(c jwt.Claims, now time.Time) error {
	if c.Expiry == nil || c.IssuedAt == nil {
		return invalidJWT("it must say when it was made (iat) and when it expires (exp).")
	}
	if c.Expiry.Time().Sub(c.IssuedAt.Time()) > AccessTokenAge {
		return invalidJWT("it must expire within an hour.")
	}
	if !now.Before(c.Expiry.Time().Add(skew)) || c.IssuedAt.Time().After(now.Add(skew)) ||
		c.NotBefore != nil && c.NotBefore.Time().After(now.Add(skew)) {
		return invalidJWT("it has expired, or is not valid yet; is the clock right?")
	}
	return nil
}

// signedBy verifies that a JWT is signed by a key of a service account that is in use, reads its claims, and returns
// the key. It fails with InvalidArgument.
func (m *IAM) signedBy(ctx context.Context, raw string, claims any) (accountKey, error) {
	tok, ok := parseJWT(raw)
	if !ok {
		return accountKey{}, invalidJWT("it is not one signed with RS256 whose header has alg, kid and typ alone.")
	}
	if tok.kid == "" {
		if err := m.findKey(ctx, &tok); err != nil {
			return accountKey{}, err
		}
	}
	var k accountKey
	var a Account
	err := m.store.View(ctx, func(tx *store.Tx) error {
		row, err := accountKeys.Get(tx, tok.kid)
		if err != nil {
			return err
		}
		k = row.Value
		owner, err := accounts.Get(tx, k.Email)
		a = owner.Value
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return accountKey{}, invalidJWT("its key id is not that of a key of a service account here.")
	}
	if err != nil {
		return accountKey{}, err
	}
	if k.Disabled || !k.valid(m.now()) {
		return accountKey{}, invalidJWT("its key is disabled or not valid at this time.")
	}
	public, err := k.public()
	if err != nil {
		return accountKey{}, err
	}
	if err := tok.Claims(public, claims); err != nil {
		return accountKey{}, invalidJWT("its signature does not verify.")
	}
	if a.UniqueID != k.UniqueID {
		return accountKey{}, invalidJWT("the account is gone.")
	}
	if a.Disabled {
		return accountKey{}, invalidJWT("the account is disabled.")
	}
	return k, nil
}

// findKey says which key of its issuer signed a JWT that names none, as Google's library for Node.js makes them
// (gtoken). It fails with InvalidArgument.
func (m *IAM) findKey(ctx context.Context, tok *signedJWT) error {
	var c jwt.Claims
	if err := tok.UnsafeClaimsWithoutVerification(&c); err != nil {
		return invalidJWT("its claims can't be read.")
	}
	var keys []store.Row[accountKey]
	err := m.store.View(ctx, func(tx *store.Tx) error {
		a, err := accounts.Get(tx, c.Issuer)
		if err == nil {
			keys, err = keysOf(tx, a.Value.UniqueID)
		}
		return err
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, row := range keys { // ten of the user's, and those that Giggle manages
		public, err := row.Value.public()
		if err == nil && tok.Claims(public, &c) == nil {
			tok.kid = row.Name
			return nil
		}
	}
	return invalidJWT("no key of its issuer signed it.")
}
