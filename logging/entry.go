// Package logging is the platform's log: requests, what containers and builds write, and who did what, as entries in
// the form of Cloud Logging.
//
// It holds the newest entries in memory, within bounds, for those who read and follow them; package audit keeps what
// was done on disk, and is read in the same way. It doesn't know who writes, and asks nobody whether a reader may read.
package logging

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"time"
)

// Entry is a LogEntry of Cloud Logging. It isn't changed once it is appended, nor is what it points to: entries share
// it.
type Entry struct {
	Project   string // id
	Log       string // such as Requests, without the project
	Time      time.Time
	Severity  Severity
	Resource  *Resource         // what it is about; never nil
	Labels    map[string]string // or nil
	ID        string            // insertId; Append makes one where there is none
	Text      string            // textPayload
	JSON      json.RawMessage   // jsonPayload, an object; or nil
	Proto     json.RawMessage   // protoPayload, an object with an @type; or nil
	Request   *Request          // httpRequest; or nil
	Trace     string            // hexadecimal id, or the name that the application wrote
	Span      string
	Sampled   bool
	Source    json.RawMessage // sourceLocation, an object; or nil
	Operation json.RawMessage // operation, an object; or nil
	Split     json.RawMessage // split, an object: which part of a larger entry this is; or nil
}

// Resource is a monitored resource: what entries are about.
type Resource struct {
	Type   string            `json:"type"`
	Labels map[string]string `json:"labels"`
}

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

// size is about what an entry takes in memory, in bytes, without what it shares with others.
func (e *Entry) size() int {
	n := 272 + len(e.ID) + len(e.Text) + len(e.JSON) + len(e.Proto) + len(e.Trace) + len(e.Span) + len(e.Source) +
		len(e.Operation) + len(e.Split)
	if len(e.Labels) > 0 {
		n += 336 // of a map with eight places
	}
	for k, v := range e.Labels {
		n += len(k) + len(v)
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
	Resource     *Resource         `json:"resource"`
	Labels       map[string]string `json:"labels,omitempty"`
	TextPayload  string            `json:"textPayload,omitempty"`
	JSONPayload  json.RawMessage   `json:"jsonPayload,omitempty"`
	ProtoPayload json.RawMessage   `json:"protoPayload,omitempty"`
	HTTPRequest  *wireRequest      `json:"httpRequest,omitempty"`
	Trace        string            `json:"trace,omitempty"`
	SpanID       string            `json:"spanId,omitempty"`
	TraceSampled bool              `json:"traceSampled,omitempty"`
	Source       json.RawMessage   `json:"sourceLocation,omitempty"`
	Operation    json.RawMessage   `json:"operation,omitempty"`
	Split        json.RawMessage   `json:"split,omitempty"`
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
	w := wire{
		InsertID:     e.ID,
		LogName:      "projects/" + e.Project + "/logs/" + url.QueryEscape(e.Log),
		Timestamp:    e.Time.UTC(),
		Severity:     e.Severity,
		Resource:     e.Resource,
		Labels:       e.Labels,
		TextPayload:  e.Text,
		JSONPayload:  e.JSON,
		ProtoPayload: e.Proto,
		HTTPRequest:  wireOf(e.Request),
		Trace:        TraceName(e.Project, e.Trace),
		SpanID:       e.Span,
		TraceSampled: e.Sampled,
		Source:       e.Source,
		Operation:    e.Operation,
		Split:        e.Split,
	}
	// Whether texts are safe in HTML is for the outer encoder to say: it costs six bytes for one.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(w)
	return b.Bytes(), err
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	project, log := splitLogName(w.LogName)
	*e = Entry{
		Project:   project,
		Log:       log,
		Time:      w.Timestamp,
		Severity:  w.Severity,
		Resource:  w.Resource,
		Labels:    w.Labels,
		ID:        w.InsertID,
		Text:      w.TextPayload,
		JSON:      w.JSONPayload,
		Proto:     w.ProtoPayload,
		Trace:     TraceID(w.Trace),
		Span:      w.SpanID,
		Sampled:   w.TraceSampled,
		Source:    w.Source,
		Operation: w.Operation,
		Split:     w.Split,
	}
	if e.Resource == nil {
		e.Resource = new(Resource)
	}
	if w.HTTPRequest == nil {
		return nil
	}
	latency, err := time.ParseDuration(w.HTTPRequest.Latency)
	if err != nil && w.HTTPRequest.Latency != "" {
		return err
	}
	e.Request = w.HTTPRequest.request(latency)
	return nil
}

// wireOf is a request on the wire; nil for none.
func wireOf(q *Request) *wireRequest {
	if q == nil {
		return nil
	}
	w := &wireRequest{
		Method:       q.Method,
		URL:          q.URL,
		RequestSize:  q.RequestSize,
		Status:       q.Status,
		ResponseSize: q.ResponseSize,
		UserAgent:    q.UserAgent,
		RemoteIP:     q.RemoteIP,
		ServerIP:     q.ServerIP,
		Referer:      q.Referer,
		CacheLookup:  q.CacheLookup,
		CacheHit:     q.CacheHit,
		Protocol:     q.Protocol,
	}
	if q.Latency > 0 {
		w.Latency = strconv.FormatFloat(q.Latency.Seconds(), 'f', 9, 64) + "s"
	}
	return w
}

func (w *wireRequest) request(latency time.Duration) *Request {
	return &Request{
		Method:       w.Method,
		URL:          w.URL,
		Status:       w.Status,
		RequestSize:  w.RequestSize,
		ResponseSize: w.ResponseSize,
		Latency:      latency,
		UserAgent:    w.UserAgent,
		Referer:      w.Referer,
		RemoteIP:     w.RemoteIP,
		ServerIP:     w.ServerIP,
		Protocol:     w.Protocol,
		CacheHit:     w.CacheHit,
		CacheLookup:  w.CacheLookup,
	}
}
