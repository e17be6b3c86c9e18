package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"giggle/api/giggle"
	"giggle/gateway"
	"giggle/logging"
	"giggle/resource"
)

func TestLogLine(t *testing.T) {
	res := logging.Revision(resource.Revision{
		Service: resource.Service("giggle", "europe-north1", "jokes"),
		ID:      "jokes-00001-abc",
	})
	request := logging.Entry{
		Log:      logging.Requests,
		Severity: logging.Error,
		Resource: res,
		Text:     "no instance",
		Labels:   map[string]string{"cold_start": "true"},
		Request: &logging.Request{
			Method:  "GET",
			URL:     "https://jokes-x-lz.a.run.app/a?b=c",
			Status:  503,
			Latency: 1234567 * time.Nanosecond,
		},
	}
	text := logging.Entry{Log: logging.Stdout, Resource: res, Text: "\x1b[2Jgone\tquite"}
	object := logging.Entry{
		Log:      logging.Stderr,
		Severity: logging.Warning,
		Resource: res,
		JSON:     json.RawMessage(`{"message":"hm","a":1}`),
	}
	line := logging.Entry{
		Log:      logging.Builds,
		Severity: logging.Info,
		Resource: logging.Build("giggle", "b1", ""),
		Text:     "Step #0: hello",
	}
	for _, tt := range []struct {
		e              logging.Entry
		named, colours bool
		want           string // behind the time
	}{
		{request, false, false, "00001-abc  503  GET  /a?b=c  1.2ms  cold  no instance"},
		{request, true, false, "jokes-00001-abc  503  GET  /a?b=c  1.2ms  cold  no instance"},
		{text, false, false, `00001-abc  \x1b[2Jgone quite`},
		{line, true, false, "Step #0: hello"},
		{object, false, false, `00001-abc  WARNING  hm  {"a":1}`},
		{object, false, true, `00001-abc  WARNING  hm  {"a":1}` + plain},
	} {
		got := logLine(&tt.e, tt.named, tt.colours)
		if !strings.HasSuffix(got, "  "+tt.want) || strings.HasPrefix(got, "\x1b") != tt.colours {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestPrintEntries(t *testing.T) {
	plainText := func(e *logging.Entry) string { return logLine(e, false, false) }
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs}
	in := `{"entry":{"logName":"projects/p/logs/run.googleapis.com%2Fstdout","timestamp":"2026-11-26T20:00:00Z","severity":"DEFAULT","textPayload":"hello"}}` + "\n" +
		`{"lost":7}` + "\n" + `{"error":{"code":14,"message":"it is over"}}` + "\n"
	err := p.printEntries(strings.NewReader(in), false, plainText)
	if err == nil || !strings.Contains(err.Error(), "it is over") || !strings.HasSuffix(out.String(), "hello\n") ||
		!strings.Contains(errs.String(), "7 entries") {
		t.Errorf("%v, %q, %q", err, out.String(), errs.String())
	}
	if err := p.printEntries(strings.NewReader(`{"entry":`), false, plainText); err == nil {
		t.Error("an answer that breaks off was taken for all")
	}
}

func TestTop(t *testing.T) {
	load := func(revision string, requests, errors, at uint64, cpu time.Duration) giggle.Load {
		l := giggle.Load{Project: "giggle", Service: "jokes", Revision: revision, CPU: cpu}
		l.Requests[1], l.Requests[4], l.Latencies[at] = requests-errors, errors, requests
		return l
	}
	begin := time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	b := load("b", 0, 0, 0, 0)
	b.Ready, b.Memory, b.GPUs, b.GPU = 2, 64<<20, 2, 75*time.Second
	got := viewOf(
		giggle.Top{
			Time:      begin,
			Revisions: []giggle.Load{load("a", 100, 0, 40, time.Second), load("again", 50, 0, 40, 0)},
		},
		giggle.Top{
			Time: begin.Add(2 * time.Second),
			Revisions: []giggle.Load{b, load("a", 300, 20, 40, 2*time.Second), load("again", 10, 0, 40, 0),
				load("nothing", 0, 0, 0, 0)},
		},
	)
	if len(got.Revisions) != 3 || got.Seconds != 2 {
		t.Fatalf("%+v", got)
	}
	if a := got.Revisions[0]; a.Rate != 100 || a.ErrorRatio != 0.1 || a.Cores != 0.5 || a.P50 <= 0 ||
		a.P99 > float64(gateway.Bound(40).Microseconds())/1000 {
		t.Errorf("a: %+v", a)
	}
	if again := got.Revisions[1]; again.Rate != 5 {
		t.Errorf("what was counted anew: %+v", again)
	}
	var out bytes.Buffer
	p := &program{stdout: &out}
	if err := p.showTop(got); err != nil || !strings.Contains(out.String(), "64 MiB") ||
		!strings.Contains(out.String(), "10.0%") || strings.Contains(out.String(), "\x1b") ||
		!strings.Contains(out.String(), "1m15s") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
