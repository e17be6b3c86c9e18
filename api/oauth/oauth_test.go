package oauth_test

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/x509"
	"encoding/pem"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/api/oauth"
	"giggle/iam"
	"giggle/store"
)

func newServer(
	t *testing.T,
) (*iam.IAM, *store.Store, func(method, path string, form url.Values) (int, map[string]any)) {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	ids, err := iam.New(t.Context(), iam.Config{Store: st, Owner: "you@giggle.test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	h := oauth.New(ids, time.Now, slog.New(slog.DiscardHandler))
	return ids, st, func(method, path string, form url.Values) (int, map[string]any) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
		if form != nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		out := map[string]any{}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%s %s = %d %s", method, path, w.Code, w.Body)
		}
		return w.Code, out
	}
}

func TestRefreshGrant(t *testing.T) {
	ids, _, do := newServer(t)
	refresh, err := ids.RefreshToken(ids.Owner(), []string{"openid", iam.ScopeEmail, iam.ScopeCloudPlatform})
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"", "openid " + iam.ScopeCloudPlatform} {
		code, got := do("POST", "/token",
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "scope": {scope}, "client_id": {"x"}, "client_secret": {"y"}})
		if code != 200 || got["token_type"] != "Bearer" || got["expires_in"].(float64) < 3590 {
			t.Fatalf("refresh = %d %v", code, got)
		}
		for _, want := range strings.Fields(scope) { // gcloud 528 wants each scope that it asked for
			if !strings.Contains(got["scope"].(string), want) {
				t.Errorf("scope = %v, lacks %s", got["scope"], want)
			}
		}
		if c, err := ids.Credential(t.Context(), "Bearer "+got["access_token"].(string), ""); err != nil ||
			c.Principal != ids.Owner() {
			t.Errorf("access token = %v, %v", c.Principal, err)
		}
		if c, err := ids.CheckIDToken(got["id_token"].(string), iam.GcloudClientID); err != nil ||
			c.Email != "you@giggle.test" {
			t.Errorf("id token = %+v, %v", c, err)
		}
	}
	for name, tt := range map[string]struct {
		form  url.Values
		error string
	}{
		"forged": {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh +
			"x"}}, "invalid_grant"},
		"none":          {url.Values{"grant_type": {"refresh_token"}}, "invalid_grant"},
		"wider scope":   {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "scope": {"https://www.googleapis.com/auth/everything"}}, "invalid_grant"},
		"another grant": {url.Values{"grant_type": {"password"}}, "unsupported_grant_type"},
		"no form":       {nil, "invalid_request"},
	} {
		if code, got := do("POST", "/token", tt.form); code != 400 || got["error"] != tt.error ||
			got["error_description"] == "" {
			t.Errorf("%s = %d %v, want %s", name, code, got, tt.error)
		}
	}
}

func TestJWTBearerGrant(t *testing.T) {
	ids, st, do := newServer(t)
	if err := st.Update(t.Context(), func(tx *store.Tx) error {
		return ids.CreateDefaults(tx, "giggle", "123456789012", "user:you@giggle.test")
	}); err != nil {
		t.Fatal(err)
	}
	email := iam.ComputeAccount("123456789012")
	_, file, err := ids.CreateKey(t.Context(), "-", email)
	if err != nil {
		t.Fatal(err)
	}
	var key map[string]string
	if err := json.Unmarshal(file, &key); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(key["private_key"]))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.RS256,
		Key:       jose.JSONWebKey{Key: private, KeyID: key["private_key_id"]},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(extra map[string]any) (int, map[string]any) {
		t.Helper()
		raw, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer:   email,
			Audience: jwt.Audience{"https://oauth2.googleapis.com/token"},
			IssuedAt: jwt.NewNumericDate(time.Now()),
			Expiry:   jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}).Claims(extra).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return do("POST", "/token",
			url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {raw}})
	}
	code, got := ask(map[string]any{"scope": iam.ScopeCloudPlatform})
	if code != 200 || got["access_token"] == nil || got["id_token"] != nil {
		t.Fatalf("access token = %d %v", code, got)
	}
	code, got = ask(map[string]any{"target_audience": "https://jokes.a.run.app"})
	if code != 200 || got["id_token"] == nil {
		t.Fatalf("id token = %d %v", code, got)
	}
	if c, err := ids.CheckIDToken(got["id_token"].(string), "https://jokes.a.run.app"); err != nil ||
		c.Principal() != iam.ServiceAccount(email) {
		t.Errorf("id token = %+v, %v", c, err)
	}
	if code, got := do("POST", "/token",
		url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"a.b.c"}}); code != 400 || got["error"] != "invalid_grant" {
		t.Errorf("rubbish = %d %v", code, got)
	}
}

func TestKeysAndDiscovery(t *testing.T) {
	_, _, do := newServer(t)
	code, doc := do("GET", "/.well-known/openid-configuration", nil)
	if code != 200 || doc["issuer"] != iam.Issuer || doc["jwks_uri"] != "https://www.googleapis.com/oauth2/v3/certs" {
		t.Errorf("discovery = %d %v", code, doc)
	}
	code, keys := do("GET", "/oauth2/v3/certs", nil)
	key := keys["keys"].([]any)[0].(map[string]any)
	if code != 200 || key["kty"] != "RSA" || key["use"] != "sig" || key["kid"] == "" || key["d"] != nil {
		t.Errorf("keys = %d %v: the public half only, with an id", code, keys)
	}
	if code, got := do("GET", "/o/oauth2/auth", nil); code != 404 || got["error"] != "not_found" {
		t.Errorf("what is not there = %d %v", code, got)
	}
}
