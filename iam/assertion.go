package iam

import (
	"context"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
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

// CheckAssertion verifies a JWT that a service account's key signed for the token endpoint. It fails with
// InvalidArgument.
func (m *IAM) CheckAssertion(ctx context.Context, raw string, audiences ...string) (_ Assertion, err error) {
	defer fault.Wrap(&err, "iam.CheckAssertion")
	bad := func(why string) (Assertion, error) {
		return Assertion{}, fault.New(fault.InvalidArgument, "Invalid JWT: %s", why)
	}
	if len(raw) > maxToken {
		return bad("it is too long.")
	}
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return bad("it is not a JWT signed with RS256.")
	}
	var k accountKey
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := accountKeys.Get(tx, tok.Headers[0].KeyID)
		k = row.Value
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return bad("its key id is not that of a key of a service account here.")
	}
	if err != nil {
		return Assertion{}, err
	}
	if k.Disabled || !k.valid(m.now()) {
		return bad("its key is disabled or not valid at this time.")
	}
	public, err := k.public()
	if err != nil {
		return Assertion{}, err
	}
	var c struct {
		jwt.Claims
		Scope          string `json:"scope"`
		TargetAudience string `json:"target_audience"`
	}
	if err := tok.Claims(public, &c); err != nil {
		return bad("its signature does not verify.")
	}
	if c.Issuer != k.Email {
		return bad("its issuer is not the account that the key belongs to.")
	}
	if err := c.Claims.ValidateWithLeeway(jwt.Expected{AnyAudience: audiences, Time: m.now()}, time.Minute); err != nil {
		return bad("its audience or its time is wrong; is the clock right?")
	}
	if c.Expiry == nil || c.Expiry.Time().Sub(m.now()) > AccessTokenAge+time.Minute {
		return bad("it must expire within an hour.")
	}
	a, err := m.Account(ctx, "-", k.Email)
	if err != nil || a.UniqueID != k.UniqueID {
		return bad("the account is gone.")
	}
	if a.Disabled {
		return bad("the account is disabled.")
	}
	return Assertion{ServiceAccount(a.Email), strings.Fields(c.Scope), c.TargetAudience}, nil
}
