package iam

import (
	"encoding/base64"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
)

// maxToken is the most bytes of a token that are looked at.
const maxToken = 8 << 10

// signedJWT is a JWT whose form is sound and whose signature is still to be verified.
type signedJWT struct {
	*jwt.JSONWebToken
	kid string // "" where the header has none
}

// parseJWT reads a compact JWS of the one form that Google's tokens have: RS256, and a header that says no more than
// alg, kid and typ. A header that brings a key along (jwk, jku, x5u, x5c), nests another JWT or asks for what is not
// known here (crit) is refused, and so is everything that two parsers could read in two ways: doubled names, padding,
// white space, loose bits.
func parseJWT(raw string) (signedJWT, bool) {
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return signedJWT{}, false
	}
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	var parts [3][]byte
	for i, p := range []string{header, payload, signature} {
		var err error
		if parts[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil || len(p) == 0 ||
			strings.ContainsAny(p, "\r\n") {
			return signedJWT{}, false
		}
	}
	// This decoder knows letter case and refuses doubled names; encoding/json does neither.
	var h map[string]json.RawMessage
	if err := json.Unmarshal(parts[0], &h); err != nil {
		return signedJWT{}, false
	}
	var alg, kid, typ string
	for name, value := range h {
		to, known := map[string]*string{"alg": &alg, "kid": &kid, "typ": &typ}[name]
		if !known || json.Unmarshal(value, to) != nil {
			return signedJWT{}, false
		}
	}
	if _, said := h["kid"]; said && !isKeyID(kid) {
		return signedJWT{}, false
	}
	if alg != string(jose.RS256) || typ != "" && !strings.EqualFold(typ, "JWT") {
		return signedJWT{}, false
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(parts[1], &claims); err != nil || claims == nil {
		return signedJWT{}, false
	}
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	return signedJWT{tok, kid}, err == nil
}

// isKeyID reports whether s is of the form of every key id here: 40 hexadecimal digits.
func isKeyID(s string) bool {
	if len(s) != 40 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
