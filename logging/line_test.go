package logging_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"giggle/logging"
	"giggle/resource"
)

var (
	at  = time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	res = revision("europe-north1", "jokes", "jokes-00001-abc")
)

func revision(region, service, id string) *logging.Resource {
	return logging.Revision(resource.Revision{Service: resource.Service("giggle", region, service), ID: id})
}

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       logging.Entry
	}{
		{"plain", "knock knock", logging.Entry{Text: "knock knock"}},
		{"not text", "a\xffb", logging.Entry{Text: "a�b"}},
		{"an array", `["severity"]`, logging.Entry{Text: `["severity"]`}},
		{"cut off", `{"severity":"ERROR"`, logging.Entry{Text: `{"severity":"ERROR"`}},
		{"two objects", `{} {}`, logging.Entry{Text: `{} {}`}},
		{"only a message", `{"severity":"error","message":"no"}`, logging.Entry{Severity: logging.Error, Text: "no"}},
		{"a message that is no text", `{"message":1}`, logging.Entry{JSON: json.RawMessage(`{"message":1}`)}},
		{"fields", `{"message":"no","z":1,"severity":"WARN","a":{"b":[1]}}`,
			logging.Entry{Severity: logging.Warning, JSON: json.RawMessage(`{"a":{"b":[1]},"message":"no","z":1}`)}},
		{"an unknown severity", `{"severity":"loud","message":"x"}`, logging.Entry{Text: "x"}},
		{"a trace", `{"message":"x","logging.googleapis.com/trace":"projects/giggle/traces/abc","logging.googleapis.com/spanId":"12","logging.googleapis.com/trace_sampled":true}`,
			logging.Entry{Text: "x", Trace: "abc", Span: "12", Sampled: true}},
		{"a bare trace", `{"message":"x","logging.googleapis.com/trace":"abc"}`, logging.Entry{Text: "x", Trace: "abc"}},
		{"labels", `{"message":"x","logging.googleapis.com/labels":{"a":"b","n":1,"instanceId":"other"},"logging.googleapis.com/insertId":"42"}`,
			logging.Entry{Text: "x", Labels: map[string]string{"a": "b", "instanceId": "i1"}, ID: "42"}},
		{"where and what", `{"message":"x","logging.googleapis.com/sourceLocation":{"file":"a.go"},"logging.googleapis.com/operation":{"id":"1"}}`,
			logging.Entry{
				Text:      "x",
				Source:    json.RawMessage(`{"file":"a.go"}`),
				Operation: json.RawMessage(`{"id":"1"}`),
			}},
		{"its own time", `{"message":"x","time":"2026-11-26T20:59:59.5+01:00"}`, logging.Entry{Text: "x", Time: at.Add(-500 * time.Millisecond)}},
		{"its own time in parts", `{"message":"x","timestamp":{"seconds":1795723199,"nanos":5}}`, logging.Entry{Text: "x", Time: at.Add(-time.Second + 5)}},
		{"a time that can't be", `{"message":"x","time":"1999-01-01T00:00:00Z"}`, logging.Entry{Text: "x"}},
		{"a request", `{"message":"x","httpRequest":{"requestMethod":"GET","status":200,"responseSize":"12","latency":"0.5s"}}`,
			logging.Entry{
				Text:    "x",
				Request: &logging.Request{Method: "GET", Status: 200, ResponseSize: 12, Latency: time.Second / 2},
			}},
		{"no request", `{"httpRequest":"GET"}`, logging.Entry{JSON: json.RawMessage(`{"httpRequest":"GET"}`)}},
		{"an empty object", `{}`, logging.Entry{JSON: json.RawMessage(`{}`)}},
	} {
		of := logging.Entry{
			Project:  "giggle",
			Log:      logging.Stdout,
			Time:     at,
			Resource: res,
			Labels:   map[string]string{"instanceId": "i1"},
		}
		tt.want.Project, tt.want.Log, tt.want.Resource = of.Project, of.Log, of.Resource
		if tt.want.Time.IsZero() {
			tt.want.Time = at
		}
		if tt.want.Labels == nil {
			tt.want.Labels = of.Labels
		}
		got := logging.Line(of, tt.text)
		if len(of.Labels) != 1 {
			t.Errorf("%s: the labels that entries share are %v now", tt.name, of.Labels)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// What isn't an application's own word isn't read as one.
func TestPlain(t *testing.T) {
	if got := logging.Plain(logging.Entry{Severity: logging.Info},
		`{"severity":"ERROR","a":"`+"\xff"+`"}`); got.Severity != logging.Info ||
		got.Text != `{"severity":"ERROR","a":"�"}` || got.JSON != nil {
		t.Errorf("%+v", got)
	}
	long := strings.Repeat("x", 1<<20)
	if got := logging.Plain(logging.Entry{}, long); len(got.Text) > 256<<10+3 {
		t.Errorf("a line of %d bytes became one of %d", len(long), len(got.Text))
	}
}

func TestEntryInCloudLoggingsForm(t *testing.T) {
	e := logging.Entry{
		Log:      logging.Requests,
		Time:     at,
		Severity: logging.Warning,
		Project:  "giggle",
		Resource: res,
		Labels:   map[string]string{"instanceId": "i1"},
		ID:       "1",
		Trace:    "abc",
		Span:     "12",
		Sampled:  true,
		Request: &logging.Request{
			Method:       "GET",
			URL:          "https://jokes/",
			Status:       404,
			RequestSize:  100,
			ResponseSize: 1 << 40,
			Latency:      1500 * time.Microsecond,
			UserAgent:    "curl",
			RemoteIP:     "1.2.3.4",
			Protocol:     "HTTP/1.1",
		},
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
		e := logging.Line(logging.Entry{Log: logging.Stdout, Time: at, Resource: res}, text)
		if !utf8.ValidString(e.Text) || e.Text != "" && e.JSON != nil {
			t.Fatalf("%q became %+v", text, e)
		}
		if e.Text == "" && e.JSON == nil && strings.TrimSpace(text) != "" &&
			!strings.HasPrefix(strings.TrimSpace(text), "{") {
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
