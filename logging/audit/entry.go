package audit

import (
	"strings"
	"time"
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
	Member     string // who called, as policies write it; "" for nobody
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

// Entry is an entry of the log: a LogEntry of Cloud Logging that holds an AuditLog, in their JSON form
// (https://cloud.google.com/logging/docs/audit/understanding-audit-logs).
type Entry struct {
	LogName   string            `json:"logName"`
	Resource  MonitoredResource `json:"resource"`
	Timestamp time.Time         `json:"timestamp"`
	Severity  string            `json:"severity"` // "NOTICE" for a success, "ERROR" else
	InsertID  string            `json:"insertId"` // the request id
	Labels    map[string]string `json:"labels,omitempty"`
	Payload   Payload           `json:"protoPayload"`
}

// MonitoredResource is what the entry is about, as Cloud Logging names it.
type MonitoredResource struct {
	Type   string            `json:"type"`
	Labels map[string]string `json:"labels"`
}

// Payload is google.cloud.audit.AuditLog.
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

// maxText bounds every text of an entry that comes from outside, in bytes; maxRefusedText those of a refused call, which
// cost their caller nothing.
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

// name is the log of Cloud Logging that the event belongs to.
func (e Event) name() string {
	if e.Data || e.Member == "" {
		return dataAccess
	}
	return activity
}

func (e Event) entry(now time.Time) Entry {
	clip := func(s string) string { return clipTo(maxText, s) }
	if e.Refused() {
		clip = func(s string) string { return clipTo(maxRefusedText, s) }
	}
	project := e.Project
	if project == "" {
		project = "-"
	}
	_, email, _ := strings.Cut(e.Member, ":")
	service, method := clip(e.Service), clip(strings.ReplaceAll(strings.TrimPrefix(e.Method, "/"), "/", "."))
	out := Entry{
		LogName:   "projects/" + clip(project) + "/logs/cloudaudit.googleapis.com%2F" + e.name(),
		Resource:  MonitoredResource{"audited_resource", map[string]string{"project_id": clip(project), "service": service, "method": method}},
		Timestamp: now.UTC(), Severity: "NOTICE", InsertID: e.RequestID,
		Payload: Payload{
			Type: "type.googleapis.com/google.cloud.audit.AuditLog", ServiceName: service, MethodName: method, ResourceName: clip(e.Resource),
			Authentication: Authentication{PrincipalEmail: email, PrincipalSubject: e.Member},
			Request:        RequestMetadata{CallerIP: e.Caller, UserAgent: clip(e.UserAgent)},
			Status:         Status{Code: e.Code, Message: clip(e.Message)},
		},
	}
	if e.Code != 0 {
		out.Severity = "ERROR"
	}
	if len(e.Delta) > 0 {
		out.Payload.ServiceData = &ServiceData{"type.googleapis.com/google.iam.v1.logging.AuditData", PolicyDelta{e.Delta}}
	}
	if len(e.Changed) > 0 {
		m := &Metadata{}
		for _, c := range e.Changed {
			m.Changed = append(m.Changed, clip(c))
		}
		out.Payload.Metadata = m
	}
	if e.Permission != "" && e.Resource != "" {
		out.Payload.Authorization = []Authorization{{Resource: clip(e.Resource), Permission: e.Permission, Granted: !e.Refused()}}
	}
	return out
}

// Refused reports whether the entry is of a call that was refused.
func (e Entry) Refused() bool {
	return e.Payload.Status.Code == codePermissionDenied || e.Payload.Status.Code == codeUnauthenticated
}
