package gateway

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
)

// refusal is an answer of the gateway's own, in the words of Cloud Run's front end.
type refusal struct {
	status int
	title  string // of a page; "" for a plain text
	text   string // with %s for the path
	header [2]string
	note   string // in the record of the request (https://cloud.google.com/run/docs/troubleshooting)
}

const troubleshooting = " Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting"

// The refusals.
var (
	notFound = &refusal{
		status: http.StatusNotFound,
		title:  "Page not found",
		text:   "The requested URL was not found on this server.",
	}
	reserved = &refusal{
		status: http.StatusNotFound,
		title:  "Page not found",
		text:   notFound.text,
		note:   "The path is one that Cloud Run reserves for itself; no service gets to see it. See https://cloud.google.com/run/docs/known-issues",
	}
	methodNotAllowed = &refusal{
		status: http.StatusMethodNotAllowed,
		title:  "Method Not Allowed",
		text:   "The request method is inappropriate for the URL <code>%s</code>.",
	}
	responseTooLarge = &refusal{
		status: http.StatusInternalServerError,
		title:  "Server Error",
		text:   "The server encountered an error and could not complete your request.",
		note: "The request failed because the HTTP response was larger than the 32 MiB of HTTP/1. Stream it with " +
			"Transfer-Encoding: chunked, or use HTTP/2. See https://cloud.google.com/run/quotas#request_limits",
	}
	external = &refusal{
		status: http.StatusNotFound,
		title:  "Page not found",
		text:   notFound.text,
		note:   "The request was rejected: it came from outside, and the service's ingress setting lets only internal requests in. Read more at https://cloud.google.com/run/docs/securing/ingress",
	}
	forbidden = &refusal{
		status: http.StatusForbidden,
		title:  "Forbidden",
		text:   "Your client does not have permission to get URL <code>%s</code> from this server.",
		note: "The request was not authenticated. Either allow unauthenticated invocations or set the proper Authorization header. " +
			"Read more at https://cloud.google.com/run/docs/securing/authenticating" + troubleshooting +
			"#unauthorized-client",
	}
	unauthorized = &refusal{
		status: http.StatusUnauthorized,
		title:  "Unauthorized",
		text:   "Your client does not have permission to the requested URL <code>%s</code>.",
		header: [2]string{"WWW-Authenticate",
			`Bearer error="invalid_token" error_description="The access token could not be verified"`},
		note: "The request was not authorized to invoke this service. The access token could not be verified. " +
			"Read more at https://cloud.google.com/run/docs/securing/authenticating" + troubleshooting + "#401",
	}
	notPermitted = &refusal{
		status: http.StatusForbidden,
		title:  "Forbidden",
		text:   forbidden.text,
		header: [2]string{"WWW-Authenticate",
			`Bearer error="insufficient_scope" error_description="The caller lacks run.routes.invoke on the service"`},
		note: "The request was authenticated, but the caller lacks run.routes.invoke on the service. " +
			"Read more at https://cloud.google.com/run/docs/securing/authenticating" + troubleshooting +
			"#unauthorized-client",
	}
	tooLarge = &refusal{
		status: http.StatusRequestEntityTooLarge,
		title:  "Request Entity Too Large",
		text:   "Your client issued a request that was too large.",
		header: [2]string{"Connection", "close"},
		note:   "The request has been rejected: its body is larger than the 32 MiB of HTTP/1. See https://cloud.google.com/run/quotas#request_limits",
	}
	rateExceeded = &refusal{
		status: http.StatusTooManyRequests,
		text:   "Rate exceeded.",
		header: [2]string{"Retry-After", "1"},
		note:   "The request was aborted because there was no available instance." + troubleshooting + "#abort-request",
	}
	noInstance = &refusal{
		status: http.StatusServiceUnavailable,
		title:  "Server Error",
		text:   "The service you requested is not available at this time.",
		note:   "The request was aborted because there was no available instance." + troubleshooting + "#abort-request",
	}
	malformed = &refusal{status: http.StatusServiceUnavailable,
		text: "The request failed because either the HTTP response was malformed or connection to the instance had an error.",
		note: "The request failed because either the HTTP response was malformed or connection to the instance had an error." + troubleshooting + "#malformed-response-or-connection-error"}
	timedOut = &refusal{
		status: http.StatusGatewayTimeout,
		text:   "upstream request timeout",
		header: [2]string{"Connection", "close"},
		note:   "The request has been terminated because it has reached the maximum request timeout. To change this limit, see https://cloud.google.com/run/docs/configuring/request-timeout",
	}
	// clientLeft is answered to nobody; 499 is what the record says.
	clientLeft = &refusal{status: 499, note: "The client closed the connection before it had the response."}
)

// write answers with the refusal.
func (f *refusal) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if f.header[0] != "" && !(r.ProtoMajor > 1 && f.header[0] == "Connection") {
		h.Set(f.header[0], f.header[1])
	}
	h.Del("Content-Length")
	if f.title == "" {
		h.Set("Content-Type", "text/plain; charset=UTF-8")
		w.WriteHeader(f.status)
		_, _ = io.WriteString(w, f.text)
		return
	}
	text := f.text
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, html.EscapeString(r.URL.Path))
	}
	h.Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(f.status)
	_, _ = fmt.Fprintf(w, "<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n<title>%d %s</title>\n</head>\n"+
		"<body text=#000000 bgcolor=#ffffff>\n<h1>Error: %s</h1>\n<h2>%s</h2>\n<h2></h2>\n</body></html>\n", f.status,
		f.title, f.title, text)
}
