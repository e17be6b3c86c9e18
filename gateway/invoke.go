package gateway

import (
	"net/http"
	"strings"

	"giggle/iam"
)

// permission is what a caller of a service needs.
const permission = "run.routes.invoke"

// The headers that may carry a caller's ID token. The first one wins and is not passed on, so that an app can use
// Authorization for itself (https://cloud.google.com/run/docs/authenticating/service-to-service).
const (
	serverlessAuthorization = "X-Serverless-Authorization"
	authorization           = "Authorization"
)

// mayInvoke reports whether the caller may invoke the service; if not, it has answered. It takes what proves the
// caller's identity out of the request, or makes it useless to the app.
func (g *Gateway) mayInvoke(w http.ResponseWriter, r *http.Request, d *destination) bool {
	token, header := bearer(r.Header, serverlessAuthorization), serverlessAuthorization
	if r.Header.Get(serverlessAuthorization) == "" {
		token, header = bearer(r.Header, authorization), authorization
	}
	defer r.Header.Del(serverlessAuthorization)
	if d.route.InvokerIAMDisabled || g.invoker.Allowed(iam.Anonymous, permission, d.name) {
		return true // open to all: a token, valid or not, is the app's business
	}
	if token == "" {
		writePage(w, r, http.StatusForbidden)
		return false
	}
	claims, err := g.invoker.CheckIDToken(token, d.audiences...)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token" error_description="The access token could not be verified"`)
		writePage(w, r, http.StatusUnauthorized)
		return false
	}
	if !g.invoker.Allowed(claims.Principal(), permission, d.name) {
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope" error_description="The caller lacks run.routes.invoke on the service"`)
		writePage(w, r, http.StatusForbidden)
		return false
	}
	if header == authorization {
		// As Cloud Run does: the app sees who called, but can't call others with the token.
		r.Header.Set(authorization, "Bearer "+token[:strings.LastIndexByte(token, '.')+1]+"SIGNATURE_REMOVED_BY_GOOGLE")
	}
	return true
}

// bearer returns the token in a header, or "".
func bearer(h http.Header, name string) string {
	scheme, token, _ := strings.Cut(h.Get(name), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
