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

// maxText bounds every text of an entry that comes from outside, in bytes.
const maxText = 1 << 10

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// name is the log that the event belongs to. Nobody's calls are never beside the writes: a flood of them would push
// those out.
func (e Event) name() string {
	if e.Data || e.Member == "" {
		return dataAccess
	}
	return activity
}

func (e Event) entry(now time.Time) Entry {
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
	if e.Permission != "" && e.Resource != "" {
		out.Payload.Authorization = []Authorization{{Resource: clip(e.Resource), Permission: e.Permission, Granted: !e.Refused()}}
	}
	return out
}

// Refused reports whether the entry is of a call that was refused.
func (e Entry) Refused() bool {
	return e.Payload.Status.Code == codePermissionDenied || e.Payload.Status.Code == codeUnauthenticated
}
