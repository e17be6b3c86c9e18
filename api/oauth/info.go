package oauth

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"giggle/iam"
)

// Scopes that open a person's or account's own data, in the short and the long form.
var (
	emailScopes   = []string{"email", iam.ScopeEmail}
	profileScopes = []string{iam.ScopeOpenID, "profile", "https://www.googleapis.com/auth/userinfo.profile", "email",
		iam.ScopeEmail}
)

func hasScope(t iam.Token, any []string) bool {
	return slices.ContainsFunc(t.Scopes, func(s string) bool { return slices.Contains(any, s) })
}

// party is whom a token was given out to: gcloud for people, the account itself else.
func (s *server) party(t iam.Token) string {
	if t.Principal().IsUser() {
		return iam.GcloudClientID
	}
	return s.tokens.SubjectOf(t.Principal())
}

// fields are the members of an answer. A version of an API that is older names and writes some otherwise.
type fields map[string]any

// tokenInfo says what a token is good for. Version 3 and the one without a number write everything as text.
func (s *server) tokenInfo(w http.ResponseWriter, r *http.Request) {
	access, ok := one(w, r, "access_token")
	if !ok {
		return
	}
	id, ok := one(w, r, "id_token")
	if !ok {
		return
	}
	old := strings.Contains(r.URL.Path, "/v1/") || strings.Contains(r.URL.Path, "/v2/")
	var out fields
	switch {
	case access == "" && id == "":
		writeError(w, http.StatusBadRequest, "invalid_request",
			"either access_token, id_token, or token_handle required")
		return
	case access != "":
		out, ok = s.accessInfo(access, old)
	default:
		out, ok = s.idInfo(id, old)
	}
	if !ok {
		writeError(w, http.StatusBadRequest, "invalid_token", "Invalid Value")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

func (s *server) accessInfo(token string, old bool) (fields, bool) {
	t, err := s.tokens.CheckAccessToken(token)
	if err != nil {
		return nil, false
	}
	kind := "online"
	if len(t.Grant) > 0 {
		kind = "offline" // it can be had again without its owner
	}
	left := t.Expires - s.now().Unix()
	party, scope := s.party(t), strings.Join(t.Scopes, " ")
	if old {
		out := fields{"issued_to": party, "audience": party, "scope": scope, "expires_in": left, "access_type": kind}
		if hasScope(t, profileScopes) {
			out["user_id"] = s.tokens.SubjectOf(t.Principal())
		}
		if hasScope(t, emailScopes) {
			out["email"], out["verified_email"] = t.Principal().Email(), true
		}
		return out, true
	}
	out := fields{
		"azp": party, "aud": party, "scope": scope, "exp": strconv.FormatInt(t.Expires,
			10), "expires_in": strconv.FormatInt(left, 10), "access_type": kind,
	}
	if hasScope(t, profileScopes) {
		out["sub"] = s.tokens.SubjectOf(t.Principal())
	}
	if hasScope(t, emailScopes) {
		out["email"], out["email_verified"] = t.Principal().Email(), "true"
	}
	return out, true
}

func (s *server) idInfo(token string, old bool) (fields, bool) {
	c, err := s.tokens.VerifyIDToken(token)
	if err != nil || len(c.Audience) != 1 {
		return nil, false
	}
	issued, expires := c.IssuedAt.Time().Unix(), c.Expiry.Time().Unix()
	if old {
		out := fields{
			"issuer": c.Issuer, "issued_to": c.AuthorizedParty, "audience": c.Audience[0], "user_id": c.Subject,
			"issued_at": issued, "expires_in": expires - s.now().Unix(),
		}
		if c.EmailVerified {
			out["email"], out["email_verified"] = c.Email, true
		}
		return out, true
	}
	out := fields{
		"iss": c.Issuer, "azp": c.AuthorizedParty, "aud": c.Audience[0], "sub": c.Subject,
		"iat": strconv.FormatInt(issued, 10), "exp": strconv.FormatInt(expires, 10), "alg": "RS256", "typ": "JWT",
	}
	if c.EmailVerified {
		out["email"], out["email_verified"] = c.Email, "true"
	}
	return out, true
}

// userInfo says who the caller is (OpenID Connect Core 1.0, section 5.3). The token must have a scope that opens it.
func (s *server) userInfo(w http.ResponseWriter, r *http.Request) {
	old := strings.Contains(r.URL.Path, "v1/userinfo") && strings.HasPrefix(r.URL.Path, "/oauth2/") ||
		strings.Contains(r.URL.Path, "v2")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	t, err := s.tokens.CheckAccessToken(strings.TrimSpace(token))
	if err != nil || !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
		if old {
			writeJSON(w, http.StatusUnauthorized,
				googleError(http.StatusUnauthorized, "UNAUTHENTICATED", iam.Unauthenticated("").Error()))
			return
		}
		writeError(w, http.StatusUnauthorized, "invalid_request", "Invalid Credentials")
		return
	}
	if !hasScope(t, profileScopes) {
		w.Header().Set("WWW-Authenticate",
			`Bearer realm="https://accounts.google.com/", error="insufficient_scope", scope="https://www.googleapis.com/auth/userinfo.email"`)
		if old {
			writeJSON(w, http.StatusForbidden,
				googleError(http.StatusForbidden, "PERMISSION_DENIED",
					"Request had insufficient authentication scopes."))
			return
		}
		writeError(w, http.StatusForbidden, "insufficient_scope",
			"The token lacks the scope openid, userinfo.email or userinfo.profile.")
		return
	}
	id, verified := "sub", "email_verified"
	if old {
		id, verified = "id", "verified_email"
	}
	out := fields{id: s.tokens.SubjectOf(t.Principal())}
	if hasScope(t, emailScopes) {
		out["email"], out[verified] = t.Principal().Email(), true
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

// googleError is an error in the dialect of Google's APIs (google.rpc.Status in JSON), which the older versions speak.
func googleError(code int, status, message string) fields {
	return fields{"error": fields{"code": code, "message": message, "status": status}}
}
