package gateway

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Microsecond, 3 * time.Microsecond, 4 * time.Microsecond,
		7 * time.Microsecond, 8 * time.Microsecond, 15 * time.Microsecond, 999 * time.Microsecond, time.Millisecond,
		time.Second, time.Hour} {
		i := bucket(d)
		if d >= Bound(i) || i > 0 && d < Bound(i-1) {
			t.Errorf("%v is in bucket %d, which goes from %v to %v", d, i, Bound(i-1), Bound(i))
		}
	}
	if bucket(-1) != 0 || bucket(1<<62) != Buckets-1 {
		t.Error("what can't be is not in the outer buckets")
	}
	var h Histogram
	for us := range 1000 {
		h[bucket(time.Duration(us)*time.Microsecond)]++
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.95: 950 * time.Microsecond,
		0.99: 990 * time.Microsecond} {
		if got := h.Quantile(q); got < want*9/10 || got > want*11/10 {
			t.Errorf("quantile %v of 0 to 1 ms = %v", q, got)
		}
	}
}

func TestTraces(t *testing.T) {
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, tt := range []struct {
		name, header, value string
		want                *trace // nil: a new one
	}{
		{"W3C", "Traceparent", "00-" + id + "-" + span + "-01", &trace{id, span, true, true}},
		{"not sampled", "Traceparent", "00-" + id + "-" + span + "-02", &trace{id, span, false, true}},
		{"a later version", "Traceparent", "01-" + id + "-" + span + "-01-more", &trace{id, span, true, true}},
		{"no version", "Traceparent", "ff-" + id + "-" + span + "-01", nil},
		{"more than there may be", "Traceparent", "00-" + id + "-" + span + "-01-more", nil},
		{"capitals", "Traceparent", "00-0AF7651916CD43DD8448EB211C80319C-" + span + "-01", nil},
		{"no trace", "Traceparent", "00-00000000000000000000000000000000-" + span + "-01", nil},
		{"no span", "Traceparent", "00-" + id + "-0000000000000000-01", nil},
		{"not a trace", "Traceparent", "x", nil},
		{"Google's", "X-Cloud-Trace-Context", id + "/13235353014750950193;o=1", &trace{id, span, true, false}},
		{"Google's, not sampled", "X-Cloud-Trace-Context", id + "/13235353014750950193;o=0", &trace{id, span, false, false}},
		{"Google's, undecided", "X-Cloud-Trace-Context", id + "/13235353014750950193", &trace{id, span, true, false}},
		{"not Google's", "X-Cloud-Trace-Context", "abc/1;o=1", nil},
	} {
		got := traceOf(map[string][]string{tt.header: {tt.value}})
		if tt.want != nil && got != *tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, *tt.want)
		}
		if tt.want == nil && (got.id == id || len(got.id) != 32 || len(got.span) != 16 || got.parent) {
			t.Errorf("%s: %+v is not a new trace", tt.name, got)
		}
	}
	got := traceOf(map[string][]string{"X-Cloud-Trace-Context": {id}})
	if got.id != id || len(got.span) != 16 {
		t.Errorf("without a span: %+v", got)
	}
}
