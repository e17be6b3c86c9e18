// Package oauth is the wire form of Google's OAuth endpoints: token, tokeninfo, userinfo, revocation, the public keys
// of the platform and of its service accounts, and OpenID discovery.
//
// It speaks OAuth 2.0's dialect (RFC 6749), the JWT-bearer grant (RFC 7523) and token revocation (RFC 7009). Tokens are
// made and checked by package iam. There is no browser sign-in: people sign in with `giggle shell`.
package oauth

import (
	"context"
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"giggle/fault"
	"giggle/iam"
)

// Tokens makes and checks tokens: *iam.IAM.
type Tokens interface {
	AccessToken(p iam.Principal, scopes []string) (token string, expires time.Time, err error)
	IDToken(p iam.Principal, audience string) (string, error)
	Refresh(grant iam.Token, scopes []string) (token string, expires time.Time, err error)
	Revoke(ctx context.Context, token string) error
	CheckAccessToken(token string) (iam.Token, error)
	VerifyIDToken(raw string) (iam.Claims, error)
	SubjectOf(p iam.Principal) string
	CheckRefreshToken(token string) (iam.Token, error)
	CheckAssertion(ctx context.Context, raw string, audiences ...string) (iam.Assertion, error)
	KeySet() jose.JSONWebKeySet
	KeyCertificates() (map[string][]byte, error)
	Keys(ctx context.Context, project, account string) ([]iam.Key, error)
}

// Hosts are the hosts that the handler serves.
var Hosts = []string{"oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com",
	"openidconnect.googleapis.com"}

// tokenURLs are the endpoint's addresses, and so what a JWT's audience may say.
var tokenURLs = []string{
	"https://oauth2.googleapis.com/token", "https://www.googleapis.com/oauth2/v4/token",
	"https://accounts.google.com/o/oauth2/token",
}

// maxForm bounds a token request.
const maxForm = 64 << 10

// New returns the handler for all of Hosts.
func New(tokens Tokens, now func() time.Time, log *slog.Logger) http.Handler {
	s := &server{tokens, now, log}
	m := http.NewServeMux()
	for _, path := range []string{"/token", "/oauth2/v4/token", "/o/oauth2/token"} {
		m.HandleFunc("POST "+path, s.token)
	}
	for _, path := range []string{"/tokeninfo", "/oauth2/v1/tokeninfo", "/oauth2/v2/tokeninfo",
		"/oauth2/v3/tokeninfo"} {
		m.HandleFunc("GET "+path, s.tokenInfo)
		m.HandleFunc("POST "+path, s.tokenInfo)
	}
	for _, path := range []string{"/v1/userinfo", "/oauth2/v1/userinfo", "/oauth2/v2/userinfo", "/oauth2/v3/userinfo",
		"/userinfo/v2/me"} {
		m.HandleFunc("GET "+path, s.userInfo)
		m.HandleFunc("POST "+path, s.userInfo)
	}
	for _, path := range []string{"/revoke", "/o/oauth2/revoke"} {
		m.HandleFunc("GET "+path, s.revoke)
		m.HandleFunc("POST "+path, s.revoke)
	}
	m.HandleFunc("GET /oauth2/v3/certs", s.certs)
	m.HandleFunc("GET /oauth2/v1/certs", s.certificates)
	for _, path := range []string{"/robot/v1/metadata/", "/service_accounts/v1/metadata/", "/service_accounts/v1/"} {
		m.HandleFunc("GET "+path+"x509/{email}", s.accountCertificates)
		m.HandleFunc("GET "+path+"jwk/{email}", s.accountKeys)
	}
	m.HandleFunc("GET /.well-known/openid-configuration", s.discovery)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "not_found",
			"There is no "+r.Method+" "+r.URL.Path+" here; it is not implemented.")
	})
	return m
}

type server struct {
	tokens Tokens
	now    func() time.Time
	log    *slog.Logger
}

// token serves the grants of gcloud 528 and of Google's libraries: refresh_token and JWT-bearer.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		kind != "application/x-www-form-urlencoded" {
		writeError(w, http.StatusBadRequest, "invalid_request", "The body must be application/x-www-form-urlencoded.")
		return
	}
	if err := r.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "The form does not parse.")
		return
	}
	var answer map[string]any
	var err error
	switch grant := r.PostForm.Get("grant_type"); grant {
	case "refresh_token":
		answer, err = s.refresh(r)
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		answer, err = s.assertion(r)
	default:
		writeError(w, http.StatusBadRequest, "unsupported_grant_type",
			"Use refresh_token or urn:ietf:params:oauth:grant-type:jwt-bearer.")
		return
	}
	switch f := fault.From(err); {
	case err == nil:
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, answer)
	case f.Code == fault.InvalidArgument:
		writeError(w, http.StatusBadRequest, "invalid_grant", f.Message)
	default:
		s.log.Error("token endpoint", "err", err)
		writeError(w, http.StatusInternalServerError, "server_error", "Internal error.")
	}
}

// refresh answers with an access token and an ID token. gcloud 528 wants every scope that it asked for in the answer.
func (s *server) refresh(r *http.Request) (map[string]any, error) {
	t, err := s.tokens.CheckRefreshToken(r.PostForm.Get("refresh_token"))
	if err != nil {
		return nil, err
	}
	scopes := strings.Fields(r.PostForm.Get("scope"))
	if len(scopes) == 0 {
		scopes = t.Scopes
	}
	for _, x := range scopes {
		if len(t.Scopes) > 0 && !slices.Contains(t.Scopes, x) {
			return nil, fault.New(fault.InvalidArgument, "The scope %.100q was not granted to this refresh token.", x)
		}
	}
	access, expires, err := s.tokens.Refresh(t, scopes)
	if err != nil {
		return nil, err
	}
	id, err := s.tokens.IDToken(t.Principal(), iam.GcloudClientID)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"access_token": access, "expires_in": s.seconds(expires), "token_type": "Bearer",
		"scope": strings.Join(scopes, " "), "id_token": id,
	}, nil
}

// assertion answers a service account's signed JWT with the token that it asks for.
func (s *server) assertion(r *http.Request) (map[string]any, error) {
	a, err := s.tokens.CheckAssertion(r.Context(), r.PostForm.Get("assertion"), tokenURLs...)
	if err != nil {
		return nil, err
	}
	if a.TargetAudience != "" {
		id, err := s.tokens.IDToken(a.Principal, a.TargetAudience)
		return map[string]any{"id_token": id}, err
	}
	access, expires, err := s.tokens.AccessToken(a.Principal, a.Scopes)
	if err != nil {
		return nil, err
	}
	return map[string]any{"access_token": access, "expires_in": s.seconds(expires), "token_type": "Bearer"}, nil
}

func (s *server) seconds(expires time.Time) int { return int(expires.Sub(s.now()) / time.Second) }

// discovery is OpenID Connect Discovery 1.0 for what is there.
func (s *server) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                iam.Issuer,
		"token_endpoint":                        tokenURLs[0],
		"userinfo_endpoint":                     "https://openidconnect.googleapis.com/v1/userinfo",
		"revocation_endpoint":                   "https://oauth2.googleapis.com/revoke",
		"jwks_uri":                              "https://www.googleapis.com/oauth2/v3/certs",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "email"},
		"claims_supported": []string{"aud", "azp", "email", "email_verified", "exp", "iat", "iss",
			"sub"},
		"grant_types_supported": []string{"refresh_token",
			"urn:ietf:params:oauth:grant-type:jwt-bearer"},
	})
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, map[string]string{"error": code, "error_description": description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
