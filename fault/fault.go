// Package fault is the project's error type: a kind (a gRPC code), a text that the caller may see, and the
// details that Google's error model carries (ErrorInfo, Help, BadRequest).
//
// It serves every layer: mechanisms and products return faults, and the one writer of each dialect (Google JSON,
// Kubernetes Status, OCI, OAuth) turns them into bytes. It does not know any wire format, and it does not log.
package fault

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Code is the kind of a fault. The values are those of google.rpc.Code.
type Code uint32

// The codes of google.rpc.Code (google/rpc/code.proto). There is no OK: a fault is never a success.
const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

// unimplementedStatus is the HTTP status of what isn't implemented. code.proto names 501, but gcloud 528 and others who
// use Google's apitools, and gaxios in Node, take every 5xx for a passing trouble and try again for half a minute; all
// clients of Google's take a 405 as final (docs/decisions/0017-unimplemented.md).
const unimplementedStatus = 405

// codes is the table of google/rpc/code.proto: name and the HTTP status it maps to, with one difference.
var codes = map[Code]struct {
	name string
	http int
}{
	Canceled:           {"CANCELLED", 499},
	Unknown:            {"UNKNOWN", 500},
	InvalidArgument:    {"INVALID_ARGUMENT", 400},
	DeadlineExceeded:   {"DEADLINE_EXCEEDED", 504},
	NotFound:           {"NOT_FOUND", 404},
	AlreadyExists:      {"ALREADY_EXISTS", 409},
	PermissionDenied:   {"PERMISSION_DENIED", 403},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", 429},
	FailedPrecondition: {"FAILED_PRECONDITION", 400},
	Aborted:            {"ABORTED", 409},
	OutOfRange:         {"OUT_OF_RANGE", 400},
	Unimplemented:      {"UNIMPLEMENTED", unimplementedStatus},
	Internal:           {"INTERNAL", 500},
	Unavailable:        {"UNAVAILABLE", 503},
	DataLoss:           {"DATA_LOSS", 500},
	Unauthenticated:    {"UNAUTHENTICATED", 401},
}

// String returns the name in google.rpc.Code, such as "NOT_FOUND".
func (c Code) String() string {
	if e, ok := codes[c]; ok {
		return e.name
	}
	return "UNKNOWN"
}

// HTTPStatus returns the HTTP status that google/rpc/code.proto names for the code, but for Unimplemented, which is
// 405.
func (c Code) HTTPStatus() int {
	if e, ok := codes[c]; ok {
		return e.http
	}
	return 500
}

// Error is a fault: everything in it but Cause may be shown to the caller.
type Error struct {
	Code    Code
	Message string // a full sentence for the user: resource, cause, and the fix if one is known

	Reason   string            // ErrorInfo.reason, UPPER_SNAKE_CASE, or ""
	Domain   string            // ErrorInfo.domain, such as "googleapis.com"
	Metadata map[string]string // ErrorInfo.metadata
	Help     []Link            // google.rpc.Help.links
	Fields   []Field           // google.rpc.BadRequest.field_violations

	RetryAfter time.Duration // google.rpc.RetryInfo.retry_delay, 0 for none

	Cause error // what went wrong below; for the log only
}

// Link is one google.rpc.Help link: what the user can do next.
type Link struct{ Description, URL string }

// Field is one google.rpc.BadRequest violation. Path is the JSON path of the field, such as "spec.template.spec";
// a product without a wire format says a Path.
type Field struct{ Path, Description string }

// text is the message of a fault about the field.
func (f Field) text() string { return f.Path + ": " + f.Description }

// Error returns the message, and behind it the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Text is the message with what helps behind it, for a dialect that has no place for Help.
func (e *Error) Text() string {
	text := e.Message
	for _, l := range e.Help {
		text += " " + l.Description
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns a fault of the given kind with a message for the user.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid returns an InvalidArgument fault for the field at path.
func Invalid(path, format string, args ...any) *Error {
	return ofField(InvalidArgument, path, format, args...)
}

// NotImplemented returns an Unimplemented fault for the field at path: a thing that the real service has and Giggle
// has not (yet).
func NotImplemented(path, format string, args ...any) *Error {
	return ofField(Unimplemented, path, format, args...)
}

func ofField(code Code, path, format string, args ...any) *Error {
	f := Field{Path: path, Description: fmt.Sprintf(format, args...)}
	return &Error{Code: code, Message: f.text(), Fields: []Field{f}}
}

// Wrap puts the operation in front of *err, once per layer, and keeps its kind. It does nothing when *err is nil.
//
//	defer fault.Wrap(&err, "run.Services.Get(%s)", name)
func Wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *err)
	}
}

// ReasonDiskFull is the reason of a ResourceExhausted fault that no waiting mends.
const ReasonDiskFull = "DISK_FULL"

// ReasonQuota is the reason of a ResourceExhausted fault that only deleting, or another quota, mends.
const ReasonQuota = "QUOTA_EXCEEDED"

// DiskFull is the fault of a full disk. The cause may be nil.
func DiskFull(cause error) *Error {
	return &Error{
		Code:    ResourceExhausted,
		Reason:  ReasonDiskFull,
		Domain:  "giggle.dev",
		Cause:   cause,
		Message: "The platform's disk is full. Delete what is not needed any more: objects, images, services, models.",
	}
}

// From returns the fault in err's chain, or an Internal fault with err as its cause; a full disk is DiskFull, whoever
// found it. It returns nil for nil.
// The message of an error that is not a fault never reaches the user.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	found := errors.As(err, &e)
	if found && e.Code == ResourceExhausted {
		return e
	}
	// Whoever wrote and whatever it took the failure for.
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return DiskFull(err)
	}
	if found {
		return e
	}
	return &Error{Code: Internal, Message: "Internal error encountered.", Cause: err}
}

// CodeOf returns the kind of err, Internal for one that is not a fault.
func CodeOf(err error) Code { return From(err).Code }

// Is reports whether err is a fault of the given kind.
func Is(err error, code Code) bool { return err != nil && CodeOf(err) == code }
