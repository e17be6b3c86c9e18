package iam_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/store"
)

const (
	endpoint = "https://oauth2.googleapis.com/token"
	runHost  = "run.googleapis.com"
	myURL    = "https://jokes.a.run.app"
)

// signer is a service account's key file.
type signer struct {
	kid, email string
	key        *rsa.PrivateKey
}

func (w *world) signer(t testing.TB, account string) signer {
	t.Helper()
	k, file, err := w.CreateKey(t.Context(), "-", account)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		PEM string `json:"private_key"`
	}
	if err := json.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(f.PEM))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return signer{k.ID, k.Account.Email, key.(*rsa.PrivateKey)}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// raw signs any header and payload with RS256.
func raw(t testing.TB, key *rsa.PrivateKey, header, payload string) string {
	t.Helper()
	in := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(in))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return in + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// noKid is a header as Google's library for Node.js makes it (gtoken).
const noKid = `{"alg":"RS256","typ":"JWT"}`

func header(kid string) string { return fmt.Sprintf(`{"alg":"RS256","typ":"JWT","kid":%q}`, kid) }

// with are claims with some changed, or taken away by nil.
func with(claims map[string]any, change ...any) string {
	out := make(map[string]any)
	for k, v := range claims {
		out[k] = v
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == nil {
			delete(out, change[i].(string))
		} else {
			out[change[i].(string)] = change[i+1]
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// attacks are forgeries of a JWT that would be good, by what is wrong with them. Another is a key of another
// account on the platform. Who is the signer of some of them holds the right key: its form, then, is what is refused.
func attacks(
	t testing.TB, kid string, key, another *rsa.PrivateKey, anotherKid string, good map[string]any,
) map[string]string {
	t.Helper()
	attacker, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if key == nil { // the platform's own, which the attacker never has
		key = attacker
	}
	payload := with(good)
	fine := raw(t, key, header(kid), payload)
	parts := strings.Split(fine, ".")
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(secret []byte) string {
		in := b64(fmt.Sprintf(`{"alg":"HS256","typ":"JWT","kid":%q}`, kid)) + "." + b64(payload)
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(in))
		return in + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	}
	jwk := fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, base64.RawURLEncoding.EncodeToString(attacker.N.Bytes()))
	extra := func(more string) string { return fmt.Sprintf(`{"alg":"RS256","typ":"JWT","kid":%q,%s}`, kid, more) }
	out := map[string]string{
		"alg none":                  b64(fmt.Sprintf(`{"alg":"none","kid":%q}`, kid)) + "." + b64(payload) + ".",
		"alg None, with signature":  raw(t, key, fmt.Sprintf(`{"alg":"None","kid":%q}`, kid), payload),
		"no alg":                    raw(t, key, fmt.Sprintf(`{"kid":%q}`, kid), payload),
		"alg rs256":                 raw(t, key, fmt.Sprintf(`{"alg":"rs256","kid":%q}`, kid), payload),
		"alg PS256":                 raw(t, key, fmt.Sprintf(`{"alg":"PS256","kid":%q}`, kid), payload),
		"alg a list":                raw(t, key, fmt.Sprintf(`{"alg":["RS256"],"kid":%q}`, kid), payload),
		"HS256 with the public key": hs256(public),
		"HS256 with it in PEM":      hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"HS256 with the modulus":    hs256(key.N.Bytes()),
		"HS256 without a secret":    hs256(nil),
		"another's key":             raw(t, attacker, header(kid), payload),
		"another account's key":     raw(t, another, header(kid), payload),
		"another account's key id":  raw(t, another, header(anotherKid), payload),
		"no kid":                    raw(t, attacker, noKid, payload),
		"no kid, another's key":     raw(t, another, noKid, payload),
		"kid empty":                 raw(t, key, header(""), payload),
		"kid a path":                raw(t, key, header("../../../../dev/null"), payload),
		"kid SQL":                   raw(t, key, header("x' UNION SELECT 'k' --"), payload),
		"kid any":                   raw(t, key, header("%"), payload),
		"kid unknown":               raw(t, attacker, header(strings.Repeat("0", 40)), payload),
		"kid in capitals":           raw(t, key, header(strings.ToUpper(kid)), payload),
		"kid with a null":           raw(t, key, fmt.Sprintf(`{"alg":"RS256","kid":"%s\u0000"}`, kid), payload),
		"kid a number":              raw(t, key, `{"alg":"RS256","kid":1}`, payload),
		"jwk injected":              raw(t, attacker, extra(`"jwk":`+jwk), payload),
		"jku injected":              raw(t, attacker, extra(`"jku":"https://evil.test/jwks"`), payload),
		"jku, well signed":          raw(t, key, extra(`"jku":"https://evil.test/jwks"`), payload),
		"x5u injected":              raw(t, attacker, extra(`"x5u":"https://evil.test/cert"`), payload),
		"x5c injected":              raw(t, attacker, extra(`"x5c":["AAAA"]`), payload),
		"crit":                      raw(t, key, extra(`"crit":["exp"],"exp":1`), payload),
		"b64 false":                 raw(t, key, extra(`"crit":["b64"],"b64":false`), payload),
		"nested":                    raw(t, key, extra(`"cty":"JWT"`), fine),
		"nested, not said":          raw(t, key, header(kid), fine),
		"another typ":               raw(t, key, fmt.Sprintf(`{"alg":"RS256","typ":"at+jwt","kid":%q}`, kid), payload),
		"header doubled alg":        raw(t, key, fmt.Sprintf(`{"alg":"none","alg":"RS256","kid":%q}`, kid), payload),
		"header doubled kid": raw(t, key, fmt.Sprintf(`{"alg":"RS256","kid":%q,"kid":%q}`, anotherKid, kid),
			payload),
		"header Alg and alg": raw(t, key, fmt.Sprintf(`{"Alg":"none","alg":"RS256","kid":%q}`, kid), payload),
		"header a list":      raw(t, key, `["RS256"]`, payload),
		"header null":        raw(t, key, `null`, payload),
		"header two values":  raw(t, key, header(kid)+"{}", payload),
		"claims doubled": raw(t, key, header(kid),
			strings.Replace(payload, "{", `{"iss":"eve@giggle.test",`, 1)),
		"claims doubled behind":   raw(t, key, header(kid), payload[:len(payload)-1]+`,"iss":"eve@giggle.test"}`),
		"claims in other case":    raw(t, key, header(kid), strings.ReplaceAll(payload, `"iss"`, `"ISS"`)),
		"claims a list":           raw(t, key, header(kid), "["+payload+"]"),
		"claims null":             raw(t, key, header(kid), "null"),
		"claims text":             raw(t, key, header(kid), "hello"),
		"claims with data behind": raw(t, key, header(kid), payload+" {}"),
		"signature missing":       parts[0] + "." + parts[1] + ".",
		"two parts":               parts[0] + "." + parts[1],
		"four parts":              fine + ".AAAA",
		"five parts, a JWE":       fine + ".AAAA.AAAA",
		"data behind":             fine + "AAAA",
		"padding":                 fine + "==",
		"white space within":      parts[0] + ".\n" + parts[1] + "." + parts[2],
		"line end behind":         fine + "\r\n",
		"standard base64": parts[0] + "." + parts[1] + "." +
			base64.StdEncoding.EncodeToString(make([]byte, 256)),
		"not base64": parts[0] + "." + parts[1] + ".%%%%",
		"loose bits": parts[0] + "." + parts[1] + "." + loose(parts[2]),
		"JSON serialization": fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1],
			parts[2]),
		"oversized":            raw(t, key, header(kid), with(good, "x", strings.Repeat("x", 9000))),
		"a payload of another": parts[0] + "." + b64(with(good, "x", "y")) + "." + parts[2],
		// Cyrillic
		"unicode": raw(t, key, header(kid),
			with(good, "iss", "tortune@giggle.iam.gserviceаccount.com", "email", "you@gіggle.test")),
		"null behind":   raw(t, key, header(kid), with(good, "iss", fmt.Sprint(good["iss"])+"\x00")),
		"wrong iss":     raw(t, key, header(kid), with(good, "iss", "eve@giggle.test")),
		"no iss":        raw(t, key, header(kid), with(good, "iss", nil)),
		"iss a list":    raw(t, key, header(kid), with(good, "iss", []any{good["iss"]})),
		"wrong aud":     raw(t, key, header(kid), with(good, "aud", "https://evil.test")),
		"no aud":        raw(t, key, header(kid), with(good, "aud", nil)),
		"empty aud":     raw(t, key, header(kid), with(good, "aud", "")),
		"aud with more": raw(t, key, header(kid), with(good, "aud", fmt.Sprint(good["aud"])+".evil.test")),
		"wrong sub":     raw(t, key, header(kid), with(good, "sub", "you@giggle.test")),
		"expired": raw(t, key, header(kid),
			with(good, "iat", good["iat"].(int64)-7200, "exp", good["iat"].(int64)-3600)),
		"no exp":             raw(t, key, header(kid), with(good, "exp", nil)),
		"exp in text":        raw(t, key, header(kid), with(good, "exp", "9999999999")),
		"exp a week away":    raw(t, key, header(kid), with(good, "exp", good["iat"].(int64)+7*86400)),
		"exp beyond numbers": raw(t, key, header(kid), strings.Replace(payload, fmt.Sprint(good["exp"]), "1e400", 1)),
		"iat in the future": raw(t, key, header(kid),
			with(good, "iat", good["iat"].(int64)+600, "exp", good["iat"].(int64)+1200)),
		"nbf in the future": raw(t, key, header(kid), with(good, "nbf", good["iat"].(int64)+600)),
		"nothing":           "",
		"dots":              "..",
		"rubbish":           "a.b.c",
	}
	if key == attacker {
		out["a good one, by the attacker"] = fine
	}
	return out
}

// loose changes bits of the last character that decode to nothing.
func loose(part string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(digits, part[len(part)-1])
	return part[:len(part)-1] + string(digits[i^1])
}

func TestForgedJWTs(t *testing.T) {
	w := newWorld(t)
	if err := w.store.Update(t.Context(),
		func(tx *store.Tx) error {
			return w.CreateDefaults(tx, "giggle", number,
				"user:you@giggle.test")
		}); err != nil {
		t.Fatal(err)
	}
	mine, other := w.signer(t, iam.ComputeAccount(number)), w.signer(t, iam.BuildAccount(number))
	now := w.now.Unix()
	claims := func(aud string) map[string]any {
		return map[string]any{"iss": mine.email, "sub": mine.email, "aud": aud, "iat": now, "exp": now + 3600}
	}
	assertion := func(raw string) error {
		_, err := w.CheckAssertion(t.Context(), raw, endpoint)
		return err
	}
	bearer := func(raw string) error {
		_, err := w.BearerFor(t.Context(), "Bearer "+raw, runHost)
		return err
	}
	idToken := func(raw string) error {
		_, err := w.CheckIDToken(raw, myURL)
		return err
	}

	good := claims(endpoint)
	if err := assertion(raw(t, mine.key, header(mine.kid), with(good))); err != nil {
		t.Fatalf("a good assertion: %v", err)
	}
	if err := assertion(raw(t, mine.key, noKid, with(good))); err != nil {
		t.Errorf("assertion without a kid: %v", err)
	}
	for name, forged := range attacks(t, mine.kid, mine.key, other.key, other.kid, good) {
		if err := assertion(forged); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("assertion, %s: %v, want INVALID_ARGUMENT", name, err)
		}
	}

	good = claims("https://" + runHost + "/")
	if err := bearer(raw(t, mine.key, header(mine.kid), with(good))); err != nil {
		t.Fatalf("a good bearer: %v", err)
	}
	for name, forged := range attacks(t, mine.kid, mine.key, other.key, other.kid, good) {
		if strings.HasPrefix(name, "line end") {
			continue // the header's white space is cut off, as HTTP does
		}
		for range 2 {
			if err := bearer(forged); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("bearer, %s: %v, want UNAUTHENTICATED", name, err)
			}
		}
	}

	kid := w.KeySet().Keys[0].KeyID
	good = map[string]any{
		"iss": iam.Issuer, "sub": w.Owner().Subject(), "aud": myURL, "iat": now, "exp": now + 3600, "email": owner,
		"email_verified": true, "azp": myURL,
	}
	for name, forged := range attacks(t, kid, nil, other.key, other.kid, good) {
		if err := idToken(forged); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("ID token, %s: %v, want UNAUTHENTICATED", name, err)
		}
	}
	// A service account's key signs no ID tokens, whatever they say.
	if err := idToken(raw(t, mine.key, header(mine.kid), with(good))); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an ID token of a service account's key: %v", err)
	}
	real, err := w.IDToken(w.Owner(), myURL)
	if err != nil {
		t.Fatal(err)
	}
	if err := idToken(real); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(real, ".")
	for name, forged := range map[string]string{
		"loose bits": parts[0] + "." + parts[1] + "." + loose(parts[2]), "padding": real + "==",
		"data behind":       real + "AA",
		"another payload":   parts[0] + "." + b64(with(good, "email", "eve@giggle.test")) + "." + parts[2],
		"line end":          real + "\n",
		"SIGNATURE_REMOVED": parts[0] + "." + parts[1] + ".SIGNATURE_REMOVED_BY_GOOGLE",
	} {
		if err := idToken(forged); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("ID token, %s: %v, want UNAUTHENTICATED", name, err)
		}
	}
	// One kind of token is not another.
	if err := bearer(real); err == nil {
		t.Error("an ID token was taken as a bearer token of an API")
	}
	if err := assertion(real); err == nil {
		t.Error("an ID token was taken as an assertion")
	}
}

// A service account's own JWT counts for the API that it names, or for scopes.
func TestSelfSignedBearer(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	s := w.signer(t, a.Email)
	now := w.now.Unix()
	sign := func(change ...any) string {
		claims := map[string]any{"iss": a.Email, "sub": a.Email, "iat": now, "exp": now + 3600}
		return "Bearer " + raw(t, s.key, header(s.kid), with(claims, change...))
	}
	for name, tt := range map[string]struct {
		header, host string
		want         bool
	}{
		"audience":          {sign("aud", "https://run.googleapis.com/"), runHost, true},
		"without the slash": {sign("aud", "https://run.googleapis.com"), runHost, true},
		"of gRPC": {sign("aud",
			"https://run.googleapis.com/google.cloud.run.v2.Services"), runHost, true},
		"regional host": {sign("aud",
			"https://run.googleapis.com/"), "europe-north1-run.googleapis.com", true},
		"regional audience": {sign("aud",
			"https://europe-north1-run.googleapis.com/"), "europe-north1-run.googleapis.com", true},
		"another region": {sign("aud",
			"https://europe-west4-run.googleapis.com/"), "europe-north1-run.googleapis.com", false},
		"with the port":         {sign("aud", "https://run.googleapis.com/"), runHost + ":443", true},
		"in a list":             {sign("aud", []string{"https://run.googleapis.com/"}), runHost, true},
		"scope":                 {sign("scope", iam.ScopeCloudPlatform), runHost, true},
		"scope, host not known": {sign("scope", iam.ScopeCloudPlatform), "", true},
		"another API":           {sign("aud", "https://run.googleapis.com/"), "iam.googleapis.com", false},
		"host not known":        {sign("aud", "https://run.googleapis.com/"), "", false},
		"several audiences": {sign("aud",
			[]string{"https://run.googleapis.com/", "https://iam.googleapis.com/"}), runHost, false},
		"plain HTTP":         {sign("aud", "http://run.googleapis.com/"), runHost, false},
		"no URL":             {sign("aud", "run.googleapis.com"), runHost, false},
		"user in the URL":    {sign("aud", "https://run.googleapis.com@evil.test/"), runHost, false},
		"query":              {sign("aud", "https://run.googleapis.com/?x"), runHost, false},
		"the token endpoint": {sign("aud", endpoint), runHost, false},
		"neither":            {sign(), runHost, false},
		"empty scope":        {sign("scope", "  "), runHost, false},
		"scope, another's aud": {sign("scope", iam.ScopeCloudPlatform, "aud",
			"https://iam.googleapis.com/"), runHost, false},
		"no sub":    {sign("aud", "https://run.googleapis.com/", "sub", nil), runHost, false},
		"two hours": {sign("aud", "https://run.googleapis.com/", "exp", now+7200), runHost, false},
		"of the service, no API": {sign("aud",
			"https://x.googleapis.com.evil.test/"), "x.googleapis.com.evil.test.googleapis.com", false},
	} {
		for range 2 { // the second time from the cache
			p, err := w.BearerFor(t.Context(), tt.header, tt.host)
			if tt.want && (err != nil || p != iam.ServiceAccount(a.Email)) ||
				!tt.want && !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%s: %v, %v, want it good: %v", name, p, err, tt.want)
			}
		}
	}

	// What stops the key or the account stops the JWT at the next request; what brings them back brings it back.
	mine := sign("aud", "https://run.googleapis.com/")
	check := func(what string, want bool) {
		t.Helper()
		if _, err := w.BearerFor(t.Context(), mine, runHost); (err == nil) != want {
			t.Errorf("%s: %v, want it good: %v", what, err, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	disable := func(disabled bool) error {
		_, err := w.UpdateAccount(t.Context(), "giggle", a.Email,
			func(a *iam.Account) error { a.Disabled = disabled; return nil })
		return err
	}
	check("new", true)
	must(w.DisableKey(t.Context(), "giggle", a.Email, s.kid, true))
	check("key disabled", false)
	must(w.DisableKey(t.Context(), "giggle", a.Email, s.kid, false))
	check("key enabled", true)
	must(disable(true))
	check("account disabled", false)
	must(disable(false))
	check("account enabled", true)
	must(w.DeleteAccount(t.Context(), "giggle", a.Email))
	check("account deleted", false)
	_, err = w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	must(err)
	check("another account of the address", false)
	w.open(t)
	check("that after a restart", false)
	must(w.DeleteAccount(t.Context(), "giggle", a.Email))
	_, err = w.UndeleteAccount(t.Context(), "giggle", a.UniqueID)
	must(err)
	check("account undeleted", true)

	// Keys are rotated with an overlap: the old one goes when it is deleted, not before.
	next := w.signer(t, a.Email)
	theirs := "Bearer " + raw(t, next.key, header(next.kid),
		with(map[string]any{"iss": a.Email, "sub": a.Email, "iat": now, "exp": now + 3600, "scope": "s"}))
	check("old key beside a new one", true)
	must(w.DeleteKey(t.Context(), "giggle", a.Email, s.kid))
	check("key deleted", false)
	if _, err := w.BearerFor(t.Context(), theirs, runHost); err != nil {
		t.Errorf("the new key: %v", err)
	}
	w.now = w.now.Add(time.Hour)
	if _, err := w.BearerFor(t.Context(), theirs, runHost); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a cached JWT after an hour: %v", err)
	}
}

// gcloud's client id is an audience of people alone.
func TestGcloudAudience(t *testing.T) {
	w := newWorld(t)
	a, err := w.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		who      iam.Principal
		audience string
		want     bool
	}{
		{w.Owner(), iam.GcloudClientID, true}, {iam.ServiceAccount(a.Email), iam.GcloudClientID, false},
		{w.Owner(), myURL, true}, {iam.ServiceAccount(a.Email), myURL, true},
		{w.Owner(), myURL + "/", false}, {w.Owner(), "https://JOKES.a.run.app", false},
	} {
		raw, err := w.IDToken(tt.who, tt.audience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.CheckIDToken(raw, iam.GcloudClientID, myURL); (err == nil) != tt.want {
			t.Errorf("%s for %s: %v, want it good: %v", tt.who, tt.audience, err, tt.want)
		}
	}
}
