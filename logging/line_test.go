package logging_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"giggle/logging"
)

var (
	at  = time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	res = logging.Resource{Project: "giggle", Region: "europe-north1", Service: "jokes", Revision: "jokes-00001-abc"}
)

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		name, stream, text string
		want               logging.Entry
	}{
		{"plain", "stdout", "knock knock", logging.Entry{Log: logging.Stdout, Text: "knock knock"}},
		{"standard error has no severity of its own", "stderr", "oops", logging.Entry{Log: logging.Stderr, Text: "oops"}},
		{"the platform's word is never read", "giggle", `{"severity":"ERROR"}`, logging.Entry{Log: logging.System, Text: `{"severity":"ERROR"}`}},
		{"the platform's error", "giggle-error", "no memory", logging.Entry{Log: logging.System, Severity: logging.Error, Text: "no memory"}},
		{"not text", "stdout", "a\xffb", logging.Entry{Log: logging.Stdout, Text: "a�b"}},
		{"an array", "stdout", `["severity"]`, logging.Entry{Log: logging.Stdout, Text: `["severity"]`}},
		{"cut off", "stdout", `{"severity":"ERROR"`, logging.Entry{Log: logging.Stdout, Text: `{"severity":"ERROR"`}},
		{"two objects", "stdout", `{} {}`, logging.Entry{Log: logging.Stdout, Text: `{} {}`}},
		{"only a message", "stderr", `{"severity":"error","message":"no"}`, logging.Entry{Log: logging.Stderr, Severity: logging.Error, Text: "no"}},
		{"a message that is no text", "stdout", `{"message":1}`, logging.Entry{Log: logging.Stdout, JSON: json.RawMessage(`{"message":1}`)}},
		{"fields", "stdout", `{"message":"no","z":1,"severity":"WARN","a":{"b":[1]}}`,
			logging.Entry{Log: logging.Stdout, Severity: logging.Warning, JSON: json.RawMessage(`{"a":{"b":[1]},"message":"no","z":1}`)}},
		{"an unknown severity", "stdout", `{"severity":"loud","message":"x"}`, logging.Entry{Log: logging.Stdout, Text: "x"}},
		{"a trace", "stdout", `{"message":"x","logging.googleapis.com/trace":"projects/giggle/traces/abc","logging.googleapis.com/spanId":"12","logging.googleapis.com/trace_sampled":true}`,
			logging.Entry{Log: logging.Stdout, Text: "x", Trace: "abc", Span: "12", Sampled: true}},
		{"a bare trace", "stdout", `{"message":"x","logging.googleapis.com/trace":"abc"}`, logging.Entry{Log: logging.Stdout, Text: "x", Trace: "abc"}},
		{"labels", "stdout", `{"message":"x","logging.googleapis.com/labels":{"a":"b","n":1,"instanceId":"other"},"logging.googleapis.com/insertId":"42"}`,
			logging.Entry{Log: logging.Stdout, Text: "x", Labels: map[string]string{"a": "b"}, ID: "42"}},
		{"where and what", "stdout", `{"message":"x","logging.googleapis.com/sourceLocation":{"file":"a.go"},"logging.googleapis.com/operation":{"id":"1"}}`,
			logging.Entry{Log: logging.Stdout, Text: "x", Source: json.RawMessage(`{"file":"a.go"}`), Operation: json.RawMessage(`{"id":"1"}`)}},
		{"its own time", "stdout", `{"message":"x","time":"2026-11-26T20:59:59.5+01:00"}`, logging.Entry{Log: logging.Stdout, Text: "x", Time: at.Add(-500 * time.Millisecond)}},
		{"its own time in parts", "stdout", `{"message":"x","timestamp":{"seconds":1795723199,"nanos":5}}`, logging.Entry{Log: logging.Stdout, Text: "x", Time: at.Add(-time.Second + 5)}},
		{"a time that can't be", "stdout", `{"message":"x","time":"1999-01-01T00:00:00Z"}`, logging.Entry{Log: logging.Stdout, Text: "x"}},
		{"a request", "stdout", `{"message":"x","httpRequest":{"requestMethod":"GET","status":200,"responseSize":"12","latency":"0.5s"}}`,
			logging.Entry{Log: logging.Stdout, Text: "x", Request: &logging.Request{Method: "GET", Status: 200, ResponseSize: 12, Latency: time.Second / 2}}},
		{"no request", "stdout", `{"httpRequest":"GET"}`, logging.Entry{Log: logging.Stdout, JSON: json.RawMessage(`{"httpRequest":"GET"}`)}},
		{"an empty object", "stdout", `{}`, logging.Entry{Log: logging.Stdout, JSON: json.RawMessage(`{}`)}},
	} {
		tt.want.Resource, tt.want.Instance = res, "i1"
		if tt.want.Time.IsZero() {
			tt.want.Time = at
		}
		if d := cmp.Diff(tt.want, logging.Line(res, "i1", tt.stream, tt.text, at)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestEntryInCloudLoggingsForm(t *testing.T) {
	e := logging.Entry{
		Log: logging.Requests, Time: at, Severity: logging.Warning, Resource: res, Instance: "i1", ID: "1", Trace: "abc", Span: "12", Sampled: true,
		Request: &logging.Request{Method: "GET", URL: "https://jokes/", Status: 404, RequestSize: 100, ResponseSize: 1 << 40, Latency: 1500 * time.Microsecond, UserAgent: "curl", RemoteIP: "1.2.3.4", Protocol: "HTTP/1.1"},
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"insertId":"1","logName":"projects/giggle/logs/run.googleapis.com%2Frequests","timestamp":"2026-11-26T20:00:00Z","severity":"WARNING",` +
		`"resource":{"type":"cloud_run_revision","labels":{"configuration_name":"jokes","location":"europe-north1","project_id":"giggle","revision_name":"jokes-00001-abc","service_name":"jokes"}},` +
		`"labels":{"instanceId":"i1"},"httpRequest":{"requestMethod":"GET","requestUrl":"https://jokes/","requestSize":"100","status":404,"responseSize":"1099511627776",` +
		`"userAgent":"curl","remoteIp":"1.2.3.4","latency":"0.001500000s","protocol":"HTTP/1.1"},"trace":"projects/giggle/traces/abc","spanId":"12","traceSampled":true}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var back logging.Entry
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, back); d != "" {
		t.Error(d)
	}
}

func FuzzLine(f *testing.F) {
	f.Add(`{"severity":"ERROR","message":"x","time":"2026-11-26T20:00:00Z","httpRequest":{"latency":"1s"},"logging.googleapis.com/labels":{"a":"b"}}`)
	f.Add(`{"message":"\ud800"}`)
	f.Add("{")
	f.Fuzz(func(t *testing.T, text string) {
		e := logging.Line(res, "i1", "stdout", text, at)
		if !utf8.ValidString(e.Text) || e.Text != "" && e.JSON != nil {
			t.Fatalf("%q became %+v", text, e)
		}
		if e.Text == "" && e.JSON == nil && strings.TrimSpace(text) != "" && !strings.HasPrefix(strings.TrimSpace(text), "{") {
			t.Fatalf("%q became nothing", text)
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var back logging.Entry
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	})
}
