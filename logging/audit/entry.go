package audit

import (
	"encoding/json"
	"strings"
	"time"

	"giggle/fault"
	"giggle/logging"
)

// Event is one call as the guard of an API saw it. Texts from outside are cut to a sane length when it is written.
type Event struct {
	RequestID  string
	Service    string // "run.googleapis.com"
	Method     string // full RPC name: "/google.iam.v1.IAMPolicy/SetIamPolicy" or "storage.objects.insert"
	Project    string // id, "" when the call is about none
	Resource   string // "projects/giggle/locations/europe-north1/services/jokes", "" when it is not known
	Permission string // that was asked for, "" for none
	Data       bool   // about data in a resource, not about the resource
	Member     string // who called, as policies write it; "" for an unauthenticated caller
	Caller     string // IP address
	UserAgent  string
	Code       int32  // google.rpc.Code; 0 for success
	Message    string // of the error

	Changed []string       // what was written, as "KIND NAME" of the rows
	Delta   []BindingDelta // of a policy that was set
}

// BindingDelta is a member who was given a role, or whom it was taken from: google.iam.v1.BindingDelta.
type BindingDelta struct {
	Action    string `json:"action"` // ADD, REMOVE
	Role      string `json:"role"`
	Member    string `json:"member"`
	Condition *Expr  `json:"condition,omitempty"`
}

// Expr is google.type.Expr.
type Expr struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Expression  string `json:"expression,omitempty"`
}

// Refused reports whether the call was refused: no identity, or not its permission.
func (e Event) Refused() bool { return e.Code == codePermissionDenied || e.Code == codeUnauthenticated }

// The codes of google.rpc.Code that are refusals.
const (
	codePermissionDenied = 7
	codeUnauthenticated  = 16
)

// Payload is google.cloud.audit.AuditLog, the protoPayload of an entry
// (https://cloud.google.com/logging/docs/audit/understanding-audit-logs).
type Payload struct {
	Type           string          `json:"@type"`
	ServiceName    string          `json:"serviceName"`
	MethodName     string          `json:"methodName"`
	ResourceName   string          `json:"resourceName,omitempty"`
	Authentication Authentication  `json:"authenticationInfo"`
	Authorization  []Authorization `json:"authorizationInfo,omitempty"`
	Request        RequestMetadata `json:"requestMetadata"`
	Status         Status          `json:"status"`
	ServiceData    *ServiceData    `json:"serviceData,omitempty"`
	Metadata       *Metadata       `json:"metadata,omitempty"`
}

// ServiceData is google.iam.v1.logging.AuditData: how a policy was changed.
type ServiceData struct {
	Type        string      `json:"@type"`
	PolicyDelta PolicyDelta `json:"policyDelta"`
}

// PolicyDelta is google.iam.v1.PolicyDelta.
type PolicyDelta struct {
	BindingDeltas []BindingDelta `json:"bindingDeltas"`
}

// Metadata is what Giggle knows beyond that.
type Metadata struct {
	Changed []string `json:"changed"` // rows that were written: "run.service projects/p/locations/l/services/s"
}

// Authentication is who called.
type Authentication struct {
	PrincipalEmail   string `json:"principalEmail,omitempty"`
	PrincipalSubject string `json:"principalSubject,omitempty"` // the member
}

// Authorization is a permission that was asked for.
type Authorization struct {
	Resource   string `json:"resource"`
	Permission string `json:"permission"`
	Granted    bool   `json:"granted"`
}

// RequestMetadata is where the call came from.
type RequestMetadata struct {
	CallerIP  string `json:"callerIp,omitempty"`
	UserAgent string `json:"callerSuppliedUserAgent,omitempty"`
}

// Status is google.rpc.Status without details.
type Status struct {
	Code    int32  `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// maxText bounds every text of an entry that comes from outside, in bytes; maxRefusedText those of a refused call,
// which cost their caller nothing.
const (
	maxText        = 1 << 10
	maxRefusedText = 1 << 7
)

// clipTo bounds a text. Control characters, which JSON writes with six, are gone from it.
func clipTo(limit int, s string) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// PayloadOf is what an entry of the audit log holds. It fails where the entry is none of it.
func PayloadOf(e *logging.Entry) (Payload, error) {
	var p Payload
	if err := json.Unmarshal(e.Proto, &p); err != nil || p.Type != payloadType {
		return Payload{}, fault.New(fault.InvalidArgument, "The log entry %.80q holds no %s.", e.ID, payloadType)
	}
	return p, nil
}

// Refused reports whether the call was refused.
func (p *Payload) Refused() bool {
	return p.Status.Code == codePermissionDenied || p.Status.Code == codeUnauthenticated
}

// stream is where the event is kept: refusals, which cost their caller nothing, apart from what was done.
func (e Event) stream() string {
	switch {
	case e.Refused():
		return refused
	case e.Data:
		return dataAccess
	}
	return activity
}

// payloadType is the type of what the entries hold, and resourceType that of what they are about.
const (
	payloadType  = "type.googleapis.com/google.cloud.audit.AuditLog"
	resourceType = "audited_resource"
)

// log is the log of Cloud Logging that the event belongs to.
func (e Event) log() string {
	if e.Data || e.Member == "" {
		return "cloudaudit.googleapis.com/" + dataAccess
	}
	return "cloudaudit.googleapis.com/" + activity
}

func (e Event) entry(now time.Time) (logging.Entry, error) {
	clip := func(s string) string { return clipTo(maxText, s) }
	if e.Refused() {
		clip = func(s string) string { return clipTo(maxRefusedText, s) }
	}
	project := clip(e.Project)
	if project == "" {
		project = "-"
	}
	_, email, _ := strings.Cut(e.Member, ":")
	service, method := clip(e.Service), clip(strings.ReplaceAll(strings.TrimPrefix(e.Method, "/"), "/", "."))
	p := Payload{
		Type:           payloadType,
		ServiceName:    service,
		MethodName:     method,
		ResourceName:   clip(e.Resource),
		Authentication: Authentication{PrincipalEmail: email, PrincipalSubject: e.Member},
		Request:        RequestMetadata{CallerIP: e.Caller, UserAgent: clip(e.UserAgent)},
		Status:         Status{Code: e.Code, Message: clip(e.Message)},
	}
	if len(e.Delta) > 0 {
		p.ServiceData = &ServiceData{"type.googleapis.com/google.iam.v1.logging.AuditData", PolicyDelta{e.Delta}}
	}
	if len(e.Changed) > 0 {
		p.Metadata = &Metadata{}
		for _, c := range e.Changed {
			p.Metadata.Changed = append(p.Metadata.Changed, clip(c))
		}
	}
	if e.Permission != "" && e.Resource != "" {
		p.Authorization = []Authorization{{Resource: clip(e.Resource), Permission: e.Permission, Granted: !e.Refused()}}
	}
	payload, err := encode(p)
	out := logging.Entry{
		Project:  project,
		Log:      e.log(),
		Time:     now,
		Severity: logging.Notice,
		Resource: &logging.Resource{
			Type:   resourceType,
			Labels: map[string]string{"project_id": project, "service": service, "method": method},
		},
		ID:    e.RequestID,
		Proto: payload,
	}
	if e.Code != 0 {
		out.Severity = logging.Error
	}
	return out, err
}
