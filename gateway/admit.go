package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"giggle/fault"
	"giggle/iam"
	"giggle/run"
)

// Admission: what is decided of a request before it is sent anywhere. It takes what it has to know, and not a request
// of net/http, so that another reader of HTTP can ask the same.

// route returns where a request for a host goes. Project is that of the instance that calls, or "" from outside. With a
// refusal there is a destination if the host is one of ours.
func (g *Gateway) route(host, project string) (*destination, *target, *refusal) {
	d := g.lookup(host)
	if d == nil || !g.cfg.Active(d.service.Project) {
		return nil, nil, notFound
	}
	to := d.pick()
	switch {
	case to == nil:
		return nil, nil, notFound
	case d.ingress != run.IngressAll && d.ingress != "" && project != d.service.Project:
		return d, to, external
	}
	return d, to, nil
}

// permission is what a caller of a service needs.
const permission = "run.routes.invoke"

// The headers that may carry a caller's ID token. The first one wins and is not passed on, so that an app can use
// Authorization for itself (https://cloud.google.com/run/docs/authenticating/service-to-service).
const (
	serverlessAuthorization = "X-Serverless-Authorization"
	authorization           = "Authorization"
)

// mayInvoke refuses a caller who may not invoke the service. It takes what proves the caller's identity out of the
// headers, or makes it useless to the app.
func (g *Gateway) mayInvoke(h http.Header, path string, d *destination) *refusal {
	token, header := bearer(h, serverlessAuthorization), serverlessAuthorization
	if h.Get(serverlessAuthorization) == "" {
		token, header = bearer(h, authorization), authorization
	}
	defer h.Del(serverlessAuthorization)
	if d.open || g.cfg.Invoker.Allowed(iam.Anonymous, permission, d.name) {
		return nil // open to all: a token, valid or not, is the app's business
	}
	if token == "" {
		return forbidden
	}
	claims, err := g.cfg.Invoker.CheckServiceToken(token, d.hosts, d.audiences)
	if err != nil {
		return unauthorized
	}
	if !g.cfg.Invoker.Allowed(claims.Principal(), permission, d.name) {
		return notPermitted
	}
	if header == authorization {
		// As Cloud Run does: the app sees who called, but can't call others with the token.
		h.Set(authorization, "Bearer "+token[:strings.LastIndexByte(token, '.')+1]+"SIGNATURE_REMOVED_BY_GOOGLE")
	}
	return nil
}

// bearer returns the token in a header, or "".
func bearer(h http.Header, name string) string {
	scheme, token, _ := strings.Cut(h.Get(name), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// unavailable is the refusal of a request that no instance took. The context is the client's.
func (g *Gateway) unavailable(ctx context.Context, to *target, err error) *refusal {
	switch {
	case ctx.Err() != nil:
		return clientLeft
	case errors.Is(err, context.DeadlineExceeded):
		return timedOut
	case fault.Is(err, fault.ResourceExhausted):
		return rateExceeded
	}
	g.cfg.Log.Warn("no instance for a request", "revision", to.rev.Name.ID, "err", err)
	return noInstance
}
