package cloudlogging

import (
	"maps"
	"math"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/logging/apiv2/loggingpb"
	"google.golang.org/genproto/googleapis/api/monitoredres"
	_ "google.golang.org/genproto/googleapis/cloud/audit"    // what protoPayload has
	_ "google.golang.org/genproto/googleapis/iam/v1/logging" // and what is in that
	"google.golang.org/genproto/googleapis/logging/type"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/fault"
	"giggle/logging"
)

var lenient = protojson.UnmarshalOptions{DiscardUnknown: true}

// toProto writes an entry.
func toProto(e *logging.Entry) *loggingpb.LogEntry {
	w := &loggingpb.LogEntry{
		LogName:          "projects/" + e.Project + "/logs/" + url.QueryEscape(e.Log),
		Resource:         &monitoredres.MonitoredResource{Type: e.Resource.Type, Labels: e.Resource.Labels},
		Timestamp:        timestamppb.New(e.Time),
		ReceiveTimestamp: timestamppb.New(e.Time),
		Severity:         ltype.LogSeverity(e.Severity),
		InsertId:         e.ID,
		Labels:           e.Labels,
		Trace:            logging.TraceName(e.Project, e.Trace),
		SpanId:           e.Span,
		TraceSampled:     e.Sampled,
	}
	switch {
	case e.JSON != nil:
		s := &structpb.Struct{}
		if protojson.Unmarshal(e.JSON, s) == nil {
			w.Payload = &loggingpb.LogEntry_JsonPayload{JsonPayload: s}
		} else { // an object that has a name twice, or nests too deeply
			w.Payload = &loggingpb.LogEntry_TextPayload{TextPayload: string(e.JSON)}
		}
	case e.Proto != nil:
		a := &anypb.Any{}
		if lenient.Unmarshal(e.Proto, a) == nil {
			w.Payload = &loggingpb.LogEntry_ProtoPayload{ProtoPayload: a}
		}
	case e.Text != "" || e.Request == nil: // an empty line is one: gcloud 528 crashes on a container's entry without text
		w.Payload = &loggingpb.LogEntry_TextPayload{TextPayload: e.Text}
	}
	if r := e.Request; r != nil {
		w.HttpRequest = &ltype.HttpRequest{
			RequestMethod: r.Method,
			RequestUrl:    r.URL,
			RequestSize:   r.RequestSize,
			Status:        int32(r.Status),
			ResponseSize:  r.ResponseSize,
			UserAgent:     r.UserAgent,
			RemoteIp:      r.RemoteIP,
			ServerIp:      r.ServerIP,
			Referer:       r.Referer,
			Latency:       durationpb.New(r.Latency),
			CacheLookup:   r.CacheLookup,
			CacheHit:      r.CacheHit,
			Protocol:      r.Protocol,
		}
	}
	if e.Source != nil {
		w.SourceLocation = &loggingpb.LogEntrySourceLocation{}
		_ = lenient.Unmarshal(e.Source, w.SourceLocation) // what an application wrote that isn't one is left out
	}
	if e.Operation != nil {
		w.Operation = &loggingpb.LogEntryOperation{}
		_ = lenient.Unmarshal(e.Operation, w.Operation)
	}
	if e.Split != nil {
		w.Split = &loggingpb.LogSplit{}
		_ = lenient.Unmarshal(e.Split, w.Split)
	}
	return w
}

// What an entry may have (https://cloud.google.com/logging/quotas#log-limits): "Size of a log entry 256 KB", "Number of
// labels 64", "Length of a log entry label key 512 B, value 64 KB", and times of the last 30 days and the next.
const (
	mostEntry  = 256 << 10
	mostLabels = 64
	mostKey    = 512
	mostValue  = 64 << 10
	mostID     = 512
	oldest     = 30 * 24 * time.Hour
	newest     = 24 * time.Hour
)

// fromProto reads an entry that a client writes. Its project and log are known.
func fromProto(w *loggingpb.LogEntry, project, log string, now time.Time) (e logging.Entry, err error) {
	e = logging.Entry{
		Project:  project,
		Log:      log,
		Time:     now,
		Severity: logging.Severity(w.GetSeverity()),
		ID:       w.GetInsertId(),
		Labels:   w.GetLabels(),
		Trace:    logging.TraceID(w.GetTrace()),
		Span:     w.GetSpanId(),
		Sampled:  w.GetTraceSampled(),
	}
	if s := w.GetSeverity(); s < 0 || s > math.MaxInt16 {
		return e, fault.Invalid("severity", "%d is not a severity", s)
	}
	if t := w.GetTimestamp(); t != nil {
		if err := t.CheckValid(); err != nil {
			return e, fault.Invalid("timestamp", "%v", err)
		}
		if e.Time = t.AsTime(); now.Sub(e.Time) > oldest || e.Time.Sub(now) > newest {
			return e, fault.Invalid("timestamp", "%s is more than 30 days ago or more than a day ahead",
				e.Time.Format(time.RFC3339))
		}
	}
	kind := w.GetResource().GetType()
	if kind == "" {
		return e, fault.Invalid("resource", "is missing")
	}
	labels := maps.Clone(w.GetResource().GetLabels())
	if labels == nil {
		labels = make(map[string]string)
	}
	labels["project_id"] = project
	e.Resource = &logging.Resource{Type: kind, Labels: labels}
	switch {
	case !known(kind):
		return e, fault.Invalid("resource.type", "%.100q is not a type of monitored resource", kind)
	case len(e.ID) > mostID:
		return e, fault.Invalid("insertId", "is longer than %d bytes", mostID)
	case len(w.GetTrace()) > mostID || len(w.GetSpanId()) > mostID:
		return e, fault.Invalid("trace", "is longer than %d bytes", mostID)
	}
	for field, m := range map[string]map[string]string{"labels": e.Labels, "resource.labels": labels} {
		if err := checkLabels(field, m); err != nil {
			return e, err
		}
	}
	switch p := w.GetPayload().(type) {
	case *loggingpb.LogEntry_TextPayload:
		e.Text = strings.ToValidUTF8(p.TextPayload, "\ufffd")
	case *loggingpb.LogEntry_JsonPayload:
		e.JSON, err = protojson.Marshal(p.JsonPayload)
	case *loggingpb.LogEntry_ProtoPayload:
		if e.Proto, err = protojson.Marshal(p.ProtoPayload); err != nil {
			return e, fault.NotImplemented("protoPayload", "messages of the type %.100q are not known", p.ProtoPayload.GetTypeUrl())
		}
	}
	if err != nil {
		return e, fault.Invalid("jsonPayload", "%v", err)
	}
	if n := len(e.Text) + len(e.JSON) + len(e.Proto); n > mostEntry {
		return e, fault.Invalid("entries", "Log entry with size %d exceeds maximum size of %d", n, mostEntry)
	}
	if r := w.GetHttpRequest(); r != nil {
		e.Request = &logging.Request{
			Method:       r.GetRequestMethod(),
			URL:          r.GetRequestUrl(),
			Status:       int(r.GetStatus()),
			RequestSize:  r.GetRequestSize(),
			ResponseSize: r.GetResponseSize(),
			Latency:      r.GetLatency().AsDuration(),
			UserAgent:    r.GetUserAgent(),
			Referer:      r.GetReferer(),
			RemoteIP:     r.GetRemoteIp(),
			ServerIP:     r.GetServerIp(),
			Protocol:     r.GetProtocol(),
			CacheHit:     r.GetCacheHit(),
			CacheLookup:  r.GetCacheLookup(),
		}
	}
	if l := w.GetSourceLocation(); l != nil {
		e.Source, err = protojson.Marshal(l)
	}
	if o := w.GetOperation(); o != nil && err == nil {
		e.Operation, err = protojson.Marshal(o)
	}
	if p := w.GetSplit(); p != nil && err == nil {
		e.Split, err = protojson.Marshal(p)
	}
	return e, err
}

func checkLabels(field string, m map[string]string) error {
	if len(m) > mostLabels {
		return fault.Invalid(field, "are %d; at most %d are allowed", len(m), mostLabels)
	}
	for k, v := range m {
		if k == "" || len(k) > mostKey || len(v) > mostValue || !utf8.ValidString(k) {
			return fault.Invalid(field, "%.60q has no key, one of more than %d bytes, or a value of more than %d", k, mostKey,
				mostValue)
		}
	}
	return nil
}

// known reports whether there is such a type of resource.
func known(kind string) bool {
	for _, d := range descriptors {
		if d.GetType() == kind {
			return true
		}
	}
	return false
}
