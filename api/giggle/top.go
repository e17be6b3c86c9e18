package giggle

import (
	"net/http"
	"time"

	"giggle/gateway"
	"giggle/iam"
	"giggle/resource"
	"giggle/run/scale"
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
	projects := s.cfg.Projects()
	if p := r.URL.Query().Get("project"); p != "" {
		projects = []string{p}
	}
	may := make(map[string]bool)
	for _, p := range projects {
		if err := s.cfg.Identity.Authorize(r.Context(), who, "logging.logEntries.list", "projects/"+p); err != nil {
			return nil, err
		}
		may[p] = true
	}
	all := s.cfg.Loads()
	out := Top{Time: all.Time, Revisions: []Load{}}
	for _, l := range all.Revisions {
		if may[l.Project] {
			out.Revisions = append(out.Revisions, l)
		}
	}
	return out, nil
}

// Loads puts together what all revisions do and have done: the gateway knows of their requests, the scaler of their
// instances.
func Loads(now time.Time, instances []scale.Stats, requests []gateway.Stats) Top {
	out := Top{Time: now}
	at := make(map[string]int)
	load := func(rev resource.Revision) *Load {
		i, ok := at[rev.String()]
		if !ok {
			i = len(out.Revisions)
			at[rev.String()] = i
			s := rev.Service
			out.Revisions = append(out.Revisions, Load{
				Project:  s.Project,
				Region:   s.Location.Location,
				Service:  s.ID,
				Revision: rev.ID,
			})
		}
		return &out.Revisions[i]
	}
	for _, s := range instances {
		l := load(s.Revision)
		l.Ready, l.Starting, l.Prepared, l.InFlight, l.Queued = s.Ready, s.Starting, s.Prepared, s.InFlight, s.Queued
		l.Memory, l.CPU, l.Billable, l.Starts, l.OOMs = s.Memory, s.CPU, s.Billable, s.Starts, s.OOMs
		l.GPUs, l.GPU = s.GPUs, s.GPU
	}
	for _, s := range requests {
		l := load(resource.Revision{Service: s.Service, ID: s.Revision})
		l.Requests, l.Latencies = s.Requests, s.Latencies
	}
	return out
}
