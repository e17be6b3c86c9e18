package gateway

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// What Cloud Run's front end does to every request and answer, whatever the service.

// frontRefusal is the refusal of what no service gets to see, or nil: the methods TRACE and CONNECT, and reserved paths
// (https://cloud.google.com/run/docs/known-issues: /eventlog, what begins with /_ah/, and some paths that end in z, of
// which /healthz is the one that people run into).
func frontRefusal(r *http.Request) *refusal {
	switch p := r.URL.Path; {
	case r.Method == http.MethodTrace || r.Method == http.MethodConnect:
		return methodNotAllowed
	case p == "/healthz" || p == "/eventlog" || strings.HasPrefix(p, "/_ah/"):
		return reserved
	}
	return nil
}

// opaque is the path of a request as it came, for URL.Opaque, or "": Go would write some of its bytes in another way.
func opaque(r *http.Request) string {
	if p, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "//") {
		return p
	}
	return ""
}

// passResponse does to an answer what the front end does, and returns the refusal of one that is too large: "Maximum
// HTTP/1 response size: 32 MiB if not using Transfer-Encoding: chunked or streaming mechanisms"
// (https://cloud.google.com/run/quotas#request_limits).
func passResponse(v *visit, res *http.Response) *refusal {
	if v.in.limit > 0 && res.ContentLength > maxBody && v.request.Method != http.MethodHead {
		return responseTooLarge
	}
	guardCookies(res.Header, v.gateway.cfg.Now)
	return nil
}

// guardCookies keeps an answer that sets a cookie out of shared caches, as Google's front end does: "Cache-Control is
// set to private, if it is not already set to a more restrictive value"
// (https://cloud.google.com/appengine/docs/standard/how-requests-are-handled).
func guardCookies(h http.Header, now func() time.Time) {
	if len(h["Set-Cookie"]) == 0 || len(h["Cache-Control"]) == 0 {
		return
	}
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(h["Cache-Control"], ",")), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if slices.Contains([]string{"private", "no-store", "no-cache"}, name) {
			return
		}
	}
	h["Cache-Control"] = []string{"private"}
	if len(h["Expires"]) > 0 {
		h["Expires"] = []string{now().UTC().Format(http.TimeFormat)}
	}
}
