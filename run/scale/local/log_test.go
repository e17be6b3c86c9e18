package local

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"giggle/engine"
	"giggle/logging"
	"giggle/resource"
)

// kept is the last entry.
type kept struct{ logging.Entry }

func (k *kept) Append(e logging.Entry) { k.Entry = e }

func TestLinesBecomeEntries(t *testing.T) {
	rev := resource.Revision{Service: resource.Service("giggle", "europe-north1", "jokes"), ID: "jokes-1"}
	at := time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
	const object = `{"severity":"WARNING","message":"hm"}`
	for _, tt := range []struct {
		stream, text string
		want         logging.Entry
	}{
		{engine.Stdout, "knock", logging.Entry{Log: logging.Stdout, Text: "knock"}},
		{engine.Stderr, "knock", logging.Entry{Log: logging.Stderr, Text: "knock"}},
		{engine.Stdout, object, logging.Entry{Log: logging.Stdout, Severity: logging.Warning, Text: "hm"}},
		{engine.Platform, object, logging.Entry{Log: logging.System, Text: object}}, // no application's word
		{engine.PlatformWarnings, "no way", logging.Entry{Log: logging.System, Severity: logging.Warning, Text: "no way"}},
		{engine.PlatformErrors, "no memory", logging.Entry{Log: logging.System, Severity: logging.Error, Text: "no memory"}},
	} {
		var got kept
		New(Config{Log: &got}).log(rev, "i1")(engine.Line{Time: at, Stream: tt.stream, Text: tt.text})
		tt.want.Project, tt.want.Time, tt.want.Resource, tt.want.Labels = "giggle", at, logging.Revision(rev), map[string]string{"instanceId": "i1"}
		if d := cmp.Diff(tt.want, got.Entry); d != "" {
			t.Errorf("%s %q: %s", tt.stream, tt.text, d)
		}
	}
}
