package cloudlogging

import (
	"context"
	"maps"
	"net/url"
	"regexp"
	"strings"

	"cloud.google.com/go/logging/apiv2/loggingpb"

	"giggle/fault"
	"giggle/logging"
)

// logID is the id of a log: "less than 512 characters long and can only include the following characters: upper and
// lower case alphanumeric characters, forward-slash, underscore, hyphen, and period".
var logID = regexp.MustCompile(`^[A-Za-z0-9/_.-]{1,511}$`)

// mostEntries is how many entries a call may write: "entries.write requests: 1,000 entries" is what Google's libraries
// keep to; its quota is 10 MB, which is that of a request here.
const mostEntries = 10_000

// WriteLogEntries keeps entries: all, or with partialSuccess those that can be.
func (s *Server) WriteLogEntries(
	ctx context.Context, r *loggingpb.WriteLogEntriesRequest,
) (*loggingpb.WriteLogEntriesResponse, error) {
	if len(r.GetEntries()) > mostEntries {
		return nil, fault.Invalid("entries", "are %d; at most %d are allowed", len(r.GetEntries()), mostEntries)
	}
	now := s.Now().UTC()
	allowed := make(map[string]string) // ids of projects, by what they are called
	var good []logging.Entry
	var wrong []error // of those that can't be kept
	for i, w := range r.GetEntries() {
		e, err := s.entry(ctx, r, w, allowed)
		if err == nil {
			e, err = fromProto(w, e.Project, e.Log, now)
		}
		if err == nil {
			good = append(good, e)
			continue
		}
		f := fault.From(err)
		if !r.GetPartialSuccess() || f.Code == fault.PermissionDenied {
			return nil, err
		}
		wrong = append(wrong, fault.New(f.Code, "entries[%d]: %s", i, f.Message))
	}
	if r.GetDryRun() {
		good = nil
	}
	for _, e := range good {
		s.Log.Append(e)
	}
	if len(wrong) > 0 {
		f := fault.From(wrong[0])
		return nil, fault.New(f.Code, "%d of %d entries were not written: %s", len(wrong), len(r.GetEntries()), f.Message)
	}
	return &loggingpb.WriteLogEntriesResponse{}, nil
}

// entry fills what an entry has from its request, and asks whether the caller may write to its log.
func (s *Server) entry(
	ctx context.Context, r *loggingpb.WriteLogEntriesRequest, w *loggingpb.LogEntry, allowed map[string]string,
) (e logging.Entry, err error) {
	if w.GetLogName() == "" {
		w.LogName = r.GetLogName()
	}
	if w.GetResource() == nil {
		w.Resource = r.GetResource()
	}
	if len(r.GetLabels()) > 0 {
		all := maps.Clone(r.GetLabels())
		maps.Copy(all, w.GetLabels())
		w.Labels = all
	}
	parent, id, ok := strings.Cut(w.GetLogName(), "/logs/")
	id, err = url.QueryUnescape(id)
	if !ok || err != nil || !logID.MatchString(id) {
		return e, fault.Invalid("logName", "%.200q is not projects/PROJECT/logs/LOG, with letters, digits, /, _, - and . in LOG",
			w.GetLogName())
	}
	if strings.HasPrefix(id, "cloudaudit.googleapis.com/") {
		return e, fault.New(fault.PermissionDenied, "Only Giggle writes the audit log %s.", id)
	}
	if allowed[parent] == "" {
		p, err := s.project(ctx, "logName", parent, "logging.logEntries.create")
		if err != nil {
			return e, err
		}
		allowed[parent] = p.ID
	}
	return logging.Entry{Project: allowed[parent], Log: id}, nil
}
