package giggle

import (
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"giggle/fault"
	"giggle/iam"
	"giggle/logging"
	"giggle/logging/audit"
	"giggle/logging/query"
)

// maxEntries bounds how many entries a call may ask for.
const maxEntries = 100_000

// LogLine is a line of the answer to a call for logs: an entry, a note that entries were lost, or the error that ended
// it.
type LogLine struct {
	Entry *logging.Entry `json:"entry,omitempty"`
	Lost  int64          `json:"lost,omitempty"`
	Error *Error         `json:"error,omitempty"`
}

// logs answers with what the services of a project say, or what one of its builds does.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	q := r.URL.Query()
	f := logging.Filter{Project: q.Get("project"), Resource: resourceIn(q), Trace: q.Get("trace")}
	if f.Project == "" {
		return nil, fault.Invalid("project", "must be said")
	}
	var err error
	if f.Limit, err = limitIn(q, 50); err != nil {
		return nil, err
	}
	if sev := q.Get("severity"); sev != "" {
		if f.Severity, err = logging.ParseSeverity(sev); err != nil {
			return nil, err
		}
	}
	if f.Match, err = matchIn(q, nil); err != nil {
		return nil, err
	}
	return nil, s.entries(w, r, who, s.cfg.Log, f)
}

// matchIn is what the filter of a query wants, in the Logging query language, of what else is wanted; nil for all.
func matchIn(q url.Values, also func(e *logging.Entry) bool) (func(e *logging.Entry) bool, error) {
	filter, err := query.Parse(q.Get("filter"))
	if err != nil || filter.String() == "" {
		return also, err
	}
	return func(e *logging.Entry) bool { return (also == nil || also(e)) && filter.Match(e) }, nil
}

// resourceIn is the resource whose entries a query asks for.
func resourceIn(q url.Values) logging.Resource {
	out := logging.Resource{Type: logging.RevisionType, Labels: make(map[string]string)}
	labels := map[string]string{"region": "location", "service": "service_name", "revision": "revision_name"}
	if q.Get("build") != "" {
		out.Type, labels = logging.BuildType, map[string]string{"build": "build_id"}
	}
	for name, label := range labels {
		if v := q.Get(name); v != "" {
			out.Labels[label] = v
		}
	}
	return out
}

// audit answers with the calls in the audit log.
func (s *Server) audit(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	q := r.URL.Query()
	f := logging.Filter{
		Project: q.Get("project"),
		ID:      q.Get("request"),
	}
	var err error
	calls := audit.Calls{
		Principal: q.Get("principal"),
		Method:    q.Get("method"),
		Refused:   q.Get("refused") == "true",
	}
	if f.Match, err = matchIn(q, calls.Match); err != nil {
		return nil, err
	}
	if f.Limit, err = limitIn(q, 0); err != nil {
		return nil, err
	}
	return nil, s.entries(w, r, who, s.cfg.Audit, f)
}

// limitIn is how many entries a query asks for, 0 being all.
func limitIn(q url.Values, unsaid int) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return unsaid, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxEntries {
		return 0, fault.Invalid("limit", "%.20q is not a number of entries from 0 to %d", text, maxEntries)
	}
	return n, nil
}

// entries answers with the entries of a log, one a line: those that there are, and with follow those that come.
func (s *Server) entries(
	w http.ResponseWriter, r *http.Request, who iam.Principal, from logging.Reader, f logging.Filter,
) error {
	projects := []string{f.Project}
	if f.Project == "" {
		projects = s.cfg.Projects()
	}
	for _, p := range projects {
		if err := s.cfg.Identity.Authorize(r.Context(), who, "logging.logEntries.list", "projects/"+p); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("follow") == "true" {
		return stream(w, from.Follow(r.Context(), f), true)
	}
	return stream(w, from.Read(r.Context(), f), false)
}

// stream writes entries, one a line, and each at once where a reader follows. It returns an error only where the
// head isn't out yet.
func stream(w http.ResponseWriter, entries iter.Seq2[logging.Entry, error], waits bool) error {
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	began := waits
	if waits {
		w.WriteHeader(http.StatusOK)
		_ = flush.Flush()
	}
	for e, err := range entries {
		line := LogLine{Entry: &e}
		var lost logging.Lost
		switch {
		case errors.As(err, &lost):
			line = LogLine{Lost: int64(lost)}
		case err != nil && !began:
			return err
		case err != nil:
			line = LogLine{Error: &Error{Code: uint32(fault.CodeOf(err)), Message: fault.From(err).Message}}
		}
		began = true
		if out.Encode(line) != nil {
			return nil
		}
		if waits {
			_ = flush.Flush()
		}
	}
	return nil
}
