package logging

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"giggle/engine"
)

// maxLine bounds what is kept of one line, in bytes; Cloud Logging's entries end at 256 KiB.
const maxLine = 256 << 10

// Line makes an entry of a line that a container wrote to a stream, engine.Stdout or engine.Stderr; of any other stream
// it is the platform's own word, an error on engine.PlatformErrors. A line that is a JSON object becomes the jsonPayload, and the special fields in it what they
// stand for (https://cloud.google.com/logging/docs/structured-logging).
func Line(r Resource, instance, stream, text string, at time.Time) Entry {
	e := Entry{Log: System, Time: at, Resource: r, Instance: instance}
	switch stream {
	case engine.Stdout:
		e.Log = Stdout
	case engine.Stderr:
		e.Log = Stderr
	case engine.PlatformErrors:
		e.Severity = Error
	}
	if len(text) > maxLine {
		text = text[:maxLine] + "…"
	}
	if e.Log == System || !e.structured(text) {
		e.Text = strings.ToValidUTF8(text, "�")
	}
	return e
}

// special are the fields of a JSON line that are moved out of the payload.
var special = []string{
	"severity", "time", "timestamp", "timestampSeconds", "timestampNanos", "httpRequest", "logging.googleapis.com/insertId", "logging.googleapis.com/labels",
	"logging.googleapis.com/operation", "logging.googleapis.com/sourceLocation", "logging.googleapis.com/spanId",
	"logging.googleapis.com/trace", "logging.googleapis.com/trace_sampled",
}

// structured fills the entry from a line that is a JSON object, and reports whether it is one.
func (e *Entry) structured(text string) bool {
	if text = strings.TrimSpace(text); !strings.HasPrefix(text, "{") {
		return false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &fields) != nil {
		return false
	}
	e.Severity = severityOf(str(fields["severity"]))
	e.Time = timeOf(fields, e.Time)
	e.ID = clip(str(fields["logging.googleapis.com/insertId"]), 512)
	e.Trace = traceID(clip(str(fields["logging.googleapis.com/trace"]), 512))
	e.Span = clip(str(fields["logging.googleapis.com/spanId"]), 64)
	e.Sampled = string(bytes.Trim(fields["logging.googleapis.com/trace_sampled"], `"`)) == "true"
	e.Labels = labelsOf(fields["logging.googleapis.com/labels"])
	e.Source = object(fields["logging.googleapis.com/sourceLocation"])
	e.Operation = object(fields["logging.googleapis.com/operation"])
	e.Request = requestOf(fields["httpRequest"])
	message := fields["message"]
	rest := maps.Clone(fields)
	for _, name := range special {
		delete(rest, name)
	}
	if q := fields["httpRequest"]; q != nil && e.Request == nil {
		rest["httpRequest"] = q // not in the form that it should have: a field like others
	}
	if len(rest) == 1 && message != nil && message[0] == '"' {
		e.Text = str(message) // nothing else was said
		return true
	}
	b, err := json.Marshal(rest) // in the order of names, whatever the application's
	if err != nil {
		return false
	}
	e.JSON = b
	return true
}

// str is a JSON string's value, or "".
func str(b json.RawMessage) string {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// object returns what is a JSON object, or nil.
func object(b json.RawMessage) json.RawMessage {
	if len(b) > 0 && b[0] == '{' {
		return b
	}
	return nil
}

// timeOf is the time that an application gave a line, if it is one that can be true: not more than a day old and not
// in the future, as Cloud Logging has it that doesn't accept what is older than its buckets keep.
func timeOf(fields map[string]json.RawMessage, at time.Time) time.Time {
	t, err := time.Parse(time.RFC3339Nano, str(fields["time"]))
	if err != nil {
		var ts struct{ Seconds, Nanos int64 }
		switch {
		case fields["timestamp"] != nil && json.Unmarshal(fields["timestamp"], &ts) == nil && ts.Seconds > 0:
		case fields["timestampSeconds"] != nil && json.Unmarshal(fields["timestampSeconds"], &ts.Seconds) == nil:
			_ = json.Unmarshal(fields["timestampNanos"], &ts.Nanos)
		default:
			return at
		}
		t = time.Unix(ts.Seconds, ts.Nanos)
	}
	if d := at.Sub(t); d > 24*time.Hour || d < -time.Second {
		return at
	}
	return t.UTC()
}

// maxLabels bounds an entry's labels, as Cloud Logging does.
const maxLabels = 64

func labelsOf(b json.RawMessage) map[string]string {
	var all map[string]json.RawMessage
	if object(b) == nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	var out map[string]string
	for k, v := range all {
		var s string
		if len(k) > 512 || json.Unmarshal(v, &s) != nil || k == "instanceId" {
			continue
		}
		if len(out) >= maxLabels {
			break
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[k] = s
	}
	return out
}

// requestOf reads an httpRequest that an application wrote, or returns nil.
func requestOf(b json.RawMessage) *Request {
	var q wireRequest
	if object(b) == nil || json.Unmarshal(b, &q) != nil {
		return nil
	}
	latency, _ := time.ParseDuration(q.Latency) // one that can't be read is none
	return &Request{
		Method: q.Method, URL: q.URL, Status: q.Status, RequestSize: q.RequestSize, ResponseSize: q.ResponseSize, Latency: latency, UserAgent: q.UserAgent, Referer: q.Referer,
		RemoteIP: q.RemoteIP, ServerIP: q.ServerIP, Protocol: q.Protocol, CacheHit: q.CacheHit, CacheLookup: q.CacheLookup,
	}
}
