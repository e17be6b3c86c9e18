package cloud

import (
	"giggle/engine"
	"giggle/gateway"
	"giggle/logging"
	"giggle/resource"
)

// What is kept in memory of each project's log.
const (
	logEntries = 20_000
	logBytes   = 16 << 20
)

// records puts the gateway's records into the log.
type records struct{ log logging.Log }

func (r records) Record(x *gateway.Record) {
	e := logging.Entry{
		Log: logging.Requests, Time: x.Start, Severity: logging.Info, Resource: resourceOf(resource.Revision{Service: x.Service, ID: x.Revision}),
		Instance: x.Instance, Trace: x.Trace, Span: x.Span, Sampled: x.Sampled, Text: x.Note,
		Request: &logging.Request{
			Method: x.Method, URL: x.URL, Status: x.Status, RequestSize: x.RequestBytes, ResponseSize: x.ResponseBytes, Latency: x.Latency,
			UserAgent: x.UserAgent, Referer: x.Referer, RemoteIP: x.RemoteIP, Protocol: x.Protocol,
		},
	}
	switch {
	case x.Status >= 500:
		e.Severity = logging.Error
	case x.Status >= 400:
		e.Severity = logging.Warning
	}
	if x.Cold {
		e.Labels = map[string]string{"cold_start": "true"}
	}
	r.log.Append(e)
}

// containerLine puts a line about an instance into the log.
func (c *Cloud) containerLine(rev resource.Revision, instance string, l engine.Line) {
	c.entries.Append(logging.Line(resourceOf(rev), instance, l.Stream, l.Text, l.Time))
}

func resourceOf(rev resource.Revision) logging.Resource {
	s := rev.Service
	return logging.Resource{Project: s.Project, Region: s.Location.Location, Service: s.ID, Revision: rev.ID}
}
