package giggle

import (
	"net/http"
	"time"

	"giggle/gateway"
	"giggle/iam"
)

// Load is what a revision does now, and what it has done since the platform started.
type Load struct {
	Project  string `json:"project"`
	Region   string `json:"region"`
	Service  string `json:"service"`
	Revision string `json:"revision"`

	Ready    int   `json:"ready"` // instances
	Starting int   `json:"starting"`
	Prepared int   `json:"prepared"`
	InFlight int   `json:"inFlight"` // requests in instances
	Queued   int   `json:"queued"`   // requests that wait for one
	Memory   int64 `json:"memory"`   // bytes

	Requests  [gateway.Classes]uint64 `json:"requests"`  // by class of the status, 1xx first
	Latencies gateway.Histogram       `json:"latencies"` // in the gateway's buckets
	CPU       time.Duration           `json:"cpu"`       // nanoseconds
	Billable  time.Duration           `json:"billable"`  // nanoseconds
	GPUs      int                     `json:"gpus"`      // that instances have now
	GPU       time.Duration           `json:"gpu"`       // nanoseconds for which instances had GPUs
	Starts    int                     `json:"starts"`
	OOMs      int                     `json:"ooms"`
}

// Top is all loads at a moment.
type Top struct {
	Time      time.Time `json:"time"`
	Revisions []Load    `json:"revisions"`
}

// top answers with the loads of one project's revisions, or of all.
func (s *Server) top(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	projects := s.Projects()
	if p := r.URL.Query().Get("project"); p != "" {
		projects = []string{p}
	}
	may := make(map[string]bool)
	for _, p := range projects {
		if err := s.Identity.Authorize(r.Context(), who, "logging.logEntries.list", "projects/"+p); err != nil {
			return nil, err
		}
		may[p] = true
	}
	all := s.Loads()
	out := Top{Time: all.Time, Revisions: []Load{}}
	for _, l := range all.Revisions {
		if may[l.Project] {
			out.Revisions = append(out.Revisions, l)
		}
	}
	return out, nil
}
