package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
)

// coded returns a fault with the error code of the distribution specification.
func coded(code string, e *fault.Error) error {
	e.Reason = code
	return e
}

// statuses are the HTTP statuses of the codes whose fault has another (specification, "Error Codes").
var statuses = map[string]int{
	"UNSUPPORTED":           http.StatusMethodNotAllowed,
	"RANGE_INVALID":         http.StatusRequestedRangeNotSatisfiable,
	"SIZE_INVALID":          http.StatusBadRequest,
	"DIGEST_INVALID":        http.StatusBadRequest,
	"NAME_INVALID":          http.StatusBadRequest,
	"MANIFEST_TOO_LARGE":    http.StatusRequestEntityTooLarge,
	"BLOB_UPLOAD_UNKNOWN":   http.StatusNotFound,
	"BLOB_UPLOAD_INVALID":   http.StatusBadRequest,
	"MANIFEST_BLOB_UNKNOWN": http.StatusNotFound,
}

// codes are the error codes of faults that come without.
var codes = map[fault.Code]string{
	fault.Unauthenticated:   "UNAUTHORIZED",
	fault.PermissionDenied:  "DENIED",
	fault.ResourceExhausted: "TOOMANYREQUESTS",
	fault.Unimplemented:     "UNSUPPORTED",
	fault.Unavailable:       "UNAVAILABLE",
}

// known are the codes of the specification that a fault's reason may already be.
var known = map[string]bool{
	artifacts.ReasonName: true, artifacts.ReasonManifest: true, artifacts.ReasonBlob: true,
	artifacts.ReasonManifestInvalid: true,
	artifacts.ReasonManifestBlob:    true, artifacts.ReasonNameInvalid: true, artifacts.ReasonInUse: true,
	artifacts.ReasonImmutable: true, artifacts.ReasonTagged: true, artifacts.ReasonInIndex: true,
	"RANGE_INVALID": true, "SIZE_INVALID": true, "DIGEST_INVALID": true, "BLOB_UPLOAD_UNKNOWN": true,
	"BLOB_UPLOAD_INVALID": true,
	"MANIFEST_TOO_LARGE":  true, "PAGINATION_NUMBER_INVALID": true,
}

// writeError answers in the specification's dialect, {"errors":[{"code","message","detail"}]}.
func (s *server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the client is gone
	}
	e := fault.From(err)
	code, status := e.Reason, e.Code.HTTPStatus()
	if !known[code] {
		code = codes[e.Code]
	}
	if code == "" {
		code = "UNKNOWN"
	}
	if st, ok := statuses[code]; ok {
		status = st
	}
	if e.Reason == fault.ReasonQuota { // as other registries say it: no client tries that again
		code, status = "DENIED", http.StatusForbidden
	}
	if e.Reason == fault.ReasonDiskFull {
		status = http.StatusInsufficientStorage // which no client tries again, as it would 429
	}
	if e.Code == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", challenge(r))
	}
	if status >= 500 && e.Code != fault.Unimplemented && e.Code != fault.ResourceExhausted {
		s.Log.Error("registry", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	type failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail,omitempty"`
	}
	var detail any
	if len(e.Metadata) > 0 {
		detail = e.Metadata
	}
	body := struct {
		Errors []failure `json:"errors"`
	}{[]failure{{code, e.Text(), detail}}}
	if err := writeJSON(w, status, "application/json", body); err != nil {
		s.Log.Error("registry", "err", err)
	}
}

// writeJSON answers with v. It fails before it writes: a client that has gone away is no error.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(b) // the status is out
	return nil
}

// parseDigest reads a digest that a client sent.
func parseDigest(s string) (blob.Digest, error) {
	d, err := blob.ParseDigest(s)
	if err != nil {
		return d, coded("DIGEST_INVALID", fault.From(err))
	}
	return d, nil
}
