package cloudlogging

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/logging/apiv2/loggingpb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/logging"
	"giggle/logging/query"
)

// The numbers of entries in a page: "Default is 50. … Value must be [1, 1000]".
const (
	usualPage = 50
	mostPage  = 1000
)

// dataAccess is the audit log that roles/logging.viewer may not read.
const dataAccess = "cloudaudit.googleapis.com/data_access"

// wanted is what a list or a tail asks for.
type wanted struct {
	projects []string
	private  map[string]bool // projects whose entries about access to data may be read
	query    query.Query
}

// wants reads the resources and the filter of a request.
func (s *Server) wants(ctx context.Context, names []string, filter string) (w wanted, err error) {
	if len(names) == 0 {
		return w, fault.Invalid("resourceNames", "are missing")
	}
	if len(names) > 100 {
		return w, fault.Invalid("resourceNames", "are more than 100")
	}
	if w.query, err = query.Parse(filter); err != nil {
		return w, err
	}
	w.private = make(map[string]bool)
	for _, name := range names {
		p, err := s.project(ctx, "resourceNames", name, "logging.logEntries.list")
		if err != nil {
			return w, err
		}
		if slices.Contains(w.projects, p.ID) {
			continue
		}
		w.projects = append(w.projects, p.ID)
		w.private[p.ID] = s.mayReadPrivate(ctx, p.ID)
	}
	return w, nil
}

// filters are what the logs are asked for: those entries of each project for which more holds.
func (w *wanted) filters(more func(e *logging.Entry) bool) (out []logging.Filter) {
	b := w.query.Bounds()
	for _, p := range w.projects {
		out = append(out, logging.Filter{
			Project:  p,
			Log:      b.Log,
			Resource: logging.Resource{Type: b.ResourceType},
			Severity: b.Severity,
			Match: func(e *logging.Entry) bool {
				return (e.Log != dataAccess || w.private[e.Project]) && more(e) && w.query.Match(e)
			},
		})
	}
	return out
}

// mayReadPrivate reports whether the caller may read the entries about access to data.
func (s *Server) mayReadPrivate(ctx context.Context, project string) bool {
	return s.Identity.Authorize(ctx, guard.Caller(ctx), "logging.privateLogEntries.list", "projects/"+project) == nil
}

// place is where a page ends: an entry's time and id.
type place struct {
	time time.Time
	id   string
}

func placeOf(e *logging.Entry) place { return place{e.Time, e.ID} }

func (p place) compare(q place) int {
	if c := p.time.Compare(q.time); c != 0 {
		return c
	}
	return strings.Compare(p.id, q.id)
}

func (p place) String() string { return strconv.FormatInt(p.time.UnixNano(), 36) + " " + p.id }

func parsePlace(s string) (place, error) {
	at, id, ok := strings.Cut(s, " ")
	n, err := strconv.ParseInt(at, 36, 64)
	if !ok || err != nil {
		return place{}, fault.Invalid("pageToken", "is not valid")
	}
	return place{time.Unix(0, n).UTC(), id}, nil
}

// ListLogEntries returns entries in the order of their times.
func (s *Server) ListLogEntries(
	ctx context.Context, r *loggingpb.ListLogEntriesRequest,
) (*loggingpb.ListLogEntriesResponse, error) {
	names := r.GetResourceNames()
	descending, err := order(r.GetOrderBy())
	if err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	if size < 0 {
		return nil, fault.Invalid("pageSize", "must not be negative")
	}
	if size = min(size, mostPage); size == 0 {
		size = usualPage
	}
	w, err := s.wants(ctx, names, r.GetFilter())
	if err != nil {
		return nil, err
	}
	list := fmt.Sprint("entries ", w.projects, descending, r.GetFilter())
	last, err := s.Pages.Last(list, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	behind := func(*logging.Entry) bool { return true }
	if last != "" {
		at, err := parsePlace(last)
		if err != nil {
			return nil, err
		}
		behind = func(e *logging.Entry) bool {
			c := placeOf(e).compare(at)
			return c > 0 && !descending || c < 0 && descending
		}
	}
	var found []logging.Entry
	for _, f := range w.filters(behind) {
		if descending {
			f.Limit = size + 1
		}
		some, err := logging.Collect(s.Entries.Read(ctx, f))
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(a, b logging.Entry) int {
		if descending {
			return placeOf(&b).compare(placeOf(&a))
		}
		return placeOf(&a).compare(placeOf(&b))
	})
	out := &loggingpb.ListLogEntriesResponse{}
	if len(found) > size {
		found = found[:size]
		out.NextPageToken = s.Pages.Token(list, placeOf(&found[size-1]).String())
	}
	for _, e := range found {
		out.Entries = append(out.Entries, toProto(&e))
	}
	return out, nil
}

// order reads orderBy: "timestamp asc", which is the usual one, or "timestamp desc".
func order(s string) (descending bool, err error) {
	switch strings.Join(strings.Fields(s), " ") {
	case "", "timestamp", "timestamp asc":
		return false, nil
	case "timestamp desc":
		return true, nil
	}
	return false, fault.Invalid("orderBy", `%.60q is not "timestamp asc" or "timestamp desc"`, s)
}

// The times of a tail (https://cloud.google.com/logging/docs/reference/v2/rpc/google.logging.v2#taillogentriesrequest;
// …/logging/quotas: "Live tailing session: 1 hour").
const (
	usualWindow = 2 * time.Second
	mostWindow  = time.Minute
	mostTail    = time.Hour
)

// TailLogEntries sends entries as they come: those of a buffer window together, by their times.
func (s *Server) TailLogEntries(stream loggingpb.LoggingServiceV2_TailLogEntriesServer) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	window := usualWindow
	if d := r.GetBufferWindow(); d != nil {
		if window = d.AsDuration(); window < 0 || window > mostWindow {
			return fault.Invalid("bufferWindow", "must be 0 to 60 seconds")
		}
	}
	ctx, cancel := context.WithTimeout(stream.Context(), mostTail)
	defer cancel()
	w, err := s.wants(ctx, r.GetResourceNames(), r.GetFilter())
	if err != nil {
		return err
	}
	go func() { // a client says that it has enough by closing its side
		defer cancel()
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	began := s.Now()
	items := make(chan item)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for _, f := range w.filters(func(e *logging.Entry) bool { return !e.Time.Before(began) }) {
		all.Go(func() {
			for e, err := range s.Entries.Follow(ctx, f) {
				select {
				case items <- item{e, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return tail(ctx, stream.Send, window, items)
}

// item is what following a log yields.
type item struct {
	entry logging.Entry
	err   error
}

// tail sends what comes, until ctx ends.
func tail(
	ctx context.Context, send func(*loggingpb.TailLogEntriesResponse) error, window time.Duration, items <-chan item,
) error {
	var waiting []logging.Entry
	var lost int64
	flush := func() error {
		if len(waiting) == 0 && lost == 0 {
			return nil
		}
		slices.SortStableFunc(waiting, func(a, b logging.Entry) int { return a.Time.Compare(b.Time) })
		out := &loggingpb.TailLogEntriesResponse{}
		for _, e := range waiting {
			out.Entries = append(out.Entries, toProto(&e))
		}
		if lost > 0 {
			out.SuppressionInfo = append(out.SuppressionInfo, &loggingpb.TailLogEntriesResponse_SuppressionInfo{
				Reason:          loggingpb.TailLogEntriesResponse_SuppressionInfo_NOT_CONSUMED,
				SuppressedCount: int32(min(lost, 1<<31-1)),
			})
		}
		waiting, lost = waiting[:0], 0
		return send(out)
	}
	tick := time.NewTicker(max(window, 10*time.Millisecond))
	defer tick.Stop()
	for {
		var err error
		select {
		case i := <-items:
			var missed logging.Lost
			switch {
			case errors.As(i.err, &missed):
				lost += int64(missed)
			case i.err != nil:
				err = i.err
			default:
				waiting = append(waiting, i.entry)
			}
			if len(waiting) >= mostPage && err == nil {
				err = flush()
			}
		case <-tick.C:
			err = flush()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fault.New(fault.OutOfRange, "The maximum duration of a session, %s, was reached.", mostTail)
			}
			return flush()
		}
		if err != nil {
			return err
		}
	}
}
