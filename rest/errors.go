package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"giggle/fault"
)

// Failure is a fault ready for the wire: nothing in it is secret.
type Failure struct {
	*fault.Error
	ID   string // request id, "" if there is none
	HTTP int    // HTTP status
}

// ErrorWriter writes a failure in the dialect of an API. WriteError is Google's usual one.
type ErrorWriter func(w http.ResponseWriter, r *http.Request, f *Failure)

// NewFailure makes a Failure of any error: a fault, a gRPC status, a context error, or else INTERNAL with a text that
// gives nothing away but the request id.
func NewFailure(id string, err error) *Failure {
	e := *asFault(err)
	if hidden(e.Code) && id != "" {
		e.Message += " Request ID: " + id
	}
	return &Failure{Error: &e, ID: id, HTTP: e.Code.HTTPStatus()}
}

// hidden reports whether a failure of this kind is ours, so that the log must tell what the caller must not see.
func hidden(c fault.Code) bool {
	return c == fault.Internal || c == fault.Unknown || c == fault.DataLoss
}

func asFault(err error) *fault.Error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return &fault.Error{Code: fault.Code(s.Code()), Message: s.Message(), Cause: err}
	}
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return fault.New(fault.InvalidArgument, "Request payload size exceeds the limit: %d bytes.", tooLong.Limit)
	case errors.Is(err, context.Canceled):
		return &fault.Error{Code: fault.Canceled, Message: "The operation was cancelled.", Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &fault.Error{
			Code:    fault.DeadlineExceeded,
			Message: "Deadline expired before operation could complete.",
			Cause:   err,
		}
	}
	return fault.From(err)
}

// failure is NewFailure with the host as the domain, and with the log line that the request id leads to.
func (m *Mux) failure(rpc, id string, err error) *Failure {
	f := NewFailure(id, err)
	if f.Reason != "" && f.Domain == "" {
		f.Domain = m.host
	}
	if f.Code == fault.Unimplemented && m.methods[rpc] != nil && status.Code(err) == codes.Unimplemented {
		f.Message = fmt.Sprintf("Method %s is not implemented by Giggle.", rpc)
	}
	if hidden(f.Code) {
		m.opts.Log.Error("request failed", "request", id, "host", m.host, "rpc", rpc, "error", err)
	}
	return f
}

// details returns the google.rpc details, the same for both wires.
func (f *Failure) details() []*anypb.Any {
	var msgs []proto.Message
	if f.Reason != "" {
		msgs = append(msgs, &errdetails.ErrorInfo{Reason: f.Reason, Domain: f.Domain, Metadata: f.Metadata})
	}
	if len(f.Fields) > 0 {
		br := &errdetails.BadRequest{}
		for _, v := range f.Fields {
			br.FieldViolations = append(br.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: v.Path, Description: v.Description})
		}
		msgs = append(msgs, br)
	}
	if len(f.Help) > 0 {
		help := &errdetails.Help{}
		for _, l := range f.Help {
			help.Links = append(help.Links, &errdetails.Help_Link{Description: l.Description, Url: l.URL})
		}
		msgs = append(msgs, help)
	}
	if f.RetryAfter > 0 {
		msgs = append(msgs, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter)})
	}
	if hidden(f.Code) && f.ID != "" {
		msgs = append(msgs, &errdetails.RequestInfo{RequestId: f.ID})
	}
	var out []*anypb.Any
	for _, msg := range msgs {
		if a, err := anypb.New(msg); err == nil { // fails only on invalid UTF-8; the message stands without it
			out = append(out, a)
		}
	}
	return out
}

func (f *Failure) status() *spb.Status {
	return &spb.Status{Code: int32(f.Code), Message: f.Message, Details: f.details()}
}

// envelope is the error body of Google's JSON APIs (AIP-193).
type envelope struct {
	Error envelopeError `json:"error"`
}

type envelopeError struct {
	Code    int               `json:"code"`
	Message string            `json:"message"`
	Status  string            `json:"status"`
	Details []json.RawMessage `json:"details,omitempty"`
}

func (f *Failure) envelope() envelope {
	e := envelopeError{Code: f.HTTP, Message: f.Message, Status: f.Code.String()}
	for _, a := range f.details() {
		if raw, err := protojson.Marshal(a); err == nil {
			e.Details = append(e.Details, raw)
		}
	}
	return envelope{e}
}

// WriteError writes {"error":{"code","message","status","details"}}.
func WriteError(w http.ResponseWriter, r *http.Request, f *Failure) {
	if isGRPC(r) {
		writeStatus(w, f)
		return
	}
	SetRequired(w, f)
	body, err := encode(f.envelope(), true)
	if err != nil { // cannot happen: the envelope is plain data
		http.Error(w, f.Message, f.HTTP)
		return
	}
	setJSON(w.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // so that it is whole while the request's body is not
	w.WriteHeader(f.HTTP)
	_, _ = w.Write(body)
}

// SetRequired sets the headers that a status must carry: WWW-Authenticate of a 401, and Allow of a 405, which is empty
// where nothing is (RFC 9110, 10.2.1). An ErrorWriter calls it before WriteHeader.
func SetRequired(w http.ResponseWriter, f *Failure) {
	if f.HTTP == http.StatusMethodNotAllowed && w.Header()["Allow"] == nil {
		w.Header()["Allow"] = []string{""}
	}
	if f.HTTP == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/"`)
	}
}

func setJSON(h http.Header) {
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "private")
	}
}

// encode is the one JSON encoder of plain values: no HTML escapes, indented by two when pretty, a newline at the end.
func encode(v any, pretty bool) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if pretty {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
