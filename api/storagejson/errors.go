package storagejson

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"giggle/fault"
	"giggle/rest"
	"giggle/storage"
)

// reasons are the texts of errors[].reason by kind.
var reasons = map[fault.Code]string{
	fault.InvalidArgument: "invalid", fault.NotFound: "notFound", fault.AlreadyExists: "conflict",
	fault.Aborted:          "conflict",
	fault.PermissionDenied: "forbidden", fault.Unauthenticated: "required",
	fault.ResourceExhausted:  "rateLimitExceeded",
	fault.FailedPrecondition: "conditionNotMet", fault.OutOfRange: "requestedRangeNotSatisfiable",
	fault.Unimplemented: "notImplemented",
	fault.Unavailable:   "backendError", fault.Internal: "internalError",
}

// status is the HTTP status of a failure: Cloud Storage says 412, 304 and 416 where other APIs have only 400.
func status(r *http.Request, f *rest.Failure) int {
	switch {
	case f.Reason == storage.ReasonNotModified && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return http.StatusNotModified
	case f.Reason == storage.ReasonNotModified:
		return http.StatusPreconditionFailed
	case f.Reason == storage.ReasonPrecondition:
		return http.StatusPreconditionFailed
	case f.Reason == storage.ReasonUploadGone:
		return http.StatusGone
	// gcloud tries 429 and 507 again for hours, and takes 403 for a lack of permission
	case f.Reason == fault.ReasonDiskFull, f.Reason == fault.ReasonQuota:
		return http.StatusRequestEntityTooLarge
	case f.Code == fault.OutOfRange:
		return http.StatusRequestedRangeNotSatisfiable
	}
	return f.HTTP
}

type errorItem struct {
	Message string `json:"message"`
	Domain  string `json:"domain"`
	Reason  string `json:"reason"`
}

type errorBody struct {
	Error struct {
		Code    int         `json:"code"`
		Message string      `json:"message"`
		Errors  []errorItem `json:"errors"`
	} `json:"error"`
}

// WriteError writes an error as the JSON API has it:
// {"error":{"code","message","errors":[{"domain","reason","message"}]}}.
func WriteError(w http.ResponseWriter, r *http.Request, f *rest.Failure) {
	code := status(r, f)
	rest.SetRequired(w, f)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	domain, reason := "global", reasons[f.Code]
	switch {
	case f.Reason == fault.ReasonDiskFull, f.Reason == fault.ReasonQuota:
		domain, reason = "usageLimits", "quotaExceeded"
	case reason == "":
		reason = "backendError"
	}
	var b errorBody
	b.Error.Code, b.Error.Message = code, f.Text()
	b.Error.Errors = []errorItem{{f.Text(), domain, reason}}
	body, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		http.Error(w, f.Message, code)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

type xmlError struct {
	XMLName          xml.Name `xml:"Error"`
	Code             string
	Message          string
	Details          string `xml:",omitempty"`
	StringToSign     string `xml:",omitempty"`
	CanonicalRequest string `xml:",omitempty"`
}

// xmlReasons are the reasons of faults that are codes of the XML API.
var xmlReasons = []string{
	reasonExpired, reasonMalformed, reasonMismatch, reasonSkewed, storage.ReasonNoUpload, storage.ReasonInvalidPart,
	storage.ReasonPartOrder, storage.ReasonPartTooSmall, "MalformedCompleteMultipartUploadRequest",
}

// xmlCodes are the codes of the XML API (https://cloud.google.com/storage/docs/xml-api/reference-status).
var xmlCodes = map[int]string{
	400: "InvalidArgument", 401: "AuthenticationRequired", 403: "AccessDenied", 404: "NoSuchKey",
	409: "InvalidBucketState",
	412: "PreconditionFailed", 416: "InvalidRange", 429: "SlowDown", 405: "NotImplemented", 503: "ServiceUnavailable",
}

func writeXMLError(w http.ResponseWriter, r *http.Request, f *rest.Failure) {
	code := status(r, f)
	rest.SetRequired(w, f)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	e := xmlError{
		Code:             xmlCodes[code],
		Message:          f.Message,
		Details:          f.Metadata["Details"],
		StringToSign:     f.Metadata["StringToSign"],
		CanonicalRequest: f.Metadata["CanonicalRequest"],
	}
	switch {
	case slices.Contains(xmlReasons, f.Reason):
		e.Code = f.Reason
	case code == http.StatusNotFound && strings.HasPrefix(f.Message, "The specified bucket"):
		e.Code = "NoSuchBucket"
	case e.Code == "":
		e.Code = "InternalError"
	}
	body, err := xml.Marshal(e)
	if err != nil {
		http.Error(w, f.Message, code)
		return
	}
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	w.WriteHeader(code)
	_, _ = w.Write(append([]byte(xml.Header), body...))
}
