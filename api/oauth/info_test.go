package oauth_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"giggle/api/oauth"
	"giggle/iam"
)

// fetch asks with an Authorization header.
func fetch(t *testing.T, ids *iam.IAM, method, path, token string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	oauth.New(ids, time.Now, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s %s = %d %s", method, path, w.Code, w.Body)
	}
	return w.Code, out
}

func TestTokenInfo(t *testing.T) {
	ids, _, do := newServer(t)
	plain, _, err := ids.AccessToken(ids.Owner(), []string{iam.ScopeCloudPlatform})
	if err != nil {
		t.Fatal(err)
	}
	full, _, err := ids.AccessToken(ids.Owner(), []string{iam.ScopeOpenID, iam.ScopeEmail})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ids.IDToken(ids.Owner(), "https://jokes.a.run.app")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/tokeninfo", "/oauth2/v3/tokeninfo"} {
		for _, method := range []string{"GET", "POST"} {
			query := path + "?access_token=" + full
			code, got := do(method, query, nil)
			if code != 200 || got["email"] != "you@giggle.test" || got["email_verified"] != "true" ||
				got["sub"] != ids.Owner().Subject() ||
				got["azp"] != iam.GcloudClientID || got["aud"] != iam.GcloudClientID ||
				got["scope"] != "openid "+iam.ScopeEmail || got["access_type"] != "online" {
				t.Errorf("%s %s = %d %v", method, path, code, got)
			}
			if left, ok := got["expires_in"].(string); !ok || left < "3590" || left > "3600" {
				t.Errorf("expires_in = %v", got["expires_in"])
			}
		}
		code, got := do("POST", path, url.Values{"access_token": {plain}})
		if code != 200 || got["scope"] != iam.ScopeCloudPlatform || got["email"] != nil || got["sub"] != nil {
			t.Errorf("without the scope: %d %v", code, got)
		}
		code, got = do("GET", path+"?id_token="+id, nil)
		if code != 200 || got["aud"] != "https://jokes.a.run.app" || got["iss"] != iam.Issuer ||
			got["email"] != "you@giggle.test" || got["alg"] != "RS256" {
			t.Errorf("ID token: %d %v", code, got)
		}
	}
	code, got := do("GET", "/oauth2/v1/tokeninfo?access_token="+full, nil)
	if code != 200 || got["issued_to"] != iam.GcloudClientID || got["verified_email"] != true ||
		got["expires_in"].(float64) < 3590 {
		t.Errorf("v1: %d %v", code, got)
	}
	if code, got := do("GET", "/oauth2/v1/tokeninfo?id_token="+id, nil); code != 200 ||
		got["audience"] != "https://jokes.a.run.app" {
		t.Errorf("v1, ID token: %d %v", code, got)
	}
	for query, want := range map[string]string{
		"": "invalid_request", "?access_token=": "invalid_request", "?access_token=x": "invalid_token",
		"?access_token=" + id: "invalid_token",
		"?id_token=" + full:   "invalid_token", "?access_token=x&access_token=" + full: "invalid_request",
	} {
		if code, got := do("GET", "/tokeninfo"+query, nil); code != 400 || got["error"] != want ||
			got["error_description"] == "" {
			t.Errorf("%.40s = %d %v, want %s", query, code, got, want)
		}
	}
}

func TestUserInfo(t *testing.T) {
	ids, _, _ := newServer(t)
	token := func(scopes ...string) string {
		raw, _, err := ids.AccessToken(ids.Owner(), scopes)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	full, openid, plain := token(iam.ScopeOpenID, iam.ScopeEmail), token(iam.ScopeOpenID), token(iam.ScopeCloudPlatform)
	for path, names := range map[string][2]string{
		"/v1/userinfo": {"sub", "email_verified"}, "/oauth2/v3/userinfo": {"sub", "email_verified"},
		"/oauth2/v1/userinfo": {"id", "verified_email"}, "/oauth2/v2/userinfo": {"id", "verified_email"},
	} {
		code, got := fetch(t, ids, "GET", path, full)
		if code != 200 || got[names[0]] != ids.Owner().Subject() || got["email"] != "you@giggle.test" ||
			got[names[1]] != true {
			t.Errorf("%s = %d %v", path, code, got)
		}
		if code, got := fetch(t, ids, "POST", path, openid); code != 200 || got["email"] != nil ||
			got[names[0]] == nil {
			t.Errorf("%s with openid = %d %v", path, code, got)
		}
		if code, got := fetch(t, ids, "GET", path, plain); code != 403 || got["error"] == nil {
			t.Errorf("%s without a scope for it = %d %v", path, code, got)
		}
		for _, bad := range []string{"", "x"} {
			if code, got := fetch(t, ids, "GET", path, bad); code != 401 || got["error"] == nil {
				t.Errorf("%s with %q = %d %v", path, bad, code, got)
			}
		}
	}
}

// gcloud auth revoke sends the token in the query of a POST without a body.
func TestRevoke(t *testing.T) {
	ids, _, do := newServer(t)
	for name, send := range map[string]func(token string) (int, map[string]any){
		"gcloud": func(token string) (int, map[string]any) {
			return do("POST", "/revoke?"+url.Values{"token": {token}}.Encode(), url.Values{})
		},
		"form": func(token string) (int, map[string]any) { return do("POST", "/revoke", url.Values{"token": {token}}) },
		"GET": func(token string) (int, map[string]any) {
			return do("GET", "/o/oauth2/revoke?"+url.Values{"token": {token}}.Encode(), nil)
		},
	} {
		refresh, err := ids.RefreshToken(ids.Owner(), []string{iam.ScopeOpenID})
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
		_, got := do("POST", "/token", form)
		access := got["access_token"].(string)
		if code, got := do("GET", "/tokeninfo?access_token="+access, nil); code != 200 ||
			got["access_type"] != "offline" {
			t.Errorf("%s: token info %d %v", name, code, got)
		}
		if code, got := send(refresh); code != 200 || len(got) != 0 {
			t.Errorf("%s = %d %v", name, code, got)
		}
		if code, got := fetch(t, ids, "GET", "/v1/userinfo", access); code != 401 {
			t.Errorf("%s: its access token at the next request: %d %v", name, code, got)
		}
		if code, got := do("POST", "/token", form); code != 400 || got["error"] != "invalid_grant" {
			t.Errorf("%s: refreshed with it: %d %v", name, code, got)
		}
		if code, got := send(refresh); code != 400 || got["error"] != "invalid_token" {
			t.Errorf("%s again = %d %v", name, code, got)
		}
		if code, got := send(""); code != 400 || got["error"] != "invalid_request" {
			t.Errorf("%s of nothing = %d %v", name, code, got)
		}
	}
}

func TestPublicCertificates(t *testing.T) {
	ids, _, do := newServer(t)
	check := func(kid, text string, key any) {
		t.Helper()
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			t.Fatalf("%s is %q", kid, text)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := key.(*rsa.PublicKey); ok && !want.Equal(c.PublicKey) {
			t.Errorf("the certificate of %s is of another key", kid)
		}
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			t.Error(err)
		}
	}
	code, certs := do("GET", "/oauth2/v1/certs", nil)
	if code != 200 || len(certs) != 1 {
		t.Fatalf("/oauth2/v1/certs = %d %v", code, certs)
	}
	for _, k := range ids.KeySet().Keys {
		check(k.KeyID, certs[k.KeyID].(string), k.Key)
	}

	a, err := ids.CreateAccount(t.Context(), "tortune", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := ids.CreateKey(t.Context(), "giggle", a.Email)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"/robot/v1/metadata", "/service_accounts/v1/metadata", "/service_accounts/v1"} {
		code, certs := do("GET", base+"/x509/"+a.Email, nil)
		if code != 200 || len(certs) != 1 {
			t.Fatalf("%s = %d %v", base, code, certs)
		}
		check(k.ID, certs[k.ID].(string), nil)
		code, set := do("GET", base+"/jwk/"+a.Email, nil)
		key := set["keys"].([]any)[0].(map[string]any)
		if code != 200 || key["kid"] != k.ID || key["kty"] != "RSA" || key["d"] != nil {
			t.Errorf("%s = %d %v", base, code, set)
		}
		if code, got := do("GET", base+"/jwk/nobody@giggle.iam.gserviceaccount.com", nil); code != 404 ||
			got["error"] != "not_found" {
			t.Errorf("nobody's keys = %d %v", code, got)
		}
	}
	if err := ids.DisableKey(t.Context(), "giggle", a.Email, k.ID, true); err != nil {
		t.Fatal(err)
	}
	if code, set := do("GET", "/service_accounts/v1/jwk/"+a.Email, nil); code != 200 || len(set["keys"].([]any)) != 0 {
		t.Errorf("a disabled key is still given out: %d %v", code, set)
	}
}
