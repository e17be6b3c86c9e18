package giggle

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"giggle/fault"
	"giggle/iam"
	"giggle/logging"
)

// maxEntries bounds how many entries a call may ask for.
const maxEntries = 100_000

// LogLine is a line of the answer to a call for logs: an entry, a note that entries were lost, or the error that ended it.
type LogLine struct {
	Entry *logging.Entry `json:"entry,omitempty"`
	Lost  int64          `json:"lost,omitempty"`
	Error *Error         `json:"error,omitempty"`
}

// logs answers with the entries of a project's log, one a line: those that there are, and with follow those that come.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	q := r.URL.Query()
	f := logging.Filter{
		Project: q.Get("project"), Region: q.Get("region"), Service: q.Get("service"), Revision: q.Get("revision"), Trace: q.Get("trace"), Limit: 50,
	}
	if f.Project == "" {
		return nil, fault.Invalid("project", "must be said")
	}
	if n := q.Get("limit"); n != "" {
		var err error
		if f.Limit, err = strconv.Atoi(n); err != nil || f.Limit < 0 || f.Limit > maxEntries {
			return nil, fault.Invalid("limit", "%.20q is not a number of entries from 0 to %d", n, maxEntries)
		}
	}
	if sev := q.Get("severity"); sev != "" {
		var err error
		if f.Severity, err = logging.ParseSeverity(sev); err != nil {
			return nil, err
		}
	}
	if err := s.cfg.Identity.Authorize(r.Context(), who, "logging.logEntries.list", "projects/"+f.Project); err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	if q.Get("follow") != "true" {
		entries, err := s.cfg.Log.Read(f)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			_ = out.Encode(LogLine{Entry: &entries[i]})
		}
		return nil, nil
	}
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	for e, err := range s.cfg.Log.Follow(r.Context(), f) {
		line := LogLine{Entry: &e}
		var lost logging.Lost
		switch {
		case errors.As(err, &lost):
			line = LogLine{Lost: int64(lost)}
		case err != nil: // the head is out: what is left is to say it in a line
			_ = out.Encode(LogLine{Error: &Error{Code: uint32(fault.CodeOf(err)), Message: fault.From(err).Message}})
			return nil, nil
		}
		if out.Encode(line) != nil {
			return nil, nil
		}
		_ = flush.Flush()
	}
	return nil, nil
}
