package iam

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"time"

	"giggle/fault"
)

// AccessTokenAge is the life of an access token and of an ID token, one hour as Google's.
const AccessTokenAge = time.Hour

// The prefixes of Google's tokens: log scrubbers and secret scanners know them.
const (
	accessPrefix  = "ya29.giggle."
	refreshPrefix = "1//giggle."
)

// Scopes that gcloud 528 asks for, and that Google's libraries use.
const (
	ScopeCloudPlatform = "https://www.googleapis.com/auth/cloud-platform"
	ScopeEmail         = "https://www.googleapis.com/auth/userinfo.email"
	ScopeOpenID        = "openid"
)

// Token is what an access or refresh token says. Tokens are signed, not stored: they survive a restart and cost no
// write.
type Token struct {
	Member string   `json:"m"`
	Scopes []string `json:"s,omitempty"`
	// unique id of the service account, so that another of its address gets nothing
	Account string `json:"u,omitempty"`
	Expires int64  `json:"e,omitempty"` // seconds since 1970; 0 for a refresh token, which does not expire
	Grant   []byte `json:"g,omitempty"` // id of the refresh token that an access token was made from
	ID      []byte `json:"i"`           // makes each token unique
}

// Principal is whom the token was given to.
func (t Token) Principal() Principal { return Principal{t.Member} }

// AccessToken returns a new access token for the principal, good for AccessTokenAge.
func (m *IAM) AccessToken(p Principal, scopes []string) (token string, expires time.Time, err error) {
	return m.AccessTokenFor(p, scopes, AccessTokenAge)
}

// AccessTokenFor is AccessToken with a life of its own.
func (m *IAM) AccessTokenFor(
	p Principal, scopes []string, life time.Duration,
) (token string, expires time.Time, err error) {
	if !m.usable(p, "") {
		return "", time.Time{}, accountGone(p)
	}
	expires = m.now().Add(life).Truncate(time.Second)
	token, err = m.seal(accessPrefix, Token{
		Member:  p.Member,
		Account: m.accountID(p),
		Scopes:  scopes,
		Expires: expires.Unix(),
	})
	return token, expires, err
}

// Refresh returns a new access token from a refresh token that CheckRefreshToken passed. It stops with the refresh
// token's revocation.
func (m *IAM) Refresh(grant Token, scopes []string) (token string, expires time.Time, err error) {
	expires = m.now().Add(AccessTokenAge).Truncate(time.Second)
	token, err = m.seal(accessPrefix, Token{
		Member:  grant.Member,
		Account: grant.Account,
		Scopes:  scopes,
		Grant:   grant.ID,
		Expires: expires.Unix(),
	})
	return token, expires, err
}

// RefreshToken returns a new refresh token for the principal: what `giggle shell` signs in with.
func (m *IAM) RefreshToken(p Principal, scopes []string) (string, error) {
	return m.seal(refreshPrefix, Token{Member: p.Member, Account: m.accountID(p), Scopes: scopes})
}

func (m *IAM) seal(prefix string, t Token) (string, error) {
	t.ID = make([]byte, 9)
	if _, err := io.ReadFull(m.random, t.ID); err != nil {
		return "", err
	}
	body, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	return prefix + base64.RawURLEncoding.EncodeToString(append(m.sum(prefix, body), body...)), nil
}

func (m *IAM) sum(prefix string, body []byte) []byte {
	h := hmac.New(sha256.New, m.mac)
	h.Write([]byte(prefix))
	h.Write(body)
	return h.Sum(nil)
}

func (m *IAM) unseal(prefix, token string) (Token, bool) {
	var t Token
	rest, ok := strings.CutPrefix(token, prefix)
	if !ok || len(token) > maxToken {
		return t, false
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(b) < sha256.Size {
		return t, false
	}
	sum, body := b[:sha256.Size], b[sha256.Size:]
	if !hmac.Equal(sum, m.sum(prefix, body)) || json.Unmarshal(body, &t) != nil {
		return t, false
	}
	return t, true
}

// good reports whether a token of this platform still counts: by its time, its revocation and its account.
func (m *IAM) good(t *Token) bool {
	return (t.Expires == 0 || m.now().Unix() < t.Expires) && !m.isRevoked(t) && m.usable(t.Principal(), t.Account)
}

// CheckAccessToken returns what a valid access token says, or Unauthenticated. A token that was verified before costs a
// map look-up.
func (m *IAM) CheckAccessToken(token string) (Token, error) {
	if c := m.bearers.get(token); c != nil && !c.selfSigned {
		if m.good(&c.Token) {
			return c.Token, nil
		}
		return Token{}, Unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")
	}
	t, ok := m.unseal(accessPrefix, token)
	if !ok || !m.good(&t) {
		return Token{}, Unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")
	}
	m.bearers.put(token, &credential{Token: t})
	return t, nil
}

// CheckRefreshToken returns what a valid refresh token says, or InvalidArgument.
func (m *IAM) CheckRefreshToken(token string) (Token, error) {
	if t, ok := m.unseal(refreshPrefix, token); ok && m.good(&t) {
		return t, nil
	}
	return Token{}, fault.New(fault.InvalidArgument, "Token has been expired or revoked. Start a new `giggle shell`.")
}
