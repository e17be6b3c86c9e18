package rest

import (
	"net/http"
	"net/url"
	"strings"

	"giggle/fault"
)

// systemParams are the query parameters that every API takes, with or without a leading "$"
// (https://cloud.google.com/apis/docs/system-parameters). They never bind to a field of the request.
var systemParams = map[string]bool{
	"alt": true, "prettyPrint": true, "pp": true, "key": true, "fields": true, "quotaUser": true, "userIp": true,
	"userProject": true, "access_token": true, "oauth_token": true, "callback": true, "upload_protocol": true,
	"uploadType": true, "upload_id": true, ".xgafv": true, "xgafv": true, "trace": true, "unique": true,
	"apiVersion": true, "outputDefaults": true, "requestReason": true,
}

// format is how the caller wants the answer.
type format struct {
	pretty  bool
	sse     bool
	media   bool // alt=media
	intEnum bool // $alt=json;enum-encoding=int, which Google's REST clients send
	fields  mask // nil: everything
}

// splitQuery tells the system parameters of q from the rest.
func splitQuery(q url.Values) (f format, own, system url.Values, err error) {
	f = format{pretty: true}
	own, system = url.Values{}, url.Values{}
	for name, values := range q {
		plain := strings.TrimPrefix(name, "$")
		if !systemParams[plain] {
			own[name] = values
			continue
		}
		value := values[len(values)-1]
		system.Set(plain, value)
		switch plain {
		case "alt":
			kind, options, _ := strings.Cut(value, ";")
			switch strings.ToLower(kind) {
			case "json", "":
			case "sse":
				f.sse = true
			case "media":
				f.media = true
			default:
				return f, nil, nil,
					fault.Invalid(name, "The format %q is not supported; use json, sse or media.", value)
			}
			f.intEnum = options == "enum-encoding=int"
		case "prettyPrint", "pp":
			f.pretty = !(strings.EqualFold(value, "false") || value == "0")
		case "fields":
			m, err := parseMask(value)
			if err != nil {
				return f, nil, nil, err
			}
			f.fields = m
		case "callback":
			return f, nil, nil, fault.Invalid(name, "JSONP is not supported.")
		}
	}
	return f, own, system, nil
}

// maxForm is the longest query that may come as a form, in bytes: it is read before anything is known of the caller.
const maxForm = 64 << 10

// overrideMethod applies X-HTTP-Method-Override: a POST whose query was too long for a URL. A form body becomes the
// query. It returns the request to route.
func overrideMethod(r *http.Request, held *claim) (*http.Request, error) {
	to := strings.ToUpper(r.Header.Get("X-HTTP-Method-Override"))
	if to == "" || r.Method != http.MethodPost {
		return r, nil
	}
	switch to {
	case http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodPost:
	default:
		return nil, fault.New(fault.InvalidArgument, "X-HTTP-Method-Override: the method %q is not allowed.", to)
	}
	out := r.Clone(r.Context())
	out.Method = to
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		body, err := held.readAll(r.Body, maxForm)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "The form body is malformed.")
		}
		q := out.URL.Query()
		for k, v := range form {
			q[k] = append(q[k], v...)
		}
		u := *out.URL
		u.RawQuery = q.Encode()
		out.URL, out.Body, out.ContentLength = &u, http.NoBody, 0
		out.Header.Del("Content-Type")
	}
	return out, nil
}
