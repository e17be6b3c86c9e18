package logging

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"time"
)

// maxLine bounds what is kept of one line, in bytes; Cloud Logging's entries end at 256 KiB.
const maxLine = 256 << 10

// Plain returns an entry with a line of text as its payload.
func Plain(e Entry, text string) Entry {
	e.Text = strings.ToValidUTF8(cut(text), "�")
	return e
}

// Line returns an entry with a line that an application wrote as its payload. One that is a JSON object becomes the
// jsonPayload, and the special fields in it what they stand for
// (https://cloud.google.com/logging/docs/structured-logging). Labels that the entry has already stay as they are.
func Line(e Entry, text string) Entry {
	text = cut(text)
	if !e.structured(text) {
		return Plain(e, text)
	}
	return e
}

func cut(text string) string {
	if len(text) > maxLine {
		return text[:maxLine] + "…"
	}
	return text
}

// special are the fields of a JSON line that are moved out of the payload.
var special = []string{
	"severity", "time", "timestamp", "timestampSeconds", "timestampNanos", "httpRequest",
	"logging.googleapis.com/insertId", "logging.googleapis.com/labels",
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
	e.Trace = TraceID(clip(str(fields["logging.googleapis.com/trace"]), 512))
	e.Span = clip(str(fields["logging.googleapis.com/spanId"]), 64)
	e.Sampled = string(bytes.Trim(fields["logging.googleapis.com/trace_sampled"], `"`)) == "true"
	e.addLabels(fields["logging.googleapis.com/labels"])
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

// addLabels adds those that an application gave its line.
func (e *Entry) addLabels(b json.RawMessage) {
	var all map[string]json.RawMessage
	if object(b) == nil || json.Unmarshal(b, &all) != nil {
		return
	}
	out := make(map[string]string)
	maps.Copy(out, e.Labels)
	for k, v := range all {
		var s string
		if _, has := e.Labels[k]; has || len(k) > 512 || json.Unmarshal(v, &s) != nil {
			continue
		}
		if len(out) >= maxLabels {
			break
		}
		out[k] = s
	}
	if len(out) > len(e.Labels) {
		e.Labels = out
	}
}

// requestOf reads an httpRequest that an application wrote, or returns nil.
func requestOf(b json.RawMessage) *Request {
	var q wireRequest
	if object(b) == nil || json.Unmarshal(b, &q) != nil {
		return nil
	}
	latency, _ := time.ParseDuration(q.Latency) // one that can't be read is none
	return q.request(latency)
}
