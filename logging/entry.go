// Package logging keeps what services say: a record of each request and each line of a container, as entries in the
// form of Cloud Logging.
//
// It holds the newest entries of each project in memory, within bounds, for those who read and follow them: the
// giggle command now, Cloud Logging's API and a store on disk later. It doesn't know who writes, and asks nobody
// whether a reader may read.
package logging

import (
	"encoding/json"
	"net/url"
	"strconv"
	"time"
)

// The logs that Cloud Run writes (https://cloud.google.com/run/docs/logging).
const (
	Requests = "run.googleapis.com/requests"      // one entry a request
	Stdout   = "run.googleapis.com/stdout"        // what containers write
	Stderr   = "run.googleapis.com/stderr"        // what containers write to standard error
	System   = "run.googleapis.com/varlog/system" // what the platform says about an instance
)

// Entry is a LogEntry of Cloud Logging, as far as services make them. It isn't changed once it is appended.
type Entry struct {
	Log       string    // one of the logs above, without the project
	Time      time.Time // of a request: when it came
	Severity  Severity
	Resource  Resource
	Instance  string // label instanceId
	ID        string // insertId; Append makes one where there is none
	Trace     string // hexadecimal id, or the name that the application wrote
	Span      string
	Sampled   bool
	Text      string          // textPayload
	JSON      json.RawMessage // jsonPayload, an object; or nil
	Labels    map[string]string
	Request   *Request        // httpRequest; or nil
	Source    json.RawMessage // sourceLocation, as the application wrote it; or nil
	Operation json.RawMessage // operation, as the application wrote it; or nil
}

// Resource is the revision that an entry is about: a cloud_run_revision.
type Resource struct{ Project, Region, Service, Revision string }

// Request is google.logging.type.HttpRequest.
type Request struct {
	Method, URL           string
	Status                int
	RequestSize           int64 // bytes, with the head
	ResponseSize          int64
	Latency               time.Duration
	UserAgent, Referer    string
	RemoteIP, ServerIP    string
	Protocol              string // "HTTP/1.1"
	CacheHit, CacheLookup bool
}

// size is about what an entry takes in memory, in bytes.
func (e *Entry) size() int {
	n := 320 + len(e.ID) + len(e.Trace) + len(e.Span) + len(e.Text) + len(e.JSON) + len(e.Source) + len(e.Operation)
	for k, v := range e.Labels {
		n += 48 + len(k) + len(v)
	}
	if r := e.Request; r != nil {
		n += 192 + len(r.URL) + len(r.UserAgent) + len(r.Referer) + len(r.RemoteIP)
	}
	return n
}

// wire is an Entry in Cloud Logging's JSON form.
type wire struct {
	InsertID     string            `json:"insertId"`
	LogName      string            `json:"logName"`
	Timestamp    time.Time         `json:"timestamp"`
	Severity     Severity          `json:"severity"`
	Resource     wireResource      `json:"resource"`
	Labels       map[string]string `json:"labels,omitempty"`
	TextPayload  string            `json:"textPayload,omitempty"`
	JSONPayload  json.RawMessage   `json:"jsonPayload,omitempty"`
	HTTPRequest  *wireRequest      `json:"httpRequest,omitempty"`
	Trace        string            `json:"trace,omitempty"`
	SpanID       string            `json:"spanId,omitempty"`
	TraceSampled bool              `json:"traceSampled,omitempty"`
	Source       json.RawMessage   `json:"sourceLocation,omitempty"`
	Operation    json.RawMessage   `json:"operation,omitempty"`
}

type wireResource struct {
	Type   string            `json:"type"`
	Labels map[string]string `json:"labels"`
}

type wireRequest struct {
	Method       string `json:"requestMethod,omitempty"`
	URL          string `json:"requestUrl,omitempty"`
	RequestSize  int64  `json:"requestSize,omitempty,string"`
	Status       int    `json:"status,omitempty"`
	ResponseSize int64  `json:"responseSize,omitempty,string"`
	UserAgent    string `json:"userAgent,omitempty"`
	RemoteIP     string `json:"remoteIp,omitempty"`
	ServerIP     string `json:"serverIp,omitempty"`
	Referer      string `json:"referer,omitempty"`
	Latency      string `json:"latency,omitempty"`
	CacheLookup  bool   `json:"cacheLookup,omitempty"`
	CacheHit     bool   `json:"cacheHit,omitempty"`
	Protocol     string `json:"protocol,omitempty"`
}

// MarshalJSON writes the entry as Cloud Logging's REST API does.
func (e Entry) MarshalJSON() ([]byte, error) {
	r := e.Resource
	w := wire{
		InsertID: e.ID, LogName: "projects/" + r.Project + "/logs/" + url.QueryEscape(e.Log), Timestamp: e.Time.UTC(), Severity: e.Severity,
		Resource: wireResource{"cloud_run_revision", map[string]string{
			"project_id": r.Project, "location": r.Region, "service_name": r.Service, "configuration_name": r.Service, "revision_name": r.Revision,
		}},
		TextPayload: e.Text, JSONPayload: e.JSON, Trace: traceName(r.Project, e.Trace), SpanID: e.Span, TraceSampled: e.Sampled, Source: e.Source, Operation: e.Operation,
	}
	if e.Instance != "" || len(e.Labels) > 0 {
		w.Labels = make(map[string]string, len(e.Labels)+1)
		for k, v := range e.Labels {
			w.Labels[k] = v
		}
		if e.Instance != "" {
			w.Labels["instanceId"] = e.Instance
		}
	}
	if q := e.Request; q != nil {
		w.HTTPRequest = &wireRequest{
			Method: q.Method, URL: q.URL, RequestSize: q.RequestSize, Status: q.Status, ResponseSize: q.ResponseSize, UserAgent: q.UserAgent,
			RemoteIP: q.RemoteIP, ServerIP: q.ServerIP, Referer: q.Referer, CacheLookup: q.CacheLookup, CacheHit: q.CacheHit, Protocol: q.Protocol,
		}
		if q.Latency > 0 {
			w.HTTPRequest.Latency = strconv.FormatFloat(q.Latency.Seconds(), 'f', 9, 64) + "s"
		}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	l := w.Resource.Labels
	*e = Entry{
		Log: logOf(w.LogName), Time: w.Timestamp, Severity: w.Severity, Resource: Resource{l["project_id"], l["location"], l["service_name"], l["revision_name"]},
		Instance: w.Labels["instanceId"], ID: w.InsertID, Trace: traceID(w.Trace), Span: w.SpanID, Sampled: w.TraceSampled,
		Text: w.TextPayload, JSON: w.JSONPayload, Labels: w.Labels, Source: w.Source, Operation: w.Operation,
	}
	if delete(e.Labels, "instanceId"); len(e.Labels) == 0 {
		e.Labels = nil
	}
	if q := w.HTTPRequest; q != nil {
		latency, err := time.ParseDuration(q.Latency)
		if err != nil && q.Latency != "" {
			return err
		}
		e.Request = &Request{
			Method: q.Method, URL: q.URL, Status: q.Status, RequestSize: q.RequestSize, ResponseSize: q.ResponseSize, Latency: latency, UserAgent: q.UserAgent, Referer: q.Referer,
			RemoteIP: q.RemoteIP, ServerIP: q.ServerIP, Protocol: q.Protocol, CacheHit: q.CacheHit, CacheLookup: q.CacheLookup,
		}
	}
	return nil
}
