package iam

import (
	"context"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
)

// credential is what a verified bearer token says.
type credential struct {
	Token
	selfSigned bool
	audience   string // of a JWT: host that it is for, "" for any
	keyed      uint64 // changes of keys when it was verified: after another one it is verified again
}

// Credential returns what an Authorization header of a call to an API's host says: Anonymous for an empty header.
// Two credentials count: an access token of this platform, and a JWT that a service account signed with its own key
// for the host or for scopes (https://google.aip.dev/auth/4111). Anything else is Unauthenticated.
func (m *IAM) Credential(ctx context.Context, header, host string) (Credential, error) {
	none := Credential{Principal: Anonymous}
	if header == "" {
		return none, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return none, Unauthenticated("")
	}
	token = strings.TrimSpace(token)
	if strings.HasPrefix(token, accessPrefix) {
		t, err := m.CheckAccessToken(token)
		return Credential{t.Principal(), t.Scopes}, err
	}
	c, err := m.selfSigned(ctx, token)
	if err != nil {
		return none, err
	}
	if c.audience != "" && !isFor(c.audience, host) {
		return none, Unauthenticated("")
	}
	return Credential{c.Principal(), c.Scopes}, nil
}

// selfSigned verifies a JWT of a service account's key that is used in place of an access token.
func (m *IAM) selfSigned(ctx context.Context, raw string) (*credential, error) {
	now := m.keyed.Load() // before the key is read, so that no change is missed
	c := m.bearers.get(raw)
	if c == nil || c.keyed != now {
		var claims struct {
			jwt.Claims
			Scope string `json:"scope"`
		}
		k, err := m.signedBy(ctx, raw, &claims)
		if fault.Is(err, fault.InvalidArgument) {
			return nil, Unauthenticated("")
		}
		if err != nil {
			return nil, err
		}
		if claims.Issuer != k.Email || claims.Subject != k.Email || checkTimes(claims.Claims, m.now()) != nil {
			return nil, Unauthenticated("")
		}
		c = &credential{selfSigned: true, keyed: now}
		c.Token = Token{
			Member: ServiceAccount(k.Email).Member, Account: k.UniqueID, Scopes: strings.Fields(claims.Scope),
			Expires: min(claims.Expiry.Time().Unix(), k.Until.Unix()),
		}
		ok := false
		switch len(claims.Audience) {
		case 0:
			ok = len(c.Scopes) > 0
		case 1:
			c.audience, ok = audienceHost(claims.Audience[0])
		}
		if !ok {
			return nil, Unauthenticated("")
		}
		m.bearers.put(raw, c)
	}
	if !m.good(&c.Token) {
		return nil, Unauthenticated("")
	}
	return c, nil
}

// audienceHost is the host of an API that a JWT names: https://run.googleapis.com/, or with a gRPC service behind it.
func audienceHost(audience string) (string, bool) {
	u, err := url.Parse(audience)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Port() != "" ||
		strings.ContainsAny(audience, "?#%\\") {
		return "", false
	}
	if u.Path != "" && u.Path != "/" && !strings.HasPrefix(u.Path, "/google.") {
		return "", false
	}
	return u.Host, true
}

// isFor reports whether a JWT's host is that of a call: the same, or the API's own (run.googleapis.com) where the call
// went to a region (europe-north1-run.googleapis.com). APIs' own names have no hyphen.
func isFor(audience, host string) bool {
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if strings.EqualFold(audience, host) {
		return true
	}
	name, domain, _ := strings.Cut(host, ".")
	return strings.EqualFold(domain, "googleapis.com") &&
		strings.EqualFold(audience, host[strings.LastIndexByte(name, '-')+1:])
}
